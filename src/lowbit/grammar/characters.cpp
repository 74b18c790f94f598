#include "lowbit/grammar/characters.h"

#include <algorithm>
#include <array>
#include <string>

namespace lowbit::grammar {

namespace {

using Bytes = std::vector<uint8_t>;

Bytes utf8_of(char32_t code) {
  const auto tail = [&](int shift) { return static_cast<uint8_t>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) return {static_cast<uint8_t>(code)};
  if (code < 0x800) return {static_cast<uint8_t>(0xC0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<uint8_t>(0xE0 | code >> 12), tail(6), tail(0)};
  return {static_cast<uint8_t>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
}

// Cuts a range where its UTF-8 changes length, and then so that every byte position runs over a
// range of its own: [low, high] becomes sequences of byte ranges.
void add_utf8(Builder& builder, char32_t low, char32_t high, Fragment whole) {
  for (const char32_t last : {U'\x7F', U'\u07FF', U'\uFFFF'}) {
    if (low <= last && last < high) {
      add_utf8(builder, low, last, whole);
      return add_utf8(builder, last + 1, high, whole);
    }
  }
  for (int i = 1; i < 4 && high >= 0x80; ++i) {
    const char32_t mask = (char32_t{1} << (6 * i)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      add_utf8(builder, low, low | mask, whole);
      return add_utf8(builder, (low | mask) + 1, high, whole);
    }
    if ((high & mask) != mask) {
      add_utf8(builder, low, (high & ~mask) - 1, whole);
      return add_utf8(builder, high & ~mask, high, whole);
    }
  }
  const Bytes from = utf8_of(low), to = utf8_of(high);
  int32_t node = whole.start;
  for (size_t i = 0; i < from.size(); ++i) {
    const int32_t next = i + 1 == from.size() ? whole.end : builder.add_node();
    builder.add_edge(
        node, {.kind = Edge::Kind::kBytes, .low = from[i], .high = to[i], .to = next});
    node = next;
  }
}

Fragment utf8_set(Builder& builder, const CharacterSet& set) {
  const Fragment whole = {builder.add_node(), builder.add_node()};
  for (const auto& [low, high] : set.ranges()) add_utf8(builder, low, high, whole);
  return whole;
}

bool needs_escape(char32_t code) { return code < 0x20 || code == '"' || code == '\\'; }

std::string escape_of(char32_t code) {
  switch (code) {
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    default:
      break;
  }
  constexpr std::array kDigits = {'0', '1', '2', '3', '4', '5', '6', '7',
                                  '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'};
  return std::string("\\u00") + kDigits[code >> 4 & 15] + kDigits[code & 15];
}

}  // namespace

void CharacterSet::add(char32_t low, char32_t high) {
  if (low <= high) ranges_.push_back({low, std::min<char32_t>(high, 0x10FFFF)});
}

void CharacterSet::add(const CharacterSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
}

std::vector<CharacterSet::Range> CharacterSet::ranges() const {
  std::vector<Range> sorted;
  for (const auto& [low, high] : ranges_) {  // around the surrogates
    if (low < 0xD800) sorted.push_back({low, std::min<char32_t>(high, 0xD7FF)});
    if (high > 0xDFFF) sorted.push_back({std::max<char32_t>(low, 0xE000), high});
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Range& a, const Range& b) { return a.low < b.low; });
  std::vector<Range> merged;
  for (const Range& range : sorted) {
    if (!merged.empty() && range.low <= merged.back().high + 1) {
      merged.back().high = std::max(merged.back().high, range.high);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

CharacterSet CharacterSet::complement() const {
  CharacterSet result;
  char32_t next = 0;
  for (const auto& [low, high] : ranges()) {
    if (low > next) result.add(next, low - 1);
    next = high + 1;
  }
  if (next <= 0x10FFFF) result.add(next, 0x10FFFF);
  return result;
}

CharacterSet CharacterSet::intersection(const CharacterSet& other) const {
  CharacterSet either = complement();
  either.add(other.complement());
  return either.complement();
}

bool CharacterSet::contains(char32_t code) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const Range& range) { return range.low <= code && code <= range.high; });
}

Fragment one_of(Builder& builder, const CharacterSet& set, Spelling spelling) {
  if (spelling == Spelling::kPlain) return utf8_set(builder, set);
  CharacterSet escaped(0, 0x1F);
  escaped.add('"', '"');
  escaped.add('\\', '\\');
  const Fragment whole = utf8_set(builder, set.intersection(escaped.complement()));
  for (const auto& [low, high] : set.intersection(escaped).ranges()) {
    for (char32_t code = low; code <= high; ++code) {
      const Fragment escape = builder.literal(escape_of(code));
      builder.join(whole.start, escape.start);
      builder.join(escape.end, whole.end);
    }
  }
  return whole;
}

Fragment spelled(Builder& builder, std::u32string_view text, Spelling spelling) {
  std::string bytes;
  for (const char32_t code : text) {
    if (spelling == Spelling::kJsonString && needs_escape(code)) {
      bytes += escape_of(code);
    } else {
      for (const uint8_t byte : utf8_of(code)) bytes += static_cast<char>(byte);
    }
  }
  return builder.literal(bytes);
}

std::u32string code_points(std::string_view utf8) {
  std::u32string result;
  for (size_t i = 0; i < utf8.size();) {
    const auto lead = static_cast<uint8_t>(utf8[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t code = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    for (size_t k = 1; k < length && i + k < utf8.size(); ++k) {
      code = code << 6 | (static_cast<uint8_t>(utf8[i + k]) & 0x3Fu);
    }
    result += code;
    i += length;
  }
  return result;
}

}  // namespace lowbit::grammar
