#include "lowbit/quantize/mix_plan.h"

#include <algorithm>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

namespace {

void add(const MixOption& option, MixTotals& totals) {
  totals.loss += option.loss;
  totals.seconds += option.seconds;
  totals.bytes += option.bytes;
}

Json option_json(const MixOption& option) {
  return {{"scheme", name_of(option.scheme)},
          {"loss", option.loss},
          {"seconds", option.seconds},
          {"bytes", option.bytes}};
}

MixOption read_option(const Json& object, const std::string& origin) {
  LOWBIT_CHECK_KIND(object.is_object(), ErrorKind::kCorruptFile, origin,
                    ": an option is not an object");
  const std::string name = json_string(object, "scheme", "", origin);
  const std::optional<QuantScheme> scheme = parse_mix_scheme(name);
  LOWBIT_CHECK_KIND(scheme.has_value(), ErrorKind::kCorruptFile, origin, ": no scheme \"", name,
                    "\"; there are w2_g64 to w8_g64, groups of 32, 64 and 128, and with _zero");
  return {*scheme, json_double(object, "loss", 0, origin),
          json_double(object, "seconds", 0, origin), json_int(object, "bytes", 0, origin)};
}

MixUnit read_unit(const Json& object, const std::string& origin) {
  LOWBIT_CHECK_KIND(object.is_object() && object.contains("modules") &&
                        object["modules"].is_array() && !object["modules"].empty(),
                    ErrorKind::kCorruptFile, origin, ": a layer has no list \"modules\"");
  MixUnit unit;
  for (const Json& module : object["modules"]) {
    LOWBIT_CHECK_KIND(module.is_string(), ErrorKind::kCorruptFile, origin,
                      ": a module's name is not a string");
    unit.modules.push_back(module);
  }
  unit.name = json_string(object, "name", unit.modules.front(), origin);
  unit.why = json_string(object, "why", "", origin);
  unit.weights = json_int(object, "weights", 0, origin);
  unit.cols = json_int(object, "cols", 0, origin);
  const std::string chosen = json_string(object, "scheme", "", origin);
  if (object.contains("options") && object["options"].is_array()) {
    for (const Json& option : object["options"])
      unit.options.push_back(read_option(option, origin));
  }
  for (unit.chosen = 0; unit.chosen < unit.options.size(); ++unit.chosen) {
    if (name_of(unit.choice().scheme) == chosen) return unit;
  }
  unit.options.push_back(read_option({{"scheme", chosen}}, origin));
  return unit;
}

}  // namespace

MixTotals MixPlan::totals() const {
  MixTotals totals;
  for (const MixUnit& unit : units) {
    add(unit.choice(), totals);
    totals.weights += unit.weights;
  }
  return totals;
}

std::optional<MixTotals> MixPlan::uniform(const QuantScheme& scheme) const {
  MixTotals totals;
  for (const MixUnit& unit : units) {
    const auto option = std::find_if(unit.options.begin(), unit.options.end(),
                                     [&](const MixOption& o) { return o.scheme == scheme; });
    if (option == unit.options.end()) return std::nullopt;
    add(*option, totals);
    totals.weights += unit.weights;
  }
  return totals;
}

std::string MixPlan::summary() const {
  std::map<std::string, int> counts;
  for (const MixUnit& unit : units) ++counts[name_of(unit.choice().scheme)];
  std::string text;
  for (const auto& [scheme, count] : counts) {
    text += concat(text.empty() ? "" : ", ", scheme, " x ", count);
  }
  return text;
}

Json to_json(const MixPlan& plan) {
  const MixTotals totals = plan.totals();
  Json layers = Json::array();
  for (const MixUnit& unit : plan.units) {
    Json options = Json::array();
    for (const MixOption& option : unit.options) options.push_back(option_json(option));
    layers.push_back({{"name", unit.name},
                      {"modules", unit.modules},
                      {"weights", unit.weights},
                      {"cols", unit.cols},
                      {"scheme", name_of(unit.choice().scheme)},
                      {"why", unit.why},
                      {"options", options}});
  }
  return {{"method", plan.method},
          {"goal", plan.goal},
          {"notices", plan.notices},
          {"total",
           {{"loss", totals.loss},
            {"seconds", totals.seconds},
            {"bytes", totals.bytes},
            {"bits_per_weight", totals.bits()}}},
          {"layers", layers}};
}

MixPlan mix_plan_from_json(const Json& document, const std::string& origin) {
  LOWBIT_CHECK_KIND(
      document.is_object() && document.contains("layers") && document["layers"].is_array(),
      ErrorKind::kCorruptFile, origin, " is no plan: it has no list \"layers\"");
  MixPlan plan;
  plan.method = json_string(document, "method", "", origin);
  plan.goal = json_string(document, "goal", "", origin);
  for (const Json& layer : document["layers"]) plan.units.push_back(read_unit(layer, origin));
  if (document.contains("notices") && document["notices"].is_array()) {
    for (const Json& notice : document["notices"]) {
      if (notice.is_string()) plan.notices.push_back(notice);
    }
  }
  return plan;
}

std::optional<QuantScheme> parse_mix_scheme(const std::string& name) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t size : {32, 64, 128}) {
      for (const Zero zero : {Zero::kNone, Zero::kInt}) {
        const QuantScheme scheme = int_scheme(bits, size, zero);
        if (name_of(scheme) == name) return scheme;
      }
    }
  }
  return std::nullopt;
}

int64_t mix_bytes(const QuantScheme& scheme, int64_t rows, int64_t cols) {
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = rows;
  weight.cols = cols;
  return weight.stored_bytes();
}

void apply_mix(MixPlan mix, Plan& plan) {
  std::map<std::string, MixUnit*> units;
  for (MixUnit& unit : mix.units) {
    for (const std::string& module : unit.modules) {
      LOWBIT_CHECK(units.emplace(module, &unit).second, "the plan has ", module, " twice");
    }
    unit.weights = 0;
    unit.options[unit.chosen].bytes = 0;
  }
  for (PlanUnit& part : plan.units) {
    for (PlanItem& item : part.items) {
      if (!item.quantize) continue;
      const auto found = units.find(item.name);
      LOWBIT_CHECK(found != units.end(), "the plan has no scheme for ", item.name,
                   "; it is of another model, or made with other --skip");
      MixUnit& unit = *found->second;
      MixOption& option = unit.options[unit.chosen];
      LOWBIT_CHECK(item.cols % option.scheme.group_size == 0, "the plan wants ",
                   name_of(option.scheme), " for ", item.name, ", whose ", item.cols,
                   " columns such groups do not divide");
      item.scheme = option.scheme;
      unit.weights += item.rows * item.cols;
      unit.cols = item.cols;
      option.bytes += mix_bytes(option.scheme, item.rows, item.cols);
      units.erase(found);
    }
  }
  LOWBIT_CHECK(units.empty(), "the plan has a scheme for ", units.begin()->first,
               ", which the model does not have or keeps in 16 bits (--skip)");
  plan.mix = to_json(mix);
}

}  // namespace lowbit
