#include "lowbit/tokenizer/scanners.h"

#include "lowbit/tokenizer/unicode.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

namespace {

// Walks through text by character class. Positions point at the start of characters.
class Scanner {
 public:
  explicit Scanner(std::string_view text)
      : end_(text.data() + text.size()), classes_(character_classes()) {}

  const char* end() const { return end_; }

  // Class of the character at `at` (0 at the end), and where the next one starts.
  uint8_t peek(const char* at, const char*& next) const {
    if (at == end_) {
      next = at;
      return 0;
    }
    next = at;
    return classes_[next_character(next)];
  }

  // First position from `at` where the class bits do not meet `accepted`.
  const char* while_in(const char* at, uint8_t accepted) const {
    const char* next = at;
    while (at < end_ && (peek(at, next) & accepted)) at = next;
    return at;
  }
  const char* while_not_in(const char* at, uint8_t refused) const {
    const char* next = at;
    while (at < end_ && !(peek(at, next) & refused)) at = next;
    return at;
  }

  // `\s+(?!\S)|\s+` at a white space: the last character of a run belongs to what follows it.
  const char* spaces(const char* at, const char* run_end) const {
    if (run_end == end_) return run_end;
    const char* last = previous_character(run_end);
    return last == at ? run_end : last;
  }

 private:
  const char* end_;
  const uint8_t* classes_;
};

constexpr uint8_t kNotOther = kLetter | kNumber | kSpace;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// End of 's 't 're 've 'm 'll 'd at the apostrophe `at`; `at` itself if it is none of them.
template <bool kIgnoreCase>
const char* contraction(const char* at, const char* end) {
  const auto letter = [&](int i) {
    if (end - at <= i) return '\0';
    return kIgnoreCase ? lower(at[i]) : at[i];
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return at + 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? at + 3 : at;
    case 'l':
      return letter(2) == 'l' ? at + 3 : at;
    case '\xC5':  // U+017F, which folds to s
      return kIgnoreCase && letter(2) == '\xBF' ? at + 3 : at;
    default:
      return at;
  }
}

class Gpt2Scanner final : public Pattern {
 public:
  void find(std::string_view text, std::vector<Span>& matches) const override {
    const Scanner scanner(text);
    const char* begin = text.data();
    for (const char* at = begin; at < scanner.end();) {
      const char* next = match(scanner, at);
      matches.push_back({static_cast<uint32_t>(at - begin), static_cast<uint32_t>(next - begin)});
      at = next;
    }
  }

 private:
  static const char* match(const Scanner& scanner, const char* at) {
    if (*at == '\'') {
      const char* after = contraction<false>(at, scanner.end());
      if (after != at) return after;
    }
    const char* start = *at == ' ' && at + 1 < scanner.end() ? at + 1 : at;
    const char* next;
    const uint8_t kind = scanner.peek(start, next);
    if (kind & kLetter) return scanner.while_in(next, kLetter);
    if (kind & kNumber) return scanner.while_in(next, kNumber);
    if (!(kind & kSpace)) return scanner.while_not_in(next, kNotOther);
    return scanner.spaces(at, scanner.while_in(next, kSpace));
  }
};

class Llama3Scanner final : public Pattern {
 public:
  explicit Llama3Scanner(int digits) : digits_(digits) {}

  void find(std::string_view text, std::vector<Span>& matches) const override {
    const Scanner scanner(text);
    const char* begin = text.data();
    for (const char* at = begin; at < scanner.end();) {
      const char* next = match(scanner, at);
      matches.push_back({static_cast<uint32_t>(at - begin), static_cast<uint32_t>(next - begin)});
      at = next;
    }
  }

 private:
  const char* match(const Scanner& scanner, const char* at) const {
    if (*at == '\'') {
      const char* after = contraction<true>(at, scanner.end());
      if (after != at) return after;
    }
    const char* next;
    const uint8_t kind = scanner.peek(at, next);
    if (kind & kLetter) return scanner.while_in(next, kLetter);
    if (kind & kNumber) return numbers(scanner, next);
    const char* second;
    const uint8_t next_kind = scanner.peek(next, second);
    if (*at != '\r' && *at != '\n' && (next_kind & kLetter)) {
      return scanner.while_in(second, kLetter);
    }
    if (!(kind & kSpace)) return others(scanner, next);
    if (*at == ' ' && next != scanner.end() && !(next_kind & kNotOther)) {
      return others(scanner, second);
    }
    return spaces(scanner, at);
  }

  const char* numbers(const Scanner& scanner, const char* at) const {
    const char* next;
    for (int i = 1; i < digits_ && (scanner.peek(at, next) & kNumber); ++i) at = next;
    return at;
  }

  static const char* others(const Scanner& scanner, const char* at) {
    at = scanner.while_not_in(at, kNotOther);
    while (at < scanner.end() && (*at == '\r' || *at == '\n')) ++at;
    return at;
  }

  // `\s*[\r\n]+|\s+(?!\S)|\s+`: a run of white space up to its last line end, if it has one.
  static const char* spaces(const Scanner& scanner, const char* at) {
    const char* run_end = scanner.while_in(at, kSpace);
    for (const char* last = run_end; last > at; --last) {
      if (last[-1] == '\r' || last[-1] == '\n') return last;
    }
    return scanner.spaces(at, run_end);
  }

  int digits_;
};

}  // namespace

std::unique_ptr<Pattern> gpt2_scanner() { return std::make_unique<Gpt2Scanner>(); }

std::unique_ptr<Pattern> llama3_scanner(int digits) {
  return std::make_unique<Llama3Scanner>(digits);
}

}  // namespace lowbit
