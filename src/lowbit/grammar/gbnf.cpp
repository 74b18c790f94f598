#include "lowbit/grammar/gbnf.h"

#include <map>
#include <string>

#include "lowbit/base/check.h"
#include "lowbit/base/utf8.h"
#include "lowbit/grammar/characters.h"

namespace lowbit::grammar {

namespace {

constexpr int kNestedRepetitions = 8;

bool is_name(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

class Parser {
 public:
  explicit Parser(std::string_view source) : source_(code_points(source)) {}

  Network parse() {
    for (skip(true); more(); skip(true)) {
      const std::string name = rule_name();
      skip(true);
      if (!take(U"::=")) refuse("\"::=\" expected behind the name of a rule");
      const int32_t index = rule(name);
      if (!defined_.emplace(name, true).second) refuse("a rule is defined twice");
      skip(true);
      builder_.define(index, alternatives(0));
      skip(false);
      if (more() && peek() != '\n') refuse("the end of the rule expected");
    }
    for (const auto& [name, index] : rules_) {
      LOWBIT_CHECK(defined_.contains(name), "grammar: there is no rule \"", name, "\"");
    }
    LOWBIT_CHECK(rules_.contains("root"), "grammar: there is no rule \"root\"");
    return builder_.finish(rules_["root"]);
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    size_t line = 1;
    for (size_t i = 0; i < at_ && i < source_.size(); ++i) line += source_[i] == '\n';
    fail(ErrorKind::kInvalidArgument, "grammar, line ", line, ": ", what);
  }
  bool more() const { return at_ < source_.size(); }
  char32_t peek() const { return source_[at_]; }
  bool take(std::u32string_view text) {
    if (source_.compare(at_, text.size(), text) != 0) return false;
    at_ += text.size();
    return true;
  }

  // White space and comments; line ends too, where a rule cannot end.
  void skip(bool line_ends) {
    while (more()) {
      if (peek() == '#') {
        while (more() && peek() != '\n') ++at_;
      } else if (peek() == ' ' || peek() == '\t' || peek() == '\r' ||
                 (line_ends && peek() == '\n')) {
        ++at_;
      } else {
        break;
      }
    }
  }

  std::string rule_name() {
    std::string name;
    while (more() && is_name(peek()) && name.size() < 256) name += static_cast<char>(source_[at_++]);
    if (name.empty()) refuse("the name of a rule expected");
    return name;
  }

  int32_t rule(const std::string& name) {
    const auto [found, added] = rules_.try_emplace(name, 0);
    if (added) found->second = builder_.add_rule();
    return found->second;
  }

  Fragment alternatives(int depth) {
    if (depth > kMaxNesting) refuse("groups nest too deep");
    std::vector<Fragment> branches;
    do {
      skip(true);
      branches.push_back(sequence(depth));
      // A line that begins with | goes on with the rule.
      const size_t before = at_;
      skip(true);
      if (!more() || peek() != '|') at_ = before;
    } while (take(U"|"));
    return branches.size() == 1 ? branches[0] : builder_.choice(branches);
  }

  Fragment sequence(int depth) {
    Fragment whole = builder_.empty();
    for (;;) {
      skip(depth > 0);
      if (!more() || peek() == '|' || peek() == ')' || peek() == '\n') return whole;
      const size_t start = at_;
      const Fragment part = quantified(atom(depth), start, depth);
      whole = builder_.sequence({whole, part});
    }
  }

  Fragment quantified(Fragment part, size_t start, int depth) {
    if (take(U"*")) return builder_.star(part);
    if (take(U"?")) return builder_.optional(part);
    if (take(U"+")) return again(start, depth, 1, -1);
    if (!take(U"{")) return part;
    int64_t min = number(), max = min;
    if (take(U",")) {
      skip(false);
      max = more() && peek() != '}' ? number() : -1;
    }
    if (!take(U"}")) refuse("\"}\" expected");
    return again(start, depth, min, max);
  }

  // The atom is parsed again for every time it must be there.
  Fragment again(size_t start, int depth, int64_t min, int64_t max) {
    const size_t behind = at_;
    if (++repetition_ > kNestedRepetitions) refuse("repetitions nest too deep");
    const Fragment part = builder_.repeat(
        [&] {
          at_ = start;
          return atom(depth);
        },
        min, max);
    --repetition_;
    at_ = behind;
    return part;
  }

  int64_t number() {
    int64_t value = 0;
    if (!more() || peek() < '0' || peek() > '9') refuse("a number expected");
    while (more() && peek() >= '0' && peek() <= '9') {
      value = std::min<int64_t>(value * 10 + static_cast<int64_t>(source_[at_++] - '0'), 1 << 30);
    }
    return value;
  }

  Fragment atom(int depth) {
    if (take(U"\"")) return literal();
    if (take(U"[")) return one_of(builder_, bracket(), Spelling::kPlain);
    if (take(U".")) return one_of(builder_, CharacterSet::all(), Spelling::kPlain);
    if (take(U"(")) {
      const Fragment inner = alternatives(depth + 1);
      skip(true);
      if (!take(U")")) refuse("\")\" expected");
      return inner;
    }
    if (!is_name(peek())) refuse("a literal, a class, a group or a rule expected");
    return builder_.call(rule(rule_name()));
  }

  Fragment literal() {
    std::u32string text;
    while (more() && peek() != '"') {
      if (peek() == '\n') refuse("a literal without its end");
      text += character();
    }
    if (!take(U"\"")) refuse("a literal without its end");
    return spelled(builder_, text, Spelling::kPlain);
  }

  CharacterSet bracket() {
    const bool negated = take(U"^");
    CharacterSet set;
    while (more() && peek() != ']') {
      const char32_t low = character();
      char32_t high = low;
      if (at_ + 1 < source_.size() && peek() == '-' && source_[at_ + 1] != ']') {
        ++at_;
        high = character();
      }
      if (high < low) refuse("a range whose ends are in the wrong order");
      set.add(low, high);
    }
    if (!take(U"]")) refuse("a class without its end");
    if (set.ranges().empty() && !negated) refuse("an empty class");
    return negated ? set.complement() : set;
  }

  char32_t character() {
    const char32_t code = source_[at_++];
    if (code != '\\') return code;
    if (!more()) refuse("a backslash at the end");
    const char32_t escape = source_[at_++];
    switch (escape) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '^':
      case '-':
      case '\'':
      case '/':
        return escape;
      default:
        refuse("an escape that is not known");
    }
  }

  char32_t hex(int count) {
    char32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const char32_t c = more() ? source_[at_++] : 0;
      const char32_t digit = c >= '0' && c <= '9'   ? c - '0'
                             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                    : 16;
      if (digit == 16 || value > 0x10FFFF) refuse("an escape that is no character");
      value = value * 16 + digit;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      refuse("an escape that is no character");
    }
    return value;
  }

  Builder builder_;
  std::u32string source_;
  size_t at_ = 0;
  int repetition_ = 0;
  std::map<std::string, int32_t> rules_;
  std::map<std::string, bool> defined_;
};

}  // namespace

Network gbnf(std::string_view source) {
  LOWBIT_CHECK(source.size() <= kMaxSource, "grammar: longer than ", kMaxSource, " bytes");
  LOWBIT_CHECK(find_invalid_utf8(source) == std::string_view::npos, "grammar: not UTF-8");
  return Parser(source).parse();
}

}  // namespace lowbit::grammar
