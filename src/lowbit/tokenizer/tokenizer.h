// Byte-level and SentencePiece-style BPE, equal to Hugging Face `tokenizers` token for token.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

struct EncodeOptions {
  bool add_special_tokens = true;  // what the post-processor adds: BOS, EOS
  bool parse_special = true;       // "<|eot_id|>" in the text becomes that token, not plain text
};

// Immutable after construction; all methods may be called from several threads at once.
class Tokenizer {
 public:
  // Throws kUnsupported naming a component that lowbit cannot do, kCorruptFile on contradictions
  // (a merge of pieces that do not exist, an id out of range, a piece with two ids).
  explicit Tokenizer(const TokenizerSpec& spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // Any bytes may be text: what is not UTF-8 counts as U+FFFD. Throws kUnsupported if the text is
  // over limits::kPromptBytes, or too hard for a regular expression of the tokenizer.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Text of the ids; bytes that are not UTF-8 become U+FFFD. Unknown ids are skipped.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  int32_t vocab_size() const;  // highest id + 1
  // The piece of an id ("Ġthe", "<|eot_id|>"); empty if there is none.
  const std::string& piece(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view piece) const;
  bool special(int32_t id) const;
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;

  struct Impl;

 private:
  friend class StreamDecoder;
  std::unique_ptr<Impl> impl_;
};

// Decodes a stream of ids. What push() returns is always whole UTF-8 characters, and the pieces
// joined equal Tokenizer::decode() of all ids. The tokenizer must outlive it; it may move.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  std::string push(int32_t id);
  std::string finish();  // what is left: incomplete characters as U+FFFD; call it once, last

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lowbit
