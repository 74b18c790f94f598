#include "lowbit/tokenizer/tokenizer_spec.h"

#include <algorithm>
#include <filesystem>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"

namespace lowbit {

namespace {

const Json& member(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

int32_t id_of(const Json& value, std::string_view piece, const std::string& origin) {
  LOWBIT_CHECK_KIND(value.is_number_integer() && value >= 0 && value < limits::kVocabSize,
                    ErrorKind::kCorruptFile, origin, ": the token \"", piece, "\" has the id ",
                    dump_json(value), ", which is not in 0 ... ", limits::kVocabSize - 1);
  return value.get<int32_t>();
}

void read_vocab(const Json& vocab, TokenizerSpec& spec, const std::string& origin) {
  LOWBIT_CHECK_KIND(vocab.is_object(), ErrorKind::kCorruptFile, origin,
                    ": \"model\" has no object \"vocab\"");
  int32_t last = -1;
  for (const auto& [piece, value] : vocab.items())
    last = std::max(last, id_of(value, piece, origin));
  LOWBIT_CHECK_KIND(last < static_cast<int64_t>(vocab.size()) + limits::kVocabHoles,
                    ErrorKind::kCorruptFile, origin, ": \"vocab\" has the id ", last, " but only ",
                    vocab.size(), " pieces");
  spec.vocab.resize(static_cast<size_t>(last + 1));
  for (const auto& [piece, value] : vocab.items()) {
    std::string& entry = spec.vocab[value.get<size_t>()];
    LOWBIT_CHECK_KIND(entry.empty(), ErrorKind::kCorruptFile, origin, ": \"", entry, "\" and \"",
                      piece, "\" have the same id ", value.get<size_t>());
    entry = piece;
  }
}

void read_merges(const Json& merges, TokenizerSpec& spec, const std::string& origin) {
  LOWBIT_CHECK_KIND(merges.is_array(), ErrorKind::kCorruptFile, origin,
                    ": \"model\" has no list \"merges\"");
  LOWBIT_CHECK_KIND(merges.size() <= limits::kMerges, ErrorKind::kCorruptFile, origin, ": ",
                    merges.size(), " merges, the limit is ", limits::kMerges);
  spec.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get_ref<const std::string&>(),
                               merge[1].get_ref<const std::string&>());
      continue;
    }
    fail(ErrorKind::kCorruptFile, origin, ": merge ", spec.merges.size(),
         " must be \"a b\" or [\"a\", \"b\"], found ", dump_json(merge));
  }
}

void read_model(const Json& model, TokenizerSpec& spec, const std::string& origin) {
  LOWBIT_CHECK_KIND(model.is_object(), ErrorKind::kCorruptFile, origin, ": no object \"model\"");
  const std::string type =
      json_string(model, "type", model.contains("merges") ? "BPE" : "", origin);
  LOWBIT_CHECK_KIND(type == "BPE", ErrorKind::kUnsupported, origin, ": tokenizer model \"", type,
                    "\"; lowbit knows BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    LOWBIT_CHECK_KIND(json_string(model, key, "", origin).empty(), ErrorKind::kUnsupported, origin,
                      ": BPE with \"", key, "\"");
  }
  LOWBIT_CHECK_KIND(json_double(model, "dropout", 0, origin) == 0, ErrorKind::kUnsupported, origin,
                    ": BPE with \"dropout\", which is for training");
  spec.unk_token = json_string(model, "unk_token", "", origin);
  spec.byte_fallback = json_bool(model, "byte_fallback", false, origin);
  spec.fuse_unk = json_bool(model, "fuse_unk", false, origin);
  spec.ignore_merges = json_bool(model, "ignore_merges", false, origin);
  read_vocab(member(model, "vocab"), spec, origin);
  read_merges(member(model, "merges"), spec, origin);
}

AddedToken added_token(const Json& entry, const Json& id, const std::string& origin) {
  AddedToken token;
  token.content = json_string(entry, "content", "", origin);
  LOWBIT_CHECK_KIND(!token.content.empty(), ErrorKind::kCorruptFile, origin,
                    ": an added token without \"content\": ", dump_json(entry));
  token.id = id_of(id, token.content, origin);
  token.single_word = json_bool(entry, "single_word", false, origin);
  token.lstrip = json_bool(entry, "lstrip", false, origin);
  token.rstrip = json_bool(entry, "rstrip", false, origin);
  token.special = json_bool(entry, "special", false, origin);
  token.normalized = json_bool(entry, "normalized", !token.special, origin);
  return token;
}

// "<s>" or {"content": "<s>", ...}
std::string token_content(const Json& config, const char* key, const std::string& origin) {
  const Json& value = member(config, key);
  return value.is_object() ? json_string(value, "content", "", origin)
                           : json_string(config, key, "", origin);
}

void read_special_names(const Json& config, TokenizerSpec& spec, const std::string& origin) {
  const auto read = [&](const char* key, std::string& name) {
    if (name.empty()) name = token_content(config, key, origin);
  };
  read("bos_token", spec.bos_token);
  read("eos_token", spec.eos_token);
  read("unk_token", spec.unk_content);
  read("pad_token", spec.pad_token);
}

// Tokens that only tokenizer_config.json knows; transformers adds them too.
void read_added_tokens_decoder(const Json& decoder, TokenizerSpec& spec,
                               const std::string& origin) {
  for (const auto& [key, entry] : decoder.items()) {
    const Json id = Json::parse(key, nullptr, /*allow_exceptions=*/false);
    const AddedToken token = added_token(entry, id, origin);
    const bool known = std::any_of(spec.added_tokens.begin(), spec.added_tokens.end(),
                                   [&](const AddedToken& other) {
                                     return other.id == token.id || other.content == token.content;
                                   });
    if (!known) spec.added_tokens.push_back(token);
  }
}

// One template, or a list of named ones of which "default" is meant.
std::string chat_template(const Json& config, const std::string& origin) {
  const Json& value = member(config, "chat_template");
  if (!value.is_array()) return json_string(config, "chat_template", "", origin);
  for (const Json& entry : value) {
    if (json_string(entry, "name", "", origin) == "default") {
      return json_string(entry, "template", "", origin);
    }
  }
  return "";
}

void read_tokenizer_config(const Json& config, TokenizerSpec& spec, const std::string& origin) {
  read_special_names(config, spec, origin);
  spec.chat_template = chat_template(config, origin);
  const Json& decoder = member(config, "added_tokens_decoder");
  LOWBIT_CHECK_KIND(decoder.size() <= limits::kAddedTokens, ErrorKind::kCorruptFile, origin,
                    ": more than ", limits::kAddedTokens, " added tokens");
  if (decoder.is_object()) read_added_tokens_decoder(decoder, spec, origin);
}

}  // namespace

TokenizerSpec parse_tokenizer_json(const Json& document, const std::string& origin) {
  LOWBIT_CHECK_KIND(document.is_object(), ErrorKind::kCorruptFile, origin,
                    ": not a tokenizer.json: the document is not an object");
  TokenizerSpec spec;
  read_model(member(document, "model"), spec, origin);
  const Json& added = member(document, "added_tokens");
  LOWBIT_CHECK_KIND(added.is_null() || (added.is_array() && added.size() <= limits::kAddedTokens),
                    ErrorKind::kCorruptFile, origin,
                    ": \"added_tokens\" must be a list of at most ", limits::kAddedTokens);
  for (const Json& entry : added) {
    spec.added_tokens.push_back(added_token(entry, member(entry, "id"), origin));
  }
  spec.normalizer = member(document, "normalizer");
  spec.pre_tokenizer = member(document, "pre_tokenizer");
  spec.post_processor = member(document, "post_processor");
  spec.decoder = member(document, "decoder");
  return spec;
}

TokenizerSpec read_tokenizer_spec(const std::string& folder) {
  const fs::path root(folder);
  const std::string path = (root / "tokenizer.json").string();
  LOWBIT_CHECK_KIND(fs::exists(path), ErrorKind::kIo, folder, " has no tokenizer.json",
                    fs::exists(root / "tokenizer.model")
                        ? ": convert its tokenizer.model (transformers writes a tokenizer.json "
                          "when it saves a fast tokenizer)"
                        : "");
  TokenizerSpec spec = parse_tokenizer_json(read_json(path, limits::kJsonBytes), path);
  const std::string config = (root / "tokenizer_config.json").string();
  if (fs::exists(config)) read_tokenizer_config(read_json(config), spec, config);
  const std::string names = (root / "special_tokens_map.json").string();
  if (fs::exists(names)) read_special_names(read_json(names), spec, names);
  const fs::path jinja = root / "chat_template.jinja";
  if (fs::exists(jinja)) spec.chat_template = read_file(jinja, limits::kTemplateBytes);
  return spec;
}

}  // namespace lowbit
