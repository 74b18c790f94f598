// Text as Python's str sees it: code points over valid UTF-8, Unicode's case mappings and
// character classes (The Unicode Standard, sections 3.13 and 4).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lowbit::jinja::unicode {

inline size_t length(std::string_view text) {  // in code points
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

// Bytes of the code point that begins with `lead`.
inline size_t sequence_bytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

// Byte offset of code point `index`, text.size() if there are no more than `index`.
size_t offset(std::string_view text, size_t index);
bool valid(std::string_view text);
std::string sanitized(std::string_view text);  // invalid bytes become U+FFFD

std::u32string decode(std::string_view text);
char32_t decode_at(std::string_view text, size_t& offset);  // and moves offset behind it
void append(std::string& text, char32_t code_point);
std::string encode(std::u32string_view text);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string casefold(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title
std::string swapcase(std::string_view text);

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);  // a titlecase letter
bool is_printable(char32_t c);
bool is_word(char32_t c);  // \w
bool is_identifier_start(char32_t c);
bool is_identifier_part(char32_t c);
int decimal_value(char32_t c);  // 0..9, -1 if c is not a decimal digit

inline bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }

}  // namespace lowbit::jinja::unicode
