// Added tokens ("<|eot_id|>"): found in text before anything else looks at it.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/tokenizer/pattern.h"
#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

class AddedTokens {
 public:
  // Throws kCorruptFile for a token that is too long.
  explicit AddedTokens(const std::vector<AddedToken>& tokens);

  struct Part {
    Span span;
    int32_t id;  // -1: text without added tokens
  };
  // Cuts text into tokens (leftmost, then longest) and what is between them. Special tokens are
  // taken as plain text unless parse_special.
  void split(std::string_view text, bool parse_special, std::vector<Part>& parts) const;

  bool empty() const { return tokens_.empty(); }

 private:
  const AddedToken* longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;          // by content
  std::array<uint32_t, 257> first_byte_{};  // tokens with first byte b: [first_byte_[b], [b + 1])
};

}  // namespace lowbit
