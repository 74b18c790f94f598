#include "lowbit/model/config.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/model/family.h"

namespace lowbit {

namespace {

[[noreturn]] void fail_unknown(const std::string& what, const std::string& origin) {
  std::string known;
  for (const ModelFamily& family : model_families()) {
    known += concat(known.empty() ? "" : ", ", family.architecture, " (", family.model_type, ")");
  }
  fail(ErrorKind::kUnsupported, origin, ": ", what, " is not supported; supported are ", known);
}

// By model_type, and by "architectures" where it is given: a head other than a language model's
// would be silently wrong.
const ModelFamily& find_family(const ConfigReader& config) {
  const std::string model_type = config.string("model_type", "");
  std::string architecture;
  if (config.has_value("architectures") && !config.object()["architectures"].empty()) {
    const Json& list = config.object()["architectures"];
    LOWBIT_CHECK_KIND(list.is_array() && list.front().is_string(), ErrorKind::kCorruptFile,
                      config.origin(), ": \"architectures\" must be a list of names");
    architecture = list.front().get<std::string>();
  }
  LOWBIT_CHECK_KIND(!model_type.empty() || !architecture.empty(), ErrorKind::kCorruptFile,
                    config.origin(), ": neither \"model_type\" nor \"architectures\" is given");
  for (const ModelFamily& family : model_families()) {
    const bool type_fits = model_type.empty() || model_type == family.model_type;
    if (type_fits && (architecture.empty() || architecture == family.architecture)) return family;
  }
  if (architecture.empty()) fail_unknown("model_type \"" + model_type + "\"", config.origin());
  fail_unknown("architecture \"" + architecture + "\"" +
                   (model_type.empty() ? "" : " with model_type \"" + model_type + "\""),
               config.origin());
}

void read_common(const ConfigReader& config, ModelConfig& model) {
  model.vocab_size = config.integer("vocab_size", 1, limits::kVocabSize);
  model.hidden_size = config.integer("hidden_size", 1, limits::kDimension);
  model.intermediate_size = config.integer("intermediate_size", 1, limits::kDimension);
  model.num_hidden_layers = config.integer("num_hidden_layers", 1, limits::kLayers);
  model.num_attention_heads = config.integer("num_attention_heads", 1, limits::kHeads);
  model.num_key_value_heads = config.integer("num_key_value_heads", 1, limits::kHeads, 0);
  model.head_dim = config.integer("head_dim", 1, limits::kDimension, 0);
  model.max_position_embeddings = config.integer("max_position_embeddings", 1, limits::kContext, 0);
  model.rms_norm_eps = config.number("rms_norm_eps", 0, 1, 1e-6);
  model.tie_word_embeddings = config.boolean("tie_word_embeddings", false);
  const std::string activation = config.string("hidden_act", "silu");
  LOWBIT_CHECK_KIND(activation == "silu" || activation == "swish", ErrorKind::kUnsupported,
                    config.origin(), ": hidden_act \"", activation,
                    "\" is not supported; supported is silu");
}

// What families leave open, and what has to hold between the members.
void complete_heads(const ConfigReader& config, ModelConfig& model) {
  const int64_t heads = model.num_attention_heads;
  const auto corrupt = ErrorKind::kCorruptFile;
  if (model.num_key_value_heads == 0) model.num_key_value_heads = heads;
  LOWBIT_CHECK_KIND(heads % model.num_key_value_heads == 0, corrupt, config.origin(), ": ", heads,
                    " attention heads cannot share ", model.num_key_value_heads,
                    " key/value heads evenly");
  if (model.head_dim == 0) {
    LOWBIT_CHECK_KIND(model.hidden_size % heads == 0, corrupt, config.origin(), ": hidden_size ",
                      model.hidden_size, " is not a multiple of num_attention_heads ", heads,
                      ", and head_dim is not given");
    model.head_dim = model.hidden_size / heads;
  }
  LOWBIT_CHECK_KIND(model.head_dim % 2 == 0, corrupt, config.origin(), ": head_dim ",
                    model.head_dim, " is odd; rotary embedding needs pairs");
  LOWBIT_CHECK_KIND(model.head_dim * heads <= limits::kDimension, corrupt, config.origin(), ": ",
                    heads, " heads of ", model.head_dim, " exceed ", limits::kDimension,
                    " columns");
  LOWBIT_CHECK_KIND(model.max_position_embeddings > 0, corrupt, config.origin(),
                    ": \"max_position_embeddings\" is missing");
}

// An id, a list of ids, or null.
void append_ids(const ConfigReader& config, const char* key, std::vector<int32_t>& ids) {
  if (!config.has_value(key)) return;
  const Json& value = config.object()[key];
  const Json list = value.is_array() ? value : Json::array({value});
  LOWBIT_CHECK_KIND(list.size() <= limits::kEndTokens, ErrorKind::kCorruptFile, config.origin(),
                    ": \"", key, "\" lists ", list.size(), " ids, at most ", limits::kEndTokens);
  for (const Json& item : list) {
    LOWBIT_CHECK_KIND(item.is_number_integer() && item >= 0 && item < limits::kVocabSize,
                      ErrorKind::kCorruptFile, config.origin(), ": \"", key, "\" holds ",
                      dump_json(item), ", expected a token id");
    const auto id = item.get<int32_t>();
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
}

void read_special_tokens(const ConfigReader& config, ModelConfig& model) {
  std::vector<int32_t> bos;
  append_ids(config, "bos_token_id", bos);
  if (!bos.empty()) model.bos_token_id = bos.front();
  append_ids(config, "eos_token_id", model.eos_token_ids);
}

}  // namespace

ModelConfig parse_model_config(const Json& config, const Json& generation_config,
                               const std::string& origin) {
  const ConfigReader reader(config, origin);
  const ModelFamily& family = find_family(reader);
  ModelConfig model;
  model.model_type = family.model_type;
  read_common(reader, model);
  read_special_tokens(reader, model);
  family.configure(reader, model);
  complete_heads(reader, model);
  model.rope = parse_rope(reader, model.head_dim, model.max_position_embeddings);
  if (!generation_config.is_null()) {
    const ConfigReader generation(generation_config, origin + " (generation_config)");
    append_ids(generation, "eos_token_id", model.eos_token_ids);
  }
  return model;
}

int64_t ModelConfig::parameters() const {
  const int64_t q = num_attention_heads * head_dim, kv = num_key_value_heads * head_dim;
  const int64_t weights = hidden_size * (q + 2 * kv) + q * hidden_size +  // q, k, v, o
                          3 * hidden_size * intermediate_size;            // gate, up, down
  const int64_t norms = 2 * hidden_size + (qk_norm ? 2 * head_dim : 0);
  const int64_t biases = (qkv_bias ? q + 2 * kv : 0) + (o_bias ? hidden_size : 0) +
                         (mlp_bias ? 2 * intermediate_size + hidden_size : 0);
  const int64_t embeddings = vocab_size * hidden_size * (tie_word_embeddings ? 1 : 2);
  return embeddings + hidden_size + num_hidden_layers * (weights + norms + biases);
}

}  // namespace lowbit
