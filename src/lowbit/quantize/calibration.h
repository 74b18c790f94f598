// Calibration data: text that stands for what the model will see, as windows of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct CalibrationOptions {
  // A file, or a folder whose .txt and .jsonl files are read in the order of their names. A .jsonl
  // file holds a JSON object with a "text" on each line; any other is text as it is.
  std::string path;
  int64_t samples = 0;    // windows; 0: as many as there are, at most 128
  int64_t seqlen = 2048;  // tokens of each
  int64_t seed = -1;      // -1: the first windows of the text; otherwise drawn from all of them
};

struct CalibrationData {
  std::vector<std::vector<int32_t>> windows;  // [samples][seqlen]
  std::string sha256;                         // of the ids
};

// All texts, with an empty line between two. Throws kInvalidArgument naming file (and line) for an
// empty text, one that is not UTF-8, or a line without "text"; kIo if there is nothing to read.
std::string calibration_text(const std::string& path);

// The text's tokens, without special ones, in windows. Throws kInvalidArgument if there are fewer
// than asked for, saying how many there are.
CalibrationData load_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer);

}  // namespace lowbit
