// MixPlan: which scheme each layer of a model gets (`--method auto`), and the measurements that say
// why. As JSON it lies beside the result (auto_plan.json) and can be given to a later run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/quantize/plan.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

inline constexpr const char* kMixPlanFile = "auto_plan.json";

struct MixOption {
  QuantScheme scheme;
  double loss = 0;     // nats a token that it is expected to cost
  double seconds = 0;  // of one token; 0: not measured
  int64_t bytes = 0;   // of codes, scales and zeros
};

// Linears that share a scheme because they are multiplied as one.
struct MixUnit {
  std::string name;  // "layers.0 qkv_proj"
  std::vector<std::string> modules;
  int64_t weights = 0;
  int64_t cols = 0;  // of each
  std::vector<MixOption> options;
  size_t chosen = 0;
  std::string why;

  const MixOption& choice() const { return options[chosen]; }
};

struct MixTotals {
  double loss = 0, seconds = 0;
  int64_t bytes = 0, weights = 0;
  double bits() const { return weights > 0 ? 8.0 * static_cast<double>(bytes) / weights : 0; }
};

struct MixPlan {
  std::string method;  // that rounds the weights: "autoround"
  std::string goal;    // "at most 4.25 bits per weight"
  std::vector<MixUnit> units;
  std::vector<std::string> notices;  // what the user should know of the choice

  MixTotals totals() const;
  // Of the same scheme everywhere, if every unit has that option.
  std::optional<MixTotals> uniform(const QuantScheme& scheme) const;
  // "w3_g64 x 12, w4_g64 x 96": schemes by the number of units that have them.
  std::string summary() const;
};

Json to_json(const MixPlan& plan);
// Modules and schemes are required, measurements are not. Throws kCorruptFile naming origin.
MixPlan mix_plan_from_json(const Json& document, const std::string& origin);

// "w4_g64", "w3_g32_zero": integers of 2 to 8 bits in groups of 32, 64 or 128.
std::optional<QuantScheme> parse_mix_scheme(const std::string& name);

// Gives every linear of the plan that is quantized its scheme, and units their sizes. Throws
// kInvalidArgument naming a module that is missing, there twice, or not in the model, or whose
// columns a group does not divide.
void apply_mix(MixPlan mix, Plan& plan);

// Bytes that a matrix of this scheme takes.
int64_t mix_bytes(const QuantScheme& scheme, int64_t rows, int64_t cols);

}  // namespace lowbit
