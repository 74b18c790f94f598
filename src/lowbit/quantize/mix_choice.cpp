#include "lowbit/quantize/mix_choice.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/mix_solution.h"
#include "lowbit/quantize/sensitivity.h"

namespace lowbit {

namespace {

// A step of size for every step of loss: fewer bits or smaller groups. Without zero points, which
// compressed-tensors 0.20 fails to load in transformers.
constexpr const char* kUsualSchemes[] = {"w2_g32", "w3_g64", "w3_g32", "w4_g128", "w4_g64",
                                         "w4_g32", "w5_g64", "w6_g64", "w8_g64"};
constexpr const char* kGroupNames[kLinearGroups] = {"qkv_proj", "o_proj", "gate_up_proj",
                                                    "down_proj"};

std::vector<QuantScheme> schemes_of(const QuantizeOptions& options) {
  std::vector<QuantScheme> schemes;
  const auto add = [&](const QuantScheme& scheme) {
    if (std::find(schemes.begin(), schemes.end(), scheme) == schemes.end()) {
      schemes.push_back(scheme);
    }
  };
  const std::vector<std::string>& asked = options.method_options.automatic.schemes;
  std::vector<std::string> names = asked;
  if (asked.empty()) names.assign(std::begin(kUsualSchemes), std::end(kUsualSchemes));
  for (const std::string& name : names) {
    const std::optional<QuantScheme> scheme = parse_mix_scheme(name);
    LOWBIT_CHECK(scheme.has_value(), "--auto-schemes: there is no \"", name,
                 "\"; names are w2_g64 to w8_g64, groups of 32, 64 and 128, and with _zero where "
                 "there are zero points: w4_g32_zero");
    add(*scheme);
  }
  if (asked.empty()) add(mix_reference(options));
  return schemes;
}

// Linears that read the same input.
MixUnit make_unit(std::string name, const std::vector<const PlanItem*>& items,
                  const std::vector<QuantScheme>& schemes) {
  MixUnit unit;
  unit.name = std::move(name);
  for (const PlanItem* item : items) {
    unit.modules.push_back(item->name);
    unit.weights += item->rows * item->cols;
  }
  const int64_t cols = unit.cols = items.front()->cols;
  for (const QuantScheme& scheme : schemes) {
    if (cols % scheme.group_size != 0) continue;
    MixOption option{.scheme = scheme};
    for (const PlanItem* item : items) option.bytes += mix_bytes(scheme, item->rows, cols);
    unit.options.push_back(option);
  }
  LOWBIT_CHECK(!unit.options.empty(), unit.name, ": no scheme's groups divide its ", cols,
               " columns; name others with --auto-schemes");
  return unit;
}

const PlanItem* find_quantized(const PlanUnit& unit, const std::string& module) {
  for (const PlanItem& item : unit.items) {
    if (item.name == module && item.quantize) return &item;
  }
  return nullptr;
}

// Once for each shape and scheme.
void measure_speed(MixPlan& mix, const QuantizeOptions& options) {
  const auto& seconds_of = options.method_options.automatic.seconds_of;
  if (!seconds_of) return;
  using Key = std::tuple<int64_t, int64_t, std::string>;
  std::map<Key, double> seconds;
  const auto key = [](const MixUnit& unit, const MixOption& option) {
    return Key{unit.weights / unit.cols, unit.cols, name_of(option.scheme)};
  };
  for (const MixUnit& unit : mix.units) {
    for (const MixOption& option : unit.options) seconds[key(unit, option)] = -1;
  }
  Progress progress("measuring speed", static_cast<int64_t>(seconds.size()), "layers");
  int64_t done = 0;
  for (MixUnit& unit : mix.units) {
    for (MixOption& option : unit.options) {
      double& known = seconds[key(unit, option)];
      if (known < 0) {
        known = seconds_of(unit.weights / unit.cols, unit.cols, option.scheme);
        progress.update(++done, concat(unit.name, " ", name_of(option.scheme)));
      }
      option.seconds = known;
    }
  }
}

// Losses of the units of one block.
void add_losses(MixPlan& mix, const BlockWeights& block, const BlockFisher& fisher,
                ThreadPool& pool) {
  for (MixUnit& unit : mix.units) {
    for (size_t n = 0; n < block.linears.size(); ++n) {
      const BlockWeights::Linear& linear = block.linears[n];
      if (std::find(unit.modules.begin(), unit.modules.end(), linear.name) == unit.modules.end()) {
        continue;
      }
      std::vector<QuantScheme> schemes;
      for (const MixOption& option : unit.options) schemes.push_back(option.scheme);
      const std::vector<double> losses = rounding_losses(linear, fisher[n], schemes, pool);
      for (size_t i = 0; i < losses.size(); ++i) unit.options[i].loss += losses[i];
    }
  }
}

void measure_losses(const MixJob& job, MixPlan& mix) {
  SensitivityOptions options;
  options.seed = job.options.method_options.seed;
  options.memory_bytes = job.options.memory_bytes;
  options.spill = job.spill;
  Progress progress("measuring sensitivity", 100, "%");
  measure_sensitivity(
      job.checkpoint, job.config, job.data, options, job.pool,
      [&](int64_t, const BlockWeights& block, const BlockFisher& fisher) {
        add_losses(mix, block, fisher, job.pool);
      },
      [&](double done) { progress.update(static_cast<int64_t>(100 * done)); });
}

}  // namespace

MixPlan outline_mix(const ModelConfig& config, const Plan& plan, const QuantizeOptions& options) {
  const std::vector<QuantScheme> schemes = schemes_of(options);
  MixPlan mix;
  mix.method = options.method_options.automatic.method;
  int64_t index = 0;
  for (const PlanUnit& unit : plan.units) {
    if (!unit.is_block) continue;
    const auto groups = block_linears(config, index);
    for (size_t g = 0; g < groups.size(); ++g) {
      std::vector<const PlanItem*> items;
      for (const LinearSlot& slot : groups[g]) {
        const PlanItem* item = find_quantized(unit, slot.module);
        if (item != nullptr) items.push_back(item);
      }
      if (items.empty()) continue;
      mix.units.push_back(make_unit(concat("layers.", index, " ", kGroupNames[g]), items, schemes));
    }
    ++index;
  }
  // A head that is to be quantized is outside of the blocks: it gets what the run says.
  const PlanItem* head = find_quantized(plan.units.back(), "lm_head");
  if (head != nullptr) mix.units.push_back(make_unit("lm_head", {head}, {mix_reference(options)}));
  LOWBIT_CHECK(!mix.units.empty(), "--method auto: there is nothing to quantize (--skip)");
  return mix;
}

int64_t bytes_in_16_bits(const ModelConfig& config, const Plan& plan) {
  int64_t values = 0, index = 0;
  for (const PlanUnit& unit : plan.units) {
    for (const PlanItem& item : unit.items) {
      if (!item.quantize) values += item.rows * item.cols;
    }
    if (!unit.is_block) continue;
    for (const auto& group : block_linears(config, index)) {
      for (const LinearSlot& slot : group) values += slot.bias ? slot.rows : 0;
    }
    ++index;
  }
  return 2 * values;
}

MixPlan choose_mix(const MixJob& job) {
  MixPlan mix = outline_mix(job.config, job.plan, job.options);
  const int64_t rest = bytes_in_16_bits(job.config, job.plan);
  check_mix_size(mix, job.options, rest);
  measure_speed(mix, job.options);
  measure_losses(job, mix);
  solve_mix(mix, job.options, rest);
  return mix;
}

}  // namespace lowbit
