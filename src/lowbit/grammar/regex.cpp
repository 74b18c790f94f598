#include "lowbit/grammar/regex.h"

#include "lowbit/base/check.h"
#include "lowbit/base/utf8.h"

namespace lowbit::grammar {

namespace {

CharacterSet digits() { return {'0', '9'}; }

CharacterSet word() {
  CharacterSet set = digits();
  set.add('a', 'z');
  set.add('A', 'Z');
  set.add('_', '_');
  return set;
}

CharacterSet space() {
  CharacterSet set('\t', '\r');
  set.add(' ', ' ');
  return set;
}

CharacterSet any_but_line_end() {
  CharacterSet ends('\n', '\n');
  ends.add('\r', '\r');
  return ends.complement();
}

class Parser {
 public:
  Parser(Builder& builder, std::string_view pattern, Spelling spelling)
      : builder_(builder), pattern_(code_points(pattern)), spelling_(spelling) {}

  Fragment parse(Anchoring anchoring) {
    const bool search = anchoring == Anchoring::kSearch;
    std::vector<Fragment> branches;
    // Anchors belong to a branch: "^a|b$".
    do {
      const bool begins = take('^');
      Fragment branch = sequence(0);
      const bool ends = take('$');
      if (search && !begins) branch = builder_.sequence({anything(), branch});
      if (search && !ends) branch = builder_.sequence({branch, anything()});
      branches.push_back(branch);
    } while (take('|'));
    if (at_ < pattern_.size()) refuse("an unmatched )");
    return branches.size() == 1 ? branches[0] : builder_.choice(branches);
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    fail(ErrorKind::kInvalidArgument, "regular expression: ", what, " at character ", at_);
  }
  bool more() const { return at_ < pattern_.size(); }
  char32_t peek() const { return pattern_[at_]; }
  bool take(char32_t code) {
    if (!more() || peek() != code) return false;
    ++at_;
    return true;
  }

  Fragment anything() {
    return builder_.star(one_of(builder_, CharacterSet::all(), spelling_));
  }

  Fragment alternatives(int depth) {
    LOWBIT_CHECK(depth <= kMaxNesting, "regular expression: groups nested deeper than ",
                 kMaxNesting);
    std::vector<Fragment> branches;
    do {
      branches.push_back(sequence(depth));
    } while (take('|'));
    return branches.size() == 1 ? branches[0] : builder_.choice(branches);
  }

  Fragment sequence(int depth) {
    Fragment whole = builder_.empty();
    while (more() && peek() != '|' && peek() != ')') {
      if (peek() == '$' && depth == 0 && (at_ + 1 == pattern_.size() || pattern_[at_ + 1] == '|')) {
        break;
      }
      const size_t start = at_;
      Fragment part = atom(depth);
      part = quantified(part, start, depth);
      whole = builder_.sequence({whole, part});
    }
    return whole;
  }

  // Counted repetitions need the atom several times: it is parsed again for each.
  Fragment quantified(Fragment part, size_t start, int depth) {
    if (!more()) return part;
    int64_t min = 0, max = -1;
    if (take('*')) {
      part = builder_.star(part);
    } else if (take('?')) {
      part = builder_.optional(part);
    } else if (take('+')) {
      part = again(start, depth, 1, -1);
    } else if (peek() == '{' && counts(min, max)) {
      part = again(start, depth, min, max);
    } else {
      return part;
    }
    take('?');  // lazy: the same texts
    if (more() && (peek() == '*' || peek() == '+' || peek() == '?')) refuse("a second quantifier");
    return part;
  }

  Fragment again(size_t start, int depth, int64_t min, int64_t max) {
    const size_t behind = at_;
    LOWBIT_CHECK(repetition_ < 8, "regular expression: repetitions nested deeper than 8");
    ++repetition_;
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

  // "{2}", "{2,}" or "{2,3}"; anything else is a plain brace.
  bool counts(int64_t& min, int64_t& max) {
    const size_t start = at_++;
    const bool first = number(min);
    max = min;
    if (first && take(',')) {
      if (!number(max)) max = -1;
    }
    if (first && take('}')) {
      if (max >= 0 && max < min) refuse("a repetition with its limits in the wrong order");
      return true;
    }
    at_ = start;
    refuse("a brace that is no repetition (write \\{)");
  }

  bool number(int64_t& value) {
    const size_t start = at_;
    value = 0;
    while (more() && peek() >= '0' && peek() <= '9') {
      value = std::min<int64_t>(value * 10 + static_cast<int64_t>(pattern_[at_++] - '0'), 1 << 30);
    }
    return at_ > start;
  }

  Fragment atom(int depth) {
    const char32_t code = pattern_[at_];
    switch (code) {
      case '(':
        return group(depth);
      case '[':
        return one_of(builder_, bracket(), spelling_);
      case '.':
        ++at_;
        return one_of(builder_, any_but_line_end(), spelling_);
      case '\\':
        return one_of(builder_, escape(false), spelling_);
      case '*':
      case '+':
      case '?':
        refuse("a quantifier without anything before it");
      case '^':
      case '$':
        refuse("an anchor that is not at an end");
      default:
        ++at_;
        return spelled(builder_, std::u32string(1, code), spelling_);
    }
  }

  Fragment group(int depth) {
    ++at_;
    if (take('?')) {
      const bool plain = take(':');
      const bool named = !plain && (take('P'), take('<')) && more() && peek() != '=' && peek() != '!';
      if (!plain && !named) refuse("look-around or an option, which is not supported");
      while (named && more() && pattern_[at_++] != '>') {
      }
    }
    const Fragment inner = alternatives(depth + 1);
    if (!take(')')) refuse("a group without its end");
    return inner;
  }

  CharacterSet escape(bool in_class) {
    ++at_;
    if (!more()) refuse("a backslash at the end");
    const char32_t code = pattern_[at_++];
    switch (code) {
      case 'd':
        return digits();
      case 'D':
        return digits().complement();
      case 'w':
        return word();
      case 'W':
        return word().complement();
      case 's':
        return space();
      case 'S':
        return space().complement();
      case 'n':
        return {'\n', '\n'};
      case 'r':
        return {'\r', '\r'};
      case 't':
        return {'\t', '\t'};
      case 'f':
        return {'\f', '\f'};
      case 'v':
        return {'\v', '\v'};
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'b':
        if (in_class) return {'\b', '\b'};
        [[fallthrough]];
      default:
        break;
    }
    const bool letter = (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
    const bool digit = code >= '0' && code <= '9';
    if (letter || digit) {
      --at_;
      refuse("an escape that is not supported");
    }
    return {code, code};
  }

  CharacterSet hex(int count) {
    char32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const char32_t c = more() ? pattern_[at_++] : 0;
      const char32_t digit = c >= '0' && c <= '9'   ? c - '0'
                             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                    : 16;
      if (digit == 16) refuse("an escape without its hexadecimal digits");
      value = value * 16 + digit;
    }
    return {value, value};
  }

  CharacterSet bracket() {
    ++at_;
    const bool negated = take('^');
    CharacterSet set;
    while (more() && peek() != ']') {
      const CharacterSet low = class_member();
      const bool range = at_ + 1 < pattern_.size() && peek() == '-' && pattern_[at_ + 1] != ']';
      if (!range) {
        set.add(low);
        continue;
      }
      ++at_;
      const auto from = low.ranges(), to = class_member().ranges();
      const bool single = from.size() == 1 && to.size() == 1 && from[0].low == from[0].high &&
                          to[0].low == to[0].high && from[0].low <= to[0].low;
      if (!single) refuse("a range whose ends are in the wrong order");
      set.add(from[0].low, to[0].high);
    }
    if (!take(']')) refuse("a class without its end");
    if (set.ranges().empty() && !negated) refuse("an empty class");
    return negated ? set.complement() : set;
  }

  CharacterSet class_member() {
    if (peek() == '\\') return escape(true);
    const char32_t code = pattern_[at_++];
    return {code, code};
  }

  Builder& builder_;
  std::u32string pattern_;
  Spelling spelling_;
  size_t at_ = 0;
  int repetition_ = 0;
};

}  // namespace

Fragment regex(Builder& builder, std::string_view pattern, Anchoring anchoring,
               Spelling spelling) {
  LOWBIT_CHECK(pattern.size() <= kMaxSource, "regular expression: longer than ", kMaxSource,
               " bytes");
  LOWBIT_CHECK(find_invalid_utf8(pattern) == std::string_view::npos,
               "regular expression: not UTF-8");
  return Parser(builder, pattern, spelling).parse(anchoring);
}

}  // namespace lowbit::grammar
