// What the user may choose about a method that calibrates, beside its scheme.
#pragma once

#include <cstdint>
#include <string>

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

struct AutoRoundOptions {
  int64_t iterations = 200;
  int64_t batch_size = 0;    // samples of one step; 0: as many as have 2048 tokens
  double learning_rate = 0;  // 0: 1 / iterations
};

struct MethodOptions {
  GptqOptions gptq;
  AwqOptions awq;
  AutoRoundOptions autoround;
  uint64_t seed = 42;
};

}  // namespace lowbit
