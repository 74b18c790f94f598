#include "lowbit/tokenizer/tokenizer.h"

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/added_tokens.h"
#include "lowbit/tokenizer/bpe.h"
#include "lowbit/tokenizer/decoder.h"
#include "lowbit/tokenizer/normalize.h"
#include "lowbit/tokenizer/post_process.h"
#include "lowbit/tokenizer/pretokenize.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

namespace {

constexpr char kOrigin[] = "tokenizer";

// Added tokens that are searched before normalization, or after it in its form.
std::vector<AddedToken> added_tokens(const TokenizerSpec& spec, bool normalized,
                                     const Normalizer& normalizer) {
  std::vector<AddedToken> tokens;
  for (const AddedToken& token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    if (normalized) tokens.back().content = normalizer.normalize(token.content);
  }
  return tokens;
}

void check_piece(const std::string& piece, int64_t id) {
  LOWBIT_CHECK_KIND(piece.size() <= limits::kTokenBytes, ErrorKind::kCorruptFile,
                    "tokenizer: the piece with id ", id, " has ", piece.size(),
                    " bytes, the limit is ", limits::kTokenBytes);
  LOWBIT_CHECK_KIND(valid_utf8(piece), ErrorKind::kCorruptFile, "tokenizer: the piece with id ", id,
                    " is not UTF-8");
}

StringIndex index_vocab(const std::vector<std::string>& vocab) {
  LOWBIT_CHECK_KIND(vocab.size() <= static_cast<size_t>(limits::kVocabSize),
                    ErrorKind::kCorruptFile, "tokenizer: ", vocab.size(), " pieces, the limit is ",
                    limits::kVocabSize);
  size_t bytes = 0;
  for (const std::string& piece : vocab) bytes += piece.size();
  StringIndex index;
  index.reserve(vocab.size(), bytes);
  for (size_t id = 0; id < vocab.size(); ++id) {
    if (vocab[id].empty()) continue;
    check_piece(vocab[id], static_cast<int64_t>(id));
    LOWBIT_CHECK_KIND(index.insert(vocab[id], static_cast<int32_t>(id)), ErrorKind::kCorruptFile,
                      "tokenizer: the piece \"", vocab[id], "\" has the ids ",
                      index.find(vocab[id]), " and ", id);
  }
  return index;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerSpec& spec);
  void name_added_tokens(const TokenizerSpec& spec);
  std::optional<int32_t> find(std::string_view piece) const;
  void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& ids) const;
  void encode_segment(std::string_view text, bool at_start, bool parse_special,
                      std::vector<int32_t>& ids) const;
  // The piece to decode, nothing for ids that are to be left out.
  const std::string* shown(int32_t id, bool skip_special_tokens) const;

  std::vector<std::string> pieces;  // by id
  std::vector<bool> special;        // by id
  StringIndex vocab;
  StringIndex added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokens raw_tokens;
  AddedTokens normalized_tokens;
  Decoder decoder;
  PostProcessor post_processor;
  std::unique_ptr<Bpe> bpe;
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
};

Tokenizer::Impl::Impl(const TokenizerSpec& spec)
    : pieces(spec.vocab),
      vocab(index_vocab(spec.vocab)),
      normalizer(spec.normalizer, kOrigin),
      pre_tokenizer(spec.pre_tokenizer, kOrigin),
      raw_tokens(added_tokens(spec, false, normalizer)),
      normalized_tokens(added_tokens(spec, true, normalizer)),
      decoder(spec.decoder, kOrigin),
      post_processor(spec.post_processor, kOrigin) {
  // Byte fallback spells the characters of GPT-2's alphabet, which is not what bytes are for.
  if (spec.byte_fallback) pre_tokenizer.spell_bytes();
  name_added_tokens(spec);
  post_processor.check_ids(static_cast<int32_t>(pieces.size()), kOrigin);
  bpe = std::make_unique<Bpe>(spec, pre_tokenizer.byte_level(), vocab);
  bos = find(spec.bos_token);
  eos = find(spec.eos_token);
}

void Tokenizer::Impl::name_added_tokens(const TokenizerSpec& spec) {
  special.resize(pieces.size());
  for (const AddedToken& token : spec.added_tokens) {
    LOWBIT_CHECK_KIND(token.id >= 0 && token.id < limits::kVocabSize, ErrorKind::kCorruptFile,
                      "tokenizer: the added token \"", token.content, "\" has id ", token.id,
                      ", which is outside 0 ... ", limits::kVocabSize - 1);
    check_piece(token.content, token.id);
    const auto id = static_cast<size_t>(token.id);
    if (id >= pieces.size()) {
      pieces.resize(id + 1);
      special.resize(id + 1);
    }
    const int32_t model_id = vocab.find(token.content);
    LOWBIT_CHECK_KIND(model_id < 0 || model_id == token.id, ErrorKind::kCorruptFile,
                      "tokenizer: the added token \"", token.content, "\" has id ", token.id,
                      ", but ", model_id, " in the vocabulary");
    LOWBIT_CHECK_KIND(pieces[id].empty() || pieces[id] == token.content, ErrorKind::kCorruptFile,
                      "tokenizer: id ", token.id, " is the added token \"", token.content,
                      "\" and also \"", pieces[id], "\"");
    pieces[id] = token.content;
    special[id] = token.special;
    if (!token.content.empty() && !added.insert(token.content, token.id)) {
      LOWBIT_CHECK_KIND(added.find(token.content) == token.id, ErrorKind::kCorruptFile,
                        "tokenizer: the added token \"", token.content, "\" has two ids");
    }
  }
}

std::optional<int32_t> Tokenizer::Impl::find(std::string_view piece) const {
  if (piece.empty()) return std::nullopt;
  int32_t id = added.find(piece);
  if (id < 0) id = vocab.find(piece);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

// Text between added tokens, normalized.
void Tokenizer::Impl::encode_text(std::string_view text, bool at_start,
                                  std::vector<int32_t>& ids) const {
  Pieces parts;
  parts.text = text;
  parts.spans = {{0, static_cast<uint32_t>(text.size())}};
  parts.at_start = at_start;
  pre_tokenizer.split(parts);
  for (const Span& span : parts.spans) {
    bpe->encode(parts.text.substr(span.begin, span.end - span.begin), ids);
  }
}

// Text between tokens that are not normalized.
void Tokenizer::Impl::encode_segment(std::string_view text, bool at_start, bool parse_special,
                                     std::vector<int32_t>& ids) const {
  std::string normalized;
  if (!normalizer.empty()) {
    normalized = normalizer.normalize(text);
    text = normalized;
  }
  std::vector<AddedTokens::Part> parts;
  normalized_tokens.split(text, parse_special, parts);
  for (const AddedTokens::Part& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      encode_text(text.substr(part.span.begin, part.span.end - part.span.begin),
                  at_start && part.span.begin == 0, ids);
    }
  }
}

const std::string* Tokenizer::Impl::shown(int32_t id, bool skip_special_tokens) const {
  if (id < 0 || static_cast<size_t>(id) >= pieces.size() || pieces[id].empty()) return nullptr;
  return skip_special_tokens && special[id] ? nullptr : &pieces[id];
}

Tokenizer::Tokenizer(const TokenizerSpec& spec) : impl_(std::make_unique<Impl>(spec)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  LOWBIT_CHECK_KIND(text.size() <= limits::kPromptBytes, ErrorKind::kUnsupported, "a text of ",
                    text.size(), " bytes to tokenize, the limit is ", limits::kPromptBytes);
  std::string repaired;
  if (!valid_utf8(text)) {
    append_lossy(text, /*final=*/true, repaired);
    text = repaired;
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  if (options.add_special_tokens) ids = impl_->post_processor.prefix();
  std::vector<AddedTokens::Part> parts;
  impl_->raw_tokens.split(text, options.parse_special, parts);
  for (const AddedTokens::Part& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      impl_->encode_segment(text.substr(part.span.begin, part.span.end - part.span.begin),
                            part.span.begin == 0, options.parse_special, ids);
    }
  }
  if (options.add_special_tokens) {
    const std::vector<int32_t>& suffix = impl_->post_processor.suffix();
    ids.insert(ids.end(), suffix.begin(), suffix.end());
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Decoder::Stream stream(impl_->decoder);
  std::string text;
  for (const int32_t id : ids) {
    if (const std::string* piece = impl_->shown(id, skip_special_tokens)) stream.push(*piece, text);
  }
  stream.finish(text);
  return text;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->pieces.size()); }

const std::string& Tokenizer::piece(int32_t id) const {
  static const std::string none;
  return id < 0 || id >= vocab_size() ? none : impl_->pieces[id];
}

std::optional<int32_t> Tokenizer::id_of(std::string_view piece) const { return impl_->find(piece); }

bool Tokenizer::special(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[id];
}

std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos; }

struct StreamDecoder::State {
  const Tokenizer::Impl& tokenizer;
  bool skip_special_tokens;
  Decoder::Stream stream;
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{*tokenizer.impl_, skip_special_tokens,
                       Decoder::Stream(tokenizer.impl_->decoder)}) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  std::string text;
  if (const std::string* piece = state_->tokenizer.shown(id, state_->skip_special_tokens)) {
    state_->stream.push(*piece, text);
  }
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  state_->stream.finish(text);
  return text;
}

}  // namespace lowbit
