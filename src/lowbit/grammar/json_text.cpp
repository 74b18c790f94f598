#include "lowbit/grammar/json_text.h"

#include <map>

namespace lowbit::grammar {

namespace {

constexpr int64_t kIndentation = 20, kIntegerDigits = 15, kFractionDigits = 15, kExponentDigits = 2;

}  // namespace

Fragment JsonText::rule(int32_t& index, Fragment (JsonText::*make)()) {
  if (index < 0) {
    index = builder_.add_rule();  // before it is made: it may call itself
    builder_.define(index, (this->*make)());
  }
  return builder_.call(index);
}

Fragment JsonText::value() { return rule(value_, &JsonText::make_value); }
Fragment JsonText::object() { return rule(object_, &JsonText::make_object); }
Fragment JsonText::array() { return rule(array_, &JsonText::make_array); }
Fragment JsonText::string() { return rule(string_, &JsonText::make_string); }
Fragment JsonText::number() { return rule(number_, &JsonText::make_number); }
Fragment JsonText::integer() { return rule(integer_, &JsonText::make_integer); }
Fragment JsonText::space() { return rule(space_, &JsonText::make_space); }
Fragment JsonText::character() { return rule(character_, &JsonText::make_character); }

Fragment JsonText::make_value() {
  return builder_.choice({object(), array(), string(), number(), builder_.literal("true"),
                          builder_.literal("false"), builder_.literal("null")});
}

Fragment JsonText::comma_separated(const Builder::Make& entry, int64_t min, int64_t max) {
  if (max == 0) return builder_.empty();
  const auto next = [&] {
    return builder_.sequence({builder_.literal(","), space(), entry()});
  };
  const Fragment rest =
      builder_.repeat(next, std::max<int64_t>(min - 1, 0), max < 0 ? -1 : max - 1);
  const Fragment some = builder_.sequence({entry(), rest});
  return min > 0 ? some : builder_.optional(some);
}

Fragment JsonText::make_object() {
  const auto member = [&] {
    return builder_.sequence({string(), builder_.literal(":"), space(), value()});
  };
  return builder_.sequence({builder_.literal("{"), space(), comma_separated(member, 0, -1),
                            space(), builder_.literal("}")});
}

Fragment JsonText::make_array() {
  return builder_.sequence({builder_.literal("["), space(),
                            comma_separated([&] { return value(); }, 0, -1), space(),
                            builder_.literal("]")});
}

Fragment JsonText::make_character() {
  const CharacterSet hex = [] {
    CharacterSet set('0', '9');
    set.add('a', 'f');
    set.add('A', 'F');
    return set;
  }();
  const auto digit = [&](const CharacterSet& set) {
    return one_of(builder_, set, Spelling::kPlain);
  };
  CharacterSet plain(0x20, 0x10FFFF), quote('"', '"');
  quote.add('\\', '\\');
  CharacterSet simple;
  for (const char32_t code : std::u32string_view(U"\"\\/bfnrt")) simple.add(code, code);
  CharacterSet not_d('0', '9'), low('0', '7'), high('8', '9'), d('d', 'd');
  for (const char32_t code : std::u32string_view(U"abcefABCEF")) not_d.add(code, code);
  for (const char32_t code : std::u32string_view(U"abAB")) high.add(code, code);
  d.add('D', 'D');
  CharacterSet second('c', 'f');
  second.add('C', 'F');
  // \uD800 to \uDFFF only in pairs.
  const Fragment unit = builder_.sequence(
      {builder_.literal("\\u"),
       builder_.choice({builder_.sequence({digit(not_d), digit(hex)}),
                        builder_.sequence({digit(d), digit(low)})}),
       digit(hex), digit(hex)});
  const Fragment pair = builder_.sequence(
      {builder_.literal("\\u"), digit(d), digit(high), digit(hex), digit(hex),
       builder_.literal("\\u"), digit(d), digit(second), digit(hex), digit(hex)});
  return builder_.choice(
      {one_of(builder_, plain.intersection(quote.complement()), Spelling::kPlain),
       builder_.sequence({builder_.literal("\\"), digit(simple)}), unit, pair});
}

Fragment JsonText::make_string() {
  return builder_.sequence(
      {builder_.literal("\""), builder_.star(make_character()), builder_.literal("\"")});
}

// A tree of the strings; wherever a text leaves it, it is another string. Escapes are not used as
// long as the text could still be one of them, for they could spell it.
Fragment JsonText::other_string(const std::vector<std::string>& strings) {
  const Fragment free = builder_.sequence(
      {builder_.star(character()), builder_.literal("\"")});
  const Fragment whole = {builder_.add_node(), free.end};
  CharacterSet plain(0x20, 0x10FFFF);
  for (const char32_t code : std::u32string_view(U"\"\\")) {
    plain = plain.intersection(CharacterSet(code, code).complement());
  }
  struct Tree {
    std::map<char32_t, Tree> below;
    bool ends = false;
  };
  Tree root;
  for (const std::string& string : strings) {
    Tree* at = &root;
    for (const char32_t code : code_points(string)) at = &at->below[code];
    at->ends = true;
  }
  std::vector<std::pair<const Tree*, int32_t>> todo = {{&root, whole.start}};
  while (!todo.empty()) {
    const auto [tree, node] = todo.back();
    todo.pop_back();
    CharacterSet leaving = plain;
    for (const auto& [code, below] : tree->below) {
      const CharacterSet only(code, code);
      leaving = leaving.intersection(only.complement());
      const Fragment step = one_of(builder_, only.intersection(plain), Spelling::kPlain);
      builder_.join(node, step.start);
      todo.emplace_back(&below, step.end);
    }
    const Fragment leave = one_of(builder_, leaving, Spelling::kPlain);
    builder_.join(node, leave.start);
    builder_.join(leave.end, free.start);
    if (!tree->ends) {
      builder_.add_edge(node, {.kind = Edge::Kind::kBytes, .low = '"', .high = '"',
                               .to = whole.end});
    }
  }
  return whole;
}

Fragment JsonText::make_integer() {
  const auto digit = [&] { return builder_.bytes('0', '9'); };
  return builder_.sequence(
      {builder_.optional(builder_.literal("-")),
       builder_.choice({builder_.literal("0"),
                        builder_.sequence({builder_.bytes('1', '9'),
                                           builder_.repeat(digit, 0, kIntegerDigits - 1)})})});
}

Fragment JsonText::make_number() {
  const auto digit = [&] { return builder_.bytes('0', '9'); };
  CharacterSet e('e', 'e'), sign('+', '+');
  e.add('E', 'E');
  sign.add('-', '-');
  const Fragment fraction =
      builder_.sequence({builder_.literal("."), builder_.repeat(digit, 1, kFractionDigits)});
  const Fragment exponent = builder_.sequence(
      {one_of(builder_, e, Spelling::kPlain),
       builder_.optional(one_of(builder_, sign, Spelling::kPlain)),
       builder_.repeat(digit, 1, kExponentDigits)});
  return builder_.sequence(
      {make_integer(), builder_.optional(fraction), builder_.optional(exponent)});
}

Fragment JsonText::make_space() {
  const auto blank = [&] { return builder_.literal(" "); };
  return builder_.optional(builder_.choice(
      {blank(),
       builder_.sequence({builder_.literal("\n"), builder_.repeat(blank, 0, kIndentation)})}));
}

}  // namespace lowbit::grammar
