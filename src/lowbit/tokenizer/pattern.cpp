#define PCRE2_CODE_UNIT_WIDTH 8
#include "lowbit/tokenizer/pattern.h"

#include <pcre2.h>

#include <chrono>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/scanners.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

namespace {

class Literal final : public Pattern {
 public:
  explicit Literal(std::string literal) : literal_(std::move(literal)) {}

  void find(std::string_view text, std::vector<Span>& matches) const override {
    if (literal_.empty()) return;
    for (size_t at = text.find(literal_); at != std::string_view::npos;
         at = text.find(literal_, at + literal_.size())) {
      matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal_.size())});
    }
  }

 private:
  std::string literal_;
};

// Rewrites Oniguruma's Ruby syntax (which tokenizer.json uses) where PCRE2 reads it differently,
// and refuses what PCRE2 has no words for.
std::string pcre_syntax(const std::string& source, const std::string& origin) {
  // PCRE2's \s has U+180E, Oniguruma's has not.
  constexpr char kSpaces[] =
      R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  std::string out;
  bool in_class = false;
  size_t class_begin = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    const char c = source[i];
    const char next = i + 1 < source.size() ? source[i + 1] : '\0';
    if (c == '\\' && next != '\0') {
      ++i;
      if (next == 's') {
        out += in_class ? kSpaces : concat('[', kSpaces, ']');
      } else if (next == 'S' && !in_class) {
        out += concat("[^", kSpaces, ']');
      } else if (next == 'h' || next == 'H') {
        out += in_class && next == 'h' ? "0-9a-fA-F" : next == 'h' ? "[0-9a-fA-F]" : "[^0-9a-fA-F]";
      } else {
        out += {c, next};
      }
      continue;
    }
    if (in_class) {
      const bool first = i == class_begin + 1 || (i == class_begin + 2 && source[i - 1] == '^');
      LOWBIT_CHECK_KIND(!(c == '&' && next == '&') && !(c == '[' && next != ':'),
                        ErrorKind::kUnsupported, origin, ": the regular expression \"", source,
                        "\" intersects or nests character classes, which lowbit cannot do");
      if (c == ']' && !first) in_class = false;
    } else if (c == '[') {
      in_class = true;
      class_begin = i;
    }
    out += c;
  }
  return out;
}

class Regex final : public Pattern {
 public:
  Regex(const std::string& source, const std::string& origin) : source_(source), origin_(origin) {
    LOWBIT_CHECK_KIND(source.size() <= limits::kRegexBytes, ErrorKind::kCorruptFile, origin,
                      ": a regular expression of ", source.size(), " bytes, the limit is ",
                      limits::kRegexBytes);
    const std::string pattern = pcre_syntax(source, origin);
    int error = 0;
    size_t offset = 0;
    // In Ruby's syntax ^ and $ match at every line.
    constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              kOptions, &error, &offset, nullptr));
    if (code_ == nullptr) {
      PCRE2_UCHAR message[200] = {};
      pcre2_get_error_message(error, message, sizeof(message));
      fail(ErrorKind::kUnsupported, origin, ": the regular expression \"", source,
           "\" does not compile: ", reinterpret_cast<const char*>(message), " (at ", offset, ")");
    }
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, it interprets
    match_context_.reset(pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(match_context_.get(), limits::kRegexMatchSteps);
    pcre2_set_depth_limit(match_context_.get(), limits::kRegexMatchSteps);
    pcre2_set_heap_limit(match_context_.get(), limits::kRegexHeapKib);
  }

  void find(std::string_view text, std::vector<Span>& matches) const override {
    const std::unique_ptr<pcre2_match_data, Free> data(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::seconds(limits::kRegexSeconds);
    for (size_t at = 0; at <= text.size();) {
      if (!match(text, at, data.get())) break;
      const size_t* ovector = pcre2_get_ovector_pointer(data.get());
      const size_t begin = ovector[0], end = ovector[1];
      LOWBIT_CHECK_KIND(begin <= end && begin >= at, ErrorKind::kUnsupported, origin_,
                        ": the regular expression \"", source_, "\" uses \\K");
      matches.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
      at = end;
      if (begin == end) {
        if (at == text.size()) break;
        at += static_cast<size_t>(utf8_sequence(text.substr(at)).length);
      }
      LOWBIT_CHECK_KIND(matches.size() % 256 != 0 || std::chrono::steady_clock::now() < deadline,
                        ErrorKind::kUnsupported, origin_, ": the regular expression \"", source_,
                        "\" takes too long on this text");
    }
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };

  bool match(std::string_view text, size_t at, pcre2_match_data* data) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int found = pcre2_match(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, data,
                            match_context_.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data, match_context_.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) return false;
    LOWBIT_CHECK_KIND(found >= 0, ErrorKind::kUnsupported, origin_, ": the regular expression \"",
                      source_, "\" needs too many steps on this text (PCRE2 error ", found,
                      "): a simpler expression or shorter text would do");
    return true;
  }

  std::string source_;
  std::string origin_;
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_context, Free> match_context_;
};

}  // namespace

std::unique_ptr<Pattern> regex_pattern(const std::string& source, const std::string& origin,
                                       bool allow_scanners) {
  if (allow_scanners && source == kGpt2Regex) return gpt2_scanner();
  if (allow_scanners && source == kLlama3Regex) return llama3_scanner(3);
  if (allow_scanners && source == kQwen2Regex) return llama3_scanner(1);
  return std::make_unique<Regex>(source, origin);
}

std::unique_ptr<Pattern> literal_pattern(const std::string& literal) {
  return std::make_unique<Literal>(literal);
}

std::unique_ptr<Pattern> parse_pattern(const Json& pattern, const std::string& origin) {
  if (pattern.is_string()) return literal_pattern(pattern.get<std::string>());
  if (pattern.is_object() && pattern.size() == 1) {
    const auto member = pattern.begin();
    if (member->is_string() && member.key() == "String") {
      return literal_pattern(member->get<std::string>());
    }
    if (member->is_string() && member.key() == "Regex") {
      return regex_pattern(member->get<std::string>(), origin);
    }
  }
  fail(ErrorKind::kCorruptFile, origin,
       ": \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}, found ", dump_json(pattern));
}

}  // namespace lowbit
