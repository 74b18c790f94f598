// Speed of tokenization on one thread.
#pragma once

#include <cstdint>
#include <string>

#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct TokenizerBenchResult {
  int64_t tokens = 0;
  double seconds = 0;  // median of the repetitions
  double mb_s = 0;     // 10^6 bytes of text per second
};

// Encodes the text once uncounted, then `repetitions` times.
TokenizerBenchResult bench_tokenizer(const Tokenizer& tokenizer, const std::string& text,
                                     int repetitions);

}  // namespace lowbit
