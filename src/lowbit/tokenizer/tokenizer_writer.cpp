// TokenizerSpec as the files that Hugging Face reads.
#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

namespace {

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson() : OrderedJson(text);
}

OrderedJson added_tokens_json(const std::vector<AddedToken>& tokens) {
  OrderedJson list = OrderedJson::array();
  for (const AddedToken& token : tokens) {
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

OrderedJson model_json(const TokenizerSpec& spec) {
  OrderedJson vocab = OrderedJson::object();
  // Straight into the underlying vector: an ordered object looks for every new key from the start.
  std::vector<OrderedJson::object_t::value_type>& members = vocab.get_ref<OrderedJson::object_t&>();
  members.reserve(spec.vocab.size());
  for (size_t id = 0; id < spec.vocab.size(); ++id) {
    if (!spec.vocab[id].empty()) members.emplace_back(spec.vocab[id], id);
  }
  OrderedJson merges = OrderedJson::array();
  for (const auto& [left, right] : spec.merges) {
    OrderedJson pair = OrderedJson::array();
    pair.push_back(left);
    pair.push_back(right);
    merges.push_back(std::move(pair));
  }
  OrderedJson model = {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", text_or_null(spec.unk_token)},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", spec.fuse_unk},
                       {"byte_fallback", spec.byte_fallback},
                       {"ignore_merges", spec.ignore_merges}};
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
  return model;
}

}  // namespace

std::string tokenizer_json(const TokenizerSpec& spec) {
  OrderedJson document = OrderedJson::object();
  document["version"] = "1.0";
  document["truncation"] = nullptr;
  document["padding"] = nullptr;
  document["added_tokens"] = added_tokens_json(spec.added_tokens);
  document["normalizer"] = OrderedJson(spec.normalizer);
  document["pre_tokenizer"] = OrderedJson(spec.pre_tokenizer);
  document["post_processor"] = OrderedJson(spec.post_processor);
  document["decoder"] = OrderedJson(spec.decoder);
  document["model"] = model_json(spec);
  return dump_json(document) + "\n";
}

std::string tokenizer_config_json(const TokenizerSpec& spec) {
  OrderedJson config = OrderedJson::object();
  const auto put = [&](const char* key, const std::string& value) {
    if (!value.empty()) config[key] = value;
  };
  put("bos_token", spec.bos_token);
  put("eos_token", spec.eos_token);
  put("unk_token", spec.unk_content);
  put("pad_token", spec.pad_token);
  put("chat_template", spec.chat_template);
  config["clean_up_tokenization_spaces"] = false;
  config["model_input_names"] = {"input_ids", "attention_mask"};
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  return dump_json(config, 2) + "\n";
}

}  // namespace lowbit
