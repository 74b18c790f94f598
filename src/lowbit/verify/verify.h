// Whether a checkpoint holds what it claims: checksums, shapes, finite numbers, and every weight
// read twice, by the loader and by plain_weight.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lowbit {

struct VerifyReport {
  struct Layer {
    std::string module;  // "model.layers.0.self_attn.q_proj"
    std::string scheme;  // "w4_g64"
    bool read_twice = false;
    // Against the original's weights, if there is one: ||W - W'|| / ||W||, cosine of the angle
    // between W and W', max |w - w'|.
    double relative_error = 0, cosine = 0, max_error = 0;
  };

  std::string format;  // as Checkpoint::format()
  int64_t tensors = 0;
  bool checksums = false;  // there were some
  bool compared = false;   // with an original
  std::vector<Layer> layers;
  std::vector<std::string> problems;  // empty: nothing is off
  std::string loads_in;               // programs that read this format
  double seconds = 0;
};

// Reads the checkpoint at `path` and, if it is not empty, the one at `original` (of the same
// shape). What is off goes into the report; throws only if `original` cannot be read. Shows a
// progress line.
VerifyReport verify_checkpoint(const std::string& path, const std::string& original, int threads);

}  // namespace lowbit
