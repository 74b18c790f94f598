// What the user may choose about a method that calibrates, beside its scheme.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

struct GptqOptions {
  double damp_percent = 0.01;  // of the Hessian's mean diagonal, added to its diagonal
  bool act_order = false;      // columns in descending order of the Hessian's diagonal
  bool static_groups = false;  // with act_order: groups stay those of neighbouring columns
  int64_t block_size = 128;    // columns between two updates of all later ones
};

struct AwqOptions {
  bool duo_scaling = true;  // scales from activations and weights; false: activations alone
  int grid = 20;            // ratios tried
  bool clip = true;         // search each group's clipping range
};

struct SmoothQuantOptions {
  double alpha = 0.5;  // 0: all of the difficulty stays in activations; 1: all goes into weights
  // Largest inputs by module, in place of calibration data; null: measured. See act_scales.h.
  std::shared_ptr<const std::map<std::string, std::vector<float>>> act_scales;
};

struct AutoRoundOptions {
  int64_t iterations = 200;
  int64_t batch_size = 0;    // samples of one step; 0: as many as have 2048 tokens
  double learning_rate = 0;  // 0: 1 / iterations, at most 0.02
};

struct MethodOptions {
  GptqOptions gptq;
  AwqOptions awq;
  SmoothQuantOptions smoothquant;
  AutoRoundOptions autoround;
  uint64_t seed = 42;
};

}  // namespace lowbit
