#include "lowbit/tokenizer/added_tokens.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/unicode.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

namespace {

uint8_t class_before(std::string_view text, size_t at) {
  if (at == 0) return 0;
  const char* character = previous_character(text.data() + at);
  return character_classes()[next_character(character)];
}

uint8_t class_after(std::string_view text, size_t at) {
  if (at == text.size()) return 0;
  const char* character = text.data() + at;
  return character_classes()[next_character(character)];
}

size_t skip_spaces_left(std::string_view text, size_t at, size_t stop) {
  while (at > stop && (class_before(text, at) & kSpace)) {
    at = static_cast<size_t>(previous_character(text.data() + at) - text.data());
  }
  return at;
}

size_t skip_spaces_right(std::string_view text, size_t at) {
  while (class_after(text, at) & kSpace) {
    const char* character = text.data() + at;
    next_character(character);
    at = static_cast<size_t>(character - text.data());
  }
  return at;
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) {
    LOWBIT_CHECK_KIND(token.content.size() <= limits::kAddedTokenBytes, ErrorKind::kCorruptFile,
                      "tokenizer: the added token with id ", token.id, " has ",
                      token.content.size(), " bytes, the limit is ", limits::kAddedTokenBytes);
    if (!token.content.empty()) tokens_.push_back(token);
  }
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const auto& a, const auto& b) { return a.content < b.content; });
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(),
                            [](const auto& a, const auto& b) { return a.content == b.content; }),
                tokens_.end());
  for (const AddedToken& token : tokens_) {
    ++first_byte_[static_cast<uint8_t>(token.content[0]) + size_t{1}];
  }
  for (size_t b = 1; b < first_byte_.size(); ++b) first_byte_[b] += first_byte_[b - 1];
}

// Narrows the sorted tokens to those that agree with the text, byte by byte.
const AddedToken* AddedTokens::longest_at(std::string_view text, size_t at) const {
  const auto first = static_cast<uint8_t>(text[at]);
  const AddedToken* low = tokens_.data() + first_byte_[first];
  const AddedToken* high = tokens_.data() + first_byte_[first + size_t{1}];
  const AddedToken* found = nullptr;
  for (size_t depth = 1; low < high; ++depth) {
    if (low->content.size() == depth) found = low++;
    if (at + depth == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[at + depth]);
    const auto before = [depth](const AddedToken& token, int value) {
      return static_cast<uint8_t>(token.content[depth]) < value;
    };
    low = std::lower_bound(low, high, int{byte}, before);
    high = std::lower_bound(low, high, byte + 1, before);
  }
  return found;
}

void AddedTokens::split(std::string_view text, bool parse_special, std::vector<Part>& parts) const {
  const auto part = [](size_t begin, size_t end, int32_t id) {
    return Part{{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}, id};
  };
  size_t done = 0;
  Span spaces{0, 0};  // the last run that rstrip walked over: tokens within it end with it
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    const AddedToken* token =
        first_byte_[byte] == first_byte_[byte + size_t{1}] ? nullptr : longest_at(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at += token->content.size();
    if (token->special && !parse_special) continue;
    if (token->single_word &&
        ((class_before(text, begin) & kWord) || (class_after(text, end) & kWord))) {
      continue;
    }
    if (token->lstrip) begin = skip_spaces_left(text, begin, done);
    if (token->rstrip && end >= spaces.begin && end <= spaces.end) {
      end = spaces.end;
    } else if (token->rstrip) {
      spaces.begin = static_cast<uint32_t>(end);
      end = skip_spaces_right(text, end);
      spaces.end = static_cast<uint32_t>(end);
    }
    if (done < begin) parts.push_back(part(done, begin, -1));
    parts.push_back(part(begin, end, token->id));
    done = end;
  }
  if (done < text.size()) parts.push_back(part(done, text.size(), -1));
}

}  // namespace lowbit
