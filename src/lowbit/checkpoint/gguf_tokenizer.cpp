#include "lowbit/checkpoint/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/gguf_pretokenizers.h"
#include "lowbit/checkpoint/spm_merges.h"
#include "lowbit/tokenizer/post_process.h"

namespace lowbit {

namespace {

// tokenizer.ggml.token_type
enum TokenType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

constexpr char kSpace[] = "\u2581";

std::vector<int> token_types(const GgufMetadata& metadata, size_t count) {
  const std::vector<double>& stored = metadata.get_numbers("tokenizer.ggml.token_type");
  LOWBIT_CHECK_KIND(stored.empty() || stored.size() == count, ErrorKind::kCorruptFile,
                    metadata.origin, ": ", count, " tokens but ", stored.size(),
                    " of tokenizer.ggml.token_type");
  std::vector<int> types(count, kNormal);
  for (size_t i = 0; i < stored.size(); ++i) {
    LOWBIT_CHECK_KIND(stored[i] >= 0 && stored[i] <= 255, ErrorKind::kCorruptFile, metadata.origin,
                      ": token ", i, " has the type ", stored[i]);
    types[i] = static_cast<int>(stored[i]);
  }
  return types;
}

// The piece that a metadata key like tokenizer.ggml.bos_token_id points to; empty if absent.
std::string named_token(const GgufMetadata& metadata, const std::string& key,
                        const std::vector<std::string>& vocab) {
  if (!metadata.contains(key)) return "";
  const int64_t id = metadata.get_int(key);
  // Converters write -1 (as u32 too) for "none".
  if (id == -1 || id == 0xFFFFFFFF) return "";
  LOWBIT_CHECK_KIND(id >= 0 && static_cast<size_t>(id) < vocab.size(), ErrorKind::kCorruptFile,
                    metadata.origin, ": ", key, " is ", id, ", there are ", vocab.size(),
                    " tokens");
  return vocab[id];
}

void read_added_tokens(TokenizerSpec& spec, const std::vector<int>& types) {
  for (size_t id = 0; id < types.size(); ++id) {
    const bool special = types[id] == kControl || types[id] == kUnknown;
    if ((!special && types[id] != kUserDefined) || spec.vocab[id].empty()) continue;
    spec.added_tokens.push_back(
        {.id = static_cast<int32_t>(id), .content = spec.vocab[id], .special = special});
  }
}

// TemplateProcessing that puts BOS before and EOS behind.
Json template_processing(const std::string& bos, int32_t bos_id, const std::string& eos,
                         int32_t eos_id) {
  const auto token = [](const std::string& name, int type) -> Json {
    return {{"SpecialToken", {{"id", name}, {"type_id", type}}}};
  };
  const auto sequence = [](const char* name, int type) -> Json {
    return {{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  Json single = Json::array(), pair = Json::array(), known = Json::object();
  const auto add = [&](const char* name, int type) {
    if (!bos.empty()) pair.push_back(token(bos, type));
    pair.push_back(sequence(name, type));
    if (!eos.empty()) pair.push_back(token(eos, type));
    if (type == 0) single = pair;
  };
  add("A", 0);
  add("B", 1);
  const auto know = [&](const std::string& name, int32_t id) {
    if (!name.empty())
      known[name] = {{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
  };
  know(bos, bos_id);
  know(eos, eos_id);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(known)}};
}

// Null where nothing is added.
Json read_template(const GgufMetadata& metadata, const TokenizerSpec& spec, bool add_bos) {
  const bool bos =
      metadata.get_bool("tokenizer.ggml.add_bos_token", add_bos) && !spec.bos_token.empty();
  const bool eos =
      metadata.get_bool("tokenizer.ggml.add_eos_token", false) && !spec.eos_token.empty();
  if (!bos && !eos) return nullptr;
  const auto id = [&](const char* key) { return static_cast<int32_t>(metadata.get_int(key, 0)); };
  return template_processing(bos ? spec.bos_token : "", id("tokenizer.ggml.bos_token_id"),
                             eos ? spec.eos_token : "", id("tokenizer.ggml.eos_token_id"));
}

void read_byte_level(const GgufMetadata& metadata, TokenizerSpec& spec) {
  const std::string pre = metadata.get_string("tokenizer.ggml.pre", "default");
  const GgufPreTokenizer* row = find_gguf_pre_tokenizer(pre);
  if (row == nullptr) {
    std::string known;
    for (const GgufPreTokenizer& other : gguf_pre_tokenizers()) {
      for (const std::string& name : other.names) known += " " + name;
    }
    fail(ErrorKind::kUnsupported, metadata.origin, ": pre-tokenizer \"", pre,
         "\" (tokenizer.ggml.pre); lowbit knows", known);
  }
  for (const std::string& merge : metadata.get_strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);  // a piece may be a space, but not be empty
    LOWBIT_CHECK_KIND(space != std::string::npos && space + 1 < merge.size(),
                      ErrorKind::kCorruptFile, metadata.origin, ": merge ", spec.merges.size(),
                      " is \"", merge, "\", not two pieces");
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  spec.ignore_merges = row->ignore_merges;
  if (row->nfc) spec.normalizer = {{"type", "NFC"}};
  spec.pre_tokenizer = row->pre_tokenizer;
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", true},
                           {"trim_offsets", false},
                           {"use_regex", true}};
  spec.decoder = byte_level;
  spec.post_processor = read_template(metadata, spec, row->add_bos);
  if (spec.post_processor.is_null()) {
    spec.post_processor = byte_level;
  } else {
    spec.post_processor = {{"type", "Sequence"},
                           {"processors", Json::array({byte_level, spec.post_processor})}};
  }
}

Json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

void read_sentencepiece(const GgufMetadata& metadata, TokenizerSpec& spec,
                        const std::vector<int>& types) {
  const std::vector<double>& scores = metadata.get_numbers("tokenizer.ggml.scores");
  LOWBIT_CHECK_KIND(scores.size() == spec.vocab.size(), ErrorKind::kCorruptFile, metadata.origin,
                    ": ", spec.vocab.size(), " tokens but ", scores.size(),
                    " of tokenizer.ggml.scores");
  std::vector<bool> merges(types.size());
  for (size_t id = 0; id < types.size(); ++id) {
    merges[id] = types[id] == kNormal || types[id] == kUnused;
  }
  spec.merges = merges_from_scores(spec.vocab, scores, merges, metadata.origin);
  spec.byte_fallback = true;
  spec.fuse_unk = true;
  const auto unknown = std::find(types.begin(), types.end(), kUnknown);
  spec.unk_token = !spec.unk_content.empty() ? spec.unk_content
                   : unknown != types.end()  ? spec.vocab[unknown - types.begin()]
                                             : "";
  const bool prefix = metadata.get_bool("tokenizer.ggml.add_space_prefix", true);
  const Json spaces = replace(" ", kSpace);
  spec.normalizer = spaces;
  Json decoders =
      Json::array({replace(kSpace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (prefix) {
    spec.normalizer = {
        {"type", "Sequence"},
        {"normalizers", Json::array({{{"type", "Prepend"}, {"prepend", kSpace}}, spaces})}};
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  spec.decoder = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
  spec.post_processor = read_template(metadata, spec, /*add_bos=*/true);
}

// --- writing ---

struct Writer {
  const TokenizerSpec& spec;
  std::vector<std::string> tokens;
  std::vector<int> types;
  std::unordered_map<std::string, int32_t> ids;
  std::vector<std::pair<std::string, GgufValue>> out;

  explicit Writer(const TokenizerSpec& s) : spec(s), tokens(s.vocab) {
    for (const AddedToken& token : spec.added_tokens) {
      LOWBIT_CHECK(token.id >= 0 && token.id < limits::kVocabSize, "the added token \"",
                   token.content, "\" has id ", token.id);
      if (static_cast<size_t>(token.id) >= tokens.size()) tokens.resize(token.id + size_t{1});
      tokens[token.id] = token.content;
    }
    types.assign(tokens.size(), kNormal);
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (tokens[id].empty()) {  // llama.cpp wants a name for every id
        tokens[id] = concat("[PAD", id, "]");
        types[id] = kUnused;
      }
      ids[tokens[id]] = static_cast<int32_t>(id);
    }
    for (const AddedToken& token : spec.added_tokens) {
      const bool unknown = token.special && token.content == spec.unk_token && spec.byte_fallback;
      types[token.id] = unknown ? kUnknown : token.special ? kControl : kUserDefined;
    }
  }

  void put(const std::string& key, GgufValue value) {
    out.emplace_back("tokenizer." + key, std::move(value));
  }
  void put_id(const std::string& key, const std::string& piece) {
    const auto found = ids.find(piece);
    if (!piece.empty() && found != ids.end()) {
      put("ggml." + key, gguf_u32(static_cast<uint32_t>(found->second)));
    }
  }
};

bool has_byte_level(const Json& pre_tokenizer) {
  if (!pre_tokenizer.is_object()) return false;
  if (pre_tokenizer.value("type", "") == "ByteLevel") return true;
  const auto list = pre_tokenizer.find("pretokenizers");
  return list != pre_tokenizer.end() && std::any_of(list->begin(), list->end(), has_byte_level);
}

bool has_component(const Json& component, const std::string& text) {
  return !component.is_null() && dump_json(component).find(text) != std::string::npos;
}

void write_byte_level(Writer& writer) {
  const TokenizerSpec& spec = writer.spec;
  const bool nfc = spec.normalizer.is_object() && spec.normalizer.value("type", "") == "NFC";
  LOWBIT_CHECK_KIND(nfc || spec.normalizer.is_null(), ErrorKind::kUnsupported,
                    "GGUF cannot hold the normalizer ", dump_json(spec.normalizer));
  const GgufPreTokenizer* row =
      find_gguf_pre_tokenizer(spec.pre_tokenizer, spec.ignore_merges, nfc);
  LOWBIT_CHECK_KIND(row != nullptr, ErrorKind::kUnsupported,
                    "GGUF (llama.cpp) has no name for the pre-tokenizer ",
                    dump_json(spec.pre_tokenizer));
  std::vector<std::string> merges;
  merges.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
  writer.put("ggml.model", gguf_string("gpt2"));
  writer.put("ggml.pre", gguf_string(row->names[0]));
  writer.put("ggml.tokens", gguf_strings(writer.tokens));
  writer.put("ggml.token_type", gguf_i32s({writer.types.begin(), writer.types.end()}));
  writer.put("ggml.merges", gguf_strings(std::move(merges)));
}

void write_sentencepiece(Writer& writer) {
  const TokenizerSpec& spec = writer.spec;
  constexpr char kHex[] = "0123456789ABCDEF";
  for (int b = 0; b < 256; ++b) {
    const auto found = writer.ids.find(std::string{'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'});
    if (found != writer.ids.end()) writer.types[found->second] = kByte;
  }
  std::vector<double> scores = scores_from_merges(spec.vocab, spec.merges);
  scores.resize(writer.tokens.size(), 0.0);
  for (size_t id = 0; id < scores.size(); ++id) {
    if (writer.types[id] != kNormal) scores[id] = 0;
  }
  writer.put("ggml.model", gguf_string("llama"));
  writer.put("ggml.pre", gguf_string("default"));
  writer.put("ggml.tokens", gguf_strings(writer.tokens));
  writer.put("ggml.scores", gguf_f32s(std::move(scores)));
  writer.put("ggml.token_type", gguf_i32s({writer.types.begin(), writer.types.end()}));
  const bool metaspace = has_component(spec.pre_tokenizer, "\"Metaspace\"");
  const bool prefix = metaspace ? !has_component(spec.pre_tokenizer, "\"never\"")
                                : has_component(spec.normalizer, "\"Prepend\"");
  writer.put("ggml.add_space_prefix", gguf_bool(prefix));
}

}  // namespace

TokenizerSpec tokenizer_from_gguf(const GgufMetadata& metadata) {
  const std::string model = metadata.get_string("tokenizer.ggml.model");
  LOWBIT_CHECK_KIND(model == "gpt2" || model == "llama", ErrorKind::kUnsupported, metadata.origin,
                    ": tokenizer model \"", model,
                    "\" (tokenizer.ggml.model); lowbit knows gpt2 and llama");
  TokenizerSpec spec;
  spec.vocab = metadata.get_strings("tokenizer.ggml.tokens");
  LOWBIT_CHECK_KIND(!spec.vocab.empty(), ErrorKind::kCorruptFile, metadata.origin,
                    ": tokenizer.ggml.tokens is missing or empty");
  LOWBIT_CHECK_KIND(spec.vocab.size() <= static_cast<size_t>(limits::kVocabSize),
                    ErrorKind::kCorruptFile, metadata.origin, ": ", spec.vocab.size(),
                    " tokens, the limit is ", limits::kVocabSize);
  const std::vector<int> types = token_types(metadata, spec.vocab.size());
  read_added_tokens(spec, types);
  spec.bos_token = named_token(metadata, "tokenizer.ggml.bos_token_id", spec.vocab);
  spec.eos_token = named_token(metadata, "tokenizer.ggml.eos_token_id", spec.vocab);
  spec.unk_content = named_token(metadata, "tokenizer.ggml.unknown_token_id", spec.vocab);
  spec.pad_token = named_token(metadata, "tokenizer.ggml.padding_token_id", spec.vocab);
  spec.chat_template = metadata.get_string("tokenizer.chat_template", "");
  if (model == "gpt2") {
    read_byte_level(metadata, spec);
  } else {
    read_sentencepiece(metadata, spec, types);
  }
  return spec;
}

std::vector<std::pair<std::string, GgufValue>> tokenizer_to_gguf(const TokenizerSpec& spec) {
  Writer writer(spec);
  if (has_byte_level(spec.pre_tokenizer)) {
    write_byte_level(writer);
  } else {
    LOWBIT_CHECK_KIND(spec.byte_fallback, ErrorKind::kUnsupported,
                      "GGUF holds byte-level BPE and SentencePiece with byte fallback; this "
                      "tokenizer is neither");
    write_sentencepiece(writer);
  }
  writer.put_id("bos_token_id", spec.bos_token);
  writer.put_id("eos_token_id", spec.eos_token);
  writer.put_id("unknown_token_id", spec.unk_content.empty() ? spec.unk_token : spec.unk_content);
  writer.put_id("padding_token_id", spec.pad_token);
  const PostProcessor post_processor(spec.post_processor, "tokenizer");
  const auto adds = [&](const std::vector<int32_t>& ids, const std::string& piece) {
    const auto found = writer.ids.find(piece);
    return found != writer.ids.end() && ids == std::vector<int32_t>{found->second};
  };
  const bool bos = adds(post_processor.prefix(), spec.bos_token);
  const bool eos = adds(post_processor.suffix(), spec.eos_token);
  LOWBIT_CHECK_KIND(
      (bos || post_processor.prefix().empty()) && (eos || post_processor.suffix().empty()),
      ErrorKind::kUnsupported,
      "GGUF can only add BOS and EOS around a text; this tokenizer's post_processor "
      "adds something else");
  writer.put("ggml.add_bos_token", gguf_bool(bos));
  writer.put("ggml.add_eos_token", gguf_bool(eos));
  if (!spec.chat_template.empty()) writer.put("chat_template", gguf_string(spec.chat_template));
  return std::move(writer.out);
}

}  // namespace lowbit
