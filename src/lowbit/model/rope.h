// Rotary position embedding (arXiv:2104.09864): frequencies, their scaling, and the tables of
// cosines and sines.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/model/config_reader.h"

namespace lowbit {

enum class RopeType { kDefault, kLinear, kLlama3, kFactors };

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;           // kLinear, kLlama3: divides the (slow) frequencies
  double low_freq_factor = 1.0;  // kLlama3
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 8192;
  std::vector<double> factors;  // kFactors: divisors of inv_freq, [head_dim / 2]
};

// Reads rope_theta + rope_scaling (with "type" or "rope_type") or rope_parameters. Throws
// kUnsupported naming a type or option that lowbit does not have, kCorruptFile on impossible
// values.
RopeConfig parse_rope(const ConfigReader& config, int64_t head_dim,
                      int64_t max_position_embeddings);

// inv_freq of the rotation after scaling, [head_dim / 2], computed in fp32 as transformers does.
std::vector<float> rope_inv_freq(const RopeConfig& rope, int64_t head_dim);

// cos and sin of position * inv_freq, each [positions][head_dim / 2].
struct RopeTables {
  std::vector<float> cos;
  std::vector<float> sin;
};
RopeTables rope_tables(const RopeConfig& rope, int64_t head_dim, int64_t positions);

}  // namespace lowbit
