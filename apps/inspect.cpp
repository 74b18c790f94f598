// lowbit inspect: what a checkpoint holds.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <memory>
#include <set>

#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/report/table.h"
#include "lowbit/tokenizer/chat_template.h"
#include "lowbit/tokenizer/tokenizer.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct InspectCommand {
  std::string model;
  int64_t context = 0;
  bool json = false;
};

// Tensors of the same role in all blocks: "self_attn.q_proj".
struct TensorKind {
  int64_t count = 0;
  int64_t weights = 0;
  int64_t bytes = 0;
  std::set<std::string> formats;
  std::vector<int64_t> shape;  // of the first
};

// "model.layers.12.mlp.up_proj.weight" is of kind "mlp.up_proj"; others are their own kind.
std::string kind_of(const std::string& name) {
  std::string kind = name;
  const std::string blocks = "model.layers.";
  if (kind.rfind(blocks, 0) == 0) {
    const size_t dot = kind.find('.', blocks.size());
    if (dot != std::string::npos) kind = kind.substr(dot + 1);
  }
  const std::string weight = ".weight";
  if (kind.size() > weight.size() && kind.ends_with(weight)) {
    kind.resize(kind.size() - weight.size());
  }
  return kind;
}

struct Inventory {
  std::vector<std::pair<std::string, TensorKind>> kinds;  // in order of first appearance
  int64_t weights = 0;
  int64_t bytes = 0;
};

Inventory take_inventory(const Checkpoint& checkpoint) {
  Inventory inventory;
  std::map<std::string, size_t> index;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const std::string kind = kind_of(tensor.name);
    const auto [it, added] = index.emplace(kind, inventory.kinds.size());
    if (added) inventory.kinds.emplace_back(kind, TensorKind{});
    TensorKind& entry = inventory.kinds[it->second].second;
    int64_t weights = 1;
    for (const int64_t dimension : tensor.shape) weights *= dimension;
    if (entry.count++ == 0) entry.shape = tensor.shape;
    entry.weights += weights;
    entry.bytes += tensor.bytes;
    entry.formats.insert(tensor.format);
    inventory.weights += weights;
    inventory.bytes += tensor.bytes;
  }
  return inventory;
}

double bits_per_weight(int64_t bytes, int64_t weights) {
  return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0;
}

std::string join(const std::set<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

OrderedJson describe(const Checkpoint& checkpoint, const ModelConfig& config,
                     const Inventory& inventory, int64_t context) {
  OrderedJson out;
  out["path"] = checkpoint.path();
  out["format"] = checkpoint.format();
  out["family"] = config.model_type;
  out["parameters"] = config.parameters();
  out["weight_bytes"] = inventory.bytes;
  out["bits_per_weight"] = bits_per_weight(inventory.bytes, inventory.weights);
  out["layers"] = config.num_hidden_layers;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["heads"] = config.num_attention_heads;
  out["kv_heads"] = config.num_key_value_heads;
  out["head_dim"] = config.head_dim;
  out["vocab_size"] = config.vocab_size;
  out["max_context"] = config.max_position_embeddings;
  out["tied_head"] = config.tie_word_embeddings;
  const int64_t cache = config.kv_cache(1, DType::kF16).token_bytes() * context;
  out["memory"] = {{"context", context},
                   {"weights_bytes", inventory.bytes},
                   {"kv_cache_bytes", cache},
                   {"total_bytes", inventory.bytes + cache}};
  for (const auto& [name, kind] : inventory.kinds) {
    out["tensors"].push_back({{"kind", name},
                              {"count", kind.count},
                              {"shape", kind.shape},
                              {"formats", kind.formats},
                              {"bytes", kind.bytes},
                              {"bits_per_weight", bits_per_weight(kind.bytes, kind.weights)}});
  }
  return out;
}

// Tokenizer and template are described even if one of them cannot be used.
void describe_text(const Checkpoint& checkpoint, OrderedJson& out) {
  try {
    const TokenizerSpec spec = checkpoint.tokenizer();
    const Tokenizer tokenizer(spec);
    out["tokenizer"] = {{"vocab_size", tokenizer.vocab_size()},
                        {"merges", spec.merges.size()},
                        {"added_tokens", spec.added_tokens.size()},
                        {"kind", spec.byte_fallback ? "BPE with byte fallback" : "byte-level BPE"},
                        {"bos", spec.bos_token},
                        {"eos", spec.eos_token}};
    if (spec.chat_template.empty()) {
      out["chat_template"] = nullptr;
      return;
    }
    const ChatTemplate chat_template(spec.chat_template);
    out["chat_template"] = concat(spec.chat_template.size(), " bytes");
  } catch (const Error& error) {
    out[out.contains("tokenizer") ? "chat_template" : "tokenizer"] =
        std::string("unusable: ") + error.what();
  }
}

std::string text_of(const OrderedJson& value) {
  if (value.is_null()) return "none";
  return value.is_string() ? value.get<std::string>() : dump_json(value);
}

void print(const OrderedJson& out) {
  const auto number = [&](const char* key) { return out[key].get<int64_t>(); };
  Table facts({"", ""});
  const auto fact = [&](const char* what, const std::string& value) { facts.add({what, value}); };
  fact("path", out["path"]);
  fact("format", out["format"]);
  fact("family", out["family"]);
  fact("parameters", human_count(static_cast<double>(number("parameters"))));
  fact("weights", human_bytes(static_cast<double>(number("weight_bytes"))) + ", " +
                      fixed(out["bits_per_weight"], 3) + " bits per weight");
  fact("blocks", concat(number("layers"), " of hidden ", number("hidden_size"), ", intermediate ",
                        number("intermediate_size"), ", ", number("heads"), " heads, ",
                        number("kv_heads"), " KV heads of ", number("head_dim")));
  fact("vocabulary",
       concat(number("vocab_size"),
              out["tied_head"].get<bool>() ? ", head tied to embedding" : ", separate head"));
  const OrderedJson& memory = out["memory"];
  fact("context", concat(number("max_context"), " at most"));
  fact("memory",
       concat(human_bytes(memory["total_bytes"]), " at context ", memory["context"].get<int64_t>(),
              " (weights ", human_bytes(memory["weights_bytes"]), " + fp16 KV cache ",
              human_bytes(memory["kv_cache_bytes"]), ")"));
  const OrderedJson& tokenizer = out["tokenizer"];
  fact("tokenizer", tokenizer.is_string()
                        ? tokenizer.get<std::string>()
                        : concat(tokenizer["kind"].get<std::string>(), ", ",
                                 tokenizer["vocab_size"].get<int64_t>(), " tokens, ",
                                 tokenizer["merges"].get<int64_t>(), " merges"));
  if (out.contains("chat_template")) fact("chat template", text_of(out["chat_template"]));
  std::printf("%s\n", facts.text().c_str());
  Table tensors({"tensors", ">count", "shape", "format", ">MiB", ">bits/weight"});
  for (const OrderedJson& kind : out["tensors"]) {
    std::string shape;
    for (const auto& dimension : kind["shape"]) {
      shape += (shape.empty() ? "" : " x ") + dump_json(dimension);
    }
    tensors.add({kind["kind"], dump_json(kind["count"]), shape,
                 join(kind["formats"].get<std::set<std::string>>()),
                 fixed(kind["bytes"].get<double>() / (1 << 20), 2),
                 fixed(kind["bits_per_weight"], 3)});
  }
  std::printf("%s", tensors.text().c_str());
}

void execute(const InspectCommand& command) {
  const auto checkpoint = open_checkpoint(command.model);
  const ModelConfig config =
      parse_model_config(checkpoint->config(), checkpoint->generation_config(), checkpoint->path());
  const int64_t context = command.context > 0
                              ? command.context
                              : std::min<int64_t>(config.max_position_embeddings, 8192);
  OrderedJson out = describe(*checkpoint, config, take_inventory(*checkpoint), context);
  describe_text(*checkpoint, out);
  if (command.json) {
    std::printf("%s\n", dump_json(out, 2).c_str());
  } else {
    print(out);
  }
}

}  // namespace

void add_inspect(CLI::App& program) {
  auto command = std::make_shared<InspectCommand>();
  CLI::App& sub = *program.add_subcommand("inspect", "Describe a checkpoint");
  sub.footer("Example: lowbit inspect model.gguf -c 4096");
  sub.add_option("MODEL,-m,--model", command->model, "The checkpoint")->required();
  sub.add_option("-c,--ctx-size", command->context, "Context for the memory estimate")
      ->check(CLI::NonNegativeNumber);
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app
