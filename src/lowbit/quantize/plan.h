// The plan of a quantize run: every weight of the model, in units that are finished one by one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

struct PlanItem {
  enum class Kind { kVector, kMatrix, kLinear };
  Kind kind = Kind::kVector;
  std::string name;  // a vector's own ("model.norm.weight"), else the module's
  int64_t rows = 0;  // elements, for a vector
  int64_t cols = 0;
  bool quantize = false;                   // kLinear only
  std::optional<QuantScheme> scheme = {};  // of this one; none: the run's
};

struct PlanUnit {
  std::string name;  // "embedding", "block 0", "head"
  std::vector<PlanItem> items;
  bool is_block = false;
};

struct Plan {
  std::vector<PlanUnit> units;
  // Linears that stay in 16 bits, and "lm_head" if the model has none of its own.
  std::vector<std::string> skipped;
  Json mix = nullptr;  // to_json(MixPlan) that items have their schemes from, if they do
};

// Throws kInvalidArgument if an entry of options.skip names no module.
Plan make_plan(const ModelConfig& config, const QuantizeOptions& options);

// Throws kInvalidArgument naming the modules whose columns group_size does not divide, and the
// group sizes that would do.
void check_group_size(const Plan& plan, int64_t group_size);

}  // namespace lowbit
