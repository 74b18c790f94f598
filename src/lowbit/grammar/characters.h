// Sets of characters, and the bytes that spell them: as UTF-8, or inside of a JSON string.
#pragma once

#include <cstdint>
#include <vector>

#include "lowbit/grammar/network.h"

namespace lowbit::grammar {

// Ranges of code points, both ends included. Surrogates are never in a set.
class CharacterSet {
 public:
  CharacterSet() = default;
  CharacterSet(char32_t low, char32_t high) { add(low, high); }
  static CharacterSet all() { return {0, 0x10FFFF}; }

  void add(char32_t low, char32_t high);
  void add(const CharacterSet& other);
  CharacterSet complement() const;
  CharacterSet intersection(const CharacterSet& other) const;
  bool contains(char32_t code) const;
  struct Range {
    char32_t low, high;
  };
  std::vector<Range> ranges() const;  // sorted, apart, without surrogates

 private:
  std::vector<Range> ranges_;  // as added
};

// How characters of a text are spelled in what is generated.
enum class Spelling {
  kPlain,
  kJsonString,  // between the quotes of a JSON string: ", \ and controls are escaped
};

// One character of the set.
Fragment one_of(Builder& builder, const CharacterSet& set, Spelling spelling);
// The text as it is spelled.
Fragment spelled(Builder& builder, std::u32string_view text, Spelling spelling);

std::u32string code_points(std::string_view utf8);  // of valid UTF-8

}  // namespace lowbit::grammar
