// UTF-8: one character at a time, and lossy decoding as Rust's String::from_utf8_lossy does it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lowbit {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8 {
  kValid,
  kInvalid,     // `length` bytes that no character starts with: one U+FFFD
  kIncomplete,  // the text ends inside a character
};

struct Utf8Sequence {
  Utf8 status;
  int length;  // bytes, 1 to 4
};

// The character that starts at text[0]; the text must not be empty.
Utf8Sequence utf8_sequence(std::string_view text);

bool valid_utf8(std::string_view text);

// Appends `bytes` to `out`, every maximal invalid part as one U+FFFD. Unless `final`, stops before
// a character that is still incomplete. Returns how many bytes were used.
size_t append_lossy(std::string_view bytes, bool final, std::string& out);

void append_utf8(char32_t code, std::string& out);

// Decodes the character at `at` of valid UTF-8 and moves `at` behind it.
inline char32_t next_character(const char*& at) {
  const auto byte = [&](int i) { return static_cast<uint8_t>(at[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) {
    at += 1;
    return lead;
  }
  char32_t code;
  if (lead < 0xE0) {
    code = (lead & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
    at += 2;
  } else if (lead < 0xF0) {
    code = (lead & 0x0Fu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
    at += 3;
  } else {
    code =
        (lead & 0x07u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu);
    at += 4;
  }
  return code;
}

// Start of the character that ends just before `at`.
inline const char* previous_character(const char* at) {
  do {
    --at;
  } while ((static_cast<uint8_t>(*at) & 0xC0) == 0x80);
  return at;
}

}  // namespace lowbit
