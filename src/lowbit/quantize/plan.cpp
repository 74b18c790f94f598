#include "lowbit/quantize/plan.h"

#include <algorithm>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"

namespace lowbit {

namespace {

PlanItem vector(std::string name, int64_t size) {
  return {PlanItem::Kind::kVector, std::move(name), size, 1, false};
}

PlanItem matrix(std::string module, int64_t rows, int64_t cols) {
  return {PlanItem::Kind::kMatrix, std::move(module), rows, cols, false};
}

// A module's whole name, or what it ends in: "down_proj", "0.mlp.up_proj".
bool matches(const std::string& module, const std::string& entry) {
  return module == entry || (!entry.empty() && module.ends_with("." + entry));
}

class Builder {
 public:
  explicit Builder(const QuantizeOptions& options) : options_(options) {}

  PlanItem linear(std::string module, int64_t rows, int64_t cols) {
    bool skip = false;
    for (const std::string& entry : options_.skip) {
      if (!matches(module, entry)) continue;
      skip = true;
      used_.insert(entry);
    }
    if (skip) plan.skipped.push_back(module);
    const bool quantize = !skip && options_.bits < 16;
    return {PlanItem::Kind::kLinear, std::move(module), rows, cols, quantize};
  }

  void check_entries() const {
    for (const std::string& entry : options_.skip) {
      LOWBIT_CHECK(used_.count(entry) != 0 || entry == "lm_head", "--skip ", entry,
                   ": the model has no such linear layer; names are as in "
                   "model.layers.0.mlp.down_proj, or an end of one such as down_proj");
    }
  }

  Plan plan;

 private:
  const QuantizeOptions& options_;
  std::set<std::string> used_;
};

PlanUnit block(Builder& builder, const ModelConfig& config, int64_t index) {
  const std::string prefix = concat("model.layers.", index, ".");
  PlanUnit unit{concat("block ", index), {}, true};
  unit.items.push_back(vector(prefix + "input_layernorm.weight", config.hidden_size));
  if (config.qk_norm) {
    unit.items.push_back(vector(prefix + "self_attn.q_norm.weight", config.head_dim));
    unit.items.push_back(vector(prefix + "self_attn.k_norm.weight", config.head_dim));
  }
  unit.items.push_back(vector(prefix + "post_attention_layernorm.weight", config.hidden_size));
  for (const auto& group : block_linears(config, index)) {
    for (const LinearSlot& slot : group) {
      unit.items.push_back(builder.linear(slot.module, slot.rows, slot.cols));
    }
  }
  return unit;
}

}  // namespace

Plan make_plan(const ModelConfig& config, const QuantizeOptions& options) {
  Builder builder(options);
  std::vector<PlanUnit>& units = builder.plan.units;
  units.push_back(
      {"embedding", {matrix("model.embed_tokens", config.vocab_size, config.hidden_size)}, false});
  for (int64_t index = 0; index < config.num_hidden_layers; ++index) {
    units.push_back(block(builder, config, index));
  }
  PlanUnit head{"head", {vector("model.norm.weight", config.hidden_size)}, false};
  if (config.tie_word_embeddings) {
    builder.plan.skipped.push_back("lm_head");
  } else {
    head.items.push_back(builder.linear("lm_head", config.vocab_size, config.hidden_size));
  }
  units.push_back(std::move(head));
  builder.check_entries();
  return std::move(builder.plan);
}

void check_group_size(const Plan& plan, int64_t group_size) {
  std::set<int64_t> widths;
  std::string modules;
  int bad = 0;
  for (const PlanUnit& unit : plan.units) {
    for (const PlanItem& item : unit.items) {
      if (!item.quantize) continue;
      widths.insert(item.cols);
      if (group_size <= 0 || item.cols % group_size == 0) continue;
      if (++bad <= 3) modules += concat(bad > 1 ? ", " : "", item.name, " (", item.cols, ")");
    }
  }
  if (bad == 0) return;
  std::string offers;
  for (const int64_t size : {128, 64, 32}) {
    const bool fits =
        std::all_of(widths.begin(), widths.end(), [&](int64_t width) { return width % size == 0; });
    if (fits) offers += concat(size, ", ");
  }
  fail(ErrorKind::kInvalidArgument, "--group-size ", group_size, " does not divide the columns of ",
       bad, " layers: ", modules, bad > 3 ? ", ..." : "", "; these divide all: ", offers, "-1");
}

}  // namespace lowbit
