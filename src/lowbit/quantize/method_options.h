// What the user may choose about a method that calibrates, beside its scheme.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

struct MixPlan;  // mix_plan.h

// Which columns gptq rounds first.
enum class ActOrder {
  kNone,    // as they come
  kStatic,  // by the Hessian's diagonal, the largest first; groups stay those of neighbours
  kKept     // the same, with groups of neighbours in that order, which is kept as input_order
};

struct GptqOptions {
  double damp_percent = 0.01;  // of the Hessian's mean diagonal, added to its diagonal
  ActOrder act_order = ActOrder::kStatic;
  bool search_scale = false;  // of each group; false: the scale that holds the largest weight
  int64_t block_size = 128;   // columns between two updates of all later ones
};

struct AwqOptions {
  bool duo_scaling = true;  // scales from activations and weights; false: activations alone
  int grid = 20;            // ratios tried
  bool clip = true;         // search each group's clipping range
};

struct SmoothQuantOptions {
  double alpha = 0.8;  // 0: all of the difficulty stays in activations; 1: all goes into weights
  // Largest inputs by module, in place of calibration data; null: measured. See act_scales.h.
  std::shared_ptr<const std::map<std::string, std::vector<float>>> act_scales;
};

struct MixqOptions {
  int64_t outliers = 128;  // columns of each linear kept in 16 bits; 0: none
  // As SmoothQuantOptions::act_scales.
  std::shared_ptr<const std::map<std::string, std::vector<float>>> act_scales;
};

struct AutoRoundOptions {
  int64_t iterations = 200;
  int64_t batch_size = 0;    // samples of one step; 0: as many as have 2048 tokens
  double learning_rate = 0;  // 0: 1 / iterations, at most 0.02
};

// The pass over the whole model, refine.h. 0: what suits the number of bits.
struct RefineOptions {
  int64_t steps = 0;
  double rate = 0;        // of rounding offsets, at the first step
  double range_rate = 0;  // of ranges
};

// The choice of a scheme for each layer, mix_choice.h. At most one goal; none: the size that the
// run's own bits, group and symmetry would have everywhere.
struct AutoOptions {
  std::string method = "autoround";  // that rounds the weights
  double target_bits = 0;            // goal: per quantized weight, scales included; 0: none
  int64_t target_bytes = 0;          // goal: of all of the checkpoint's tensors; 0: none
  double max_ppl_increase = 0;       // goal: 0.01 for 1 %; 0: none
  // With a goal of size: how much slower than uniform layers of that size, at most.
  double max_slowdown = 0.05;
  std::vector<std::string> schemes;     // to choose from (parse_mix_scheme()); empty: the usual
  std::shared_ptr<const MixPlan> plan;  // takes this one instead of choosing
  // Seconds that a linear takes for one token on this machine; null: speed does not count.
  std::function<double(int64_t rows, int64_t cols, const QuantScheme& scheme)> seconds_of;
  std::function<void(const MixPlan& plan)> chosen;  // told before weights are rounded; null: not
};

struct MethodOptions {
  GptqOptions gptq;
  AwqOptions awq;
  SmoothQuantOptions smoothquant;
  MixqOptions mixq;
  AutoRoundOptions autoround;
  RefineOptions refine;
  AutoOptions automatic;
  uint64_t seed = 42;
};

}  // namespace lowbit
