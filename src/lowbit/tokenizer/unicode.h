// What the pre-tokenizers know of a character, exactly as Hugging Face `tokenizers` sees it.
#pragma once

#include <cstdint>

namespace lowbit {

// Bits; unicode_ranges.inc holds them in this order.
enum CharacterClass : uint8_t {
  kLetter = 1,        // \p{L} of its regular expressions
  kNumber = 2,        // \p{N} of its regular expressions
  kSpace = 4,         // \s, Unicode's White_Space
  kNumeric = 8,       // what the component Digits cuts: a newer \p{N}
  kPunctuation = 16,  // what the component Punctuation cuts: \p{P} and ASCII symbols
  kWord = 32,         // \w of the component Whitespace and of single_word tokens
};

// The CharacterClass bits of all 0x110000 code points, indexed by code point.
const uint8_t* character_classes();

// Where the Unicode version of its normalizers and of its case mapping is not utf8proc's: a
// character that it does not decompose, and a lower case that utf8proc does not know (0: no).
bool keeps_composed(char32_t code);
char32_t newer_lowercase(char32_t code);

}  // namespace lowbit
