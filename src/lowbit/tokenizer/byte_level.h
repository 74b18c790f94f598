// GPT-2's alphabet for bytes: every byte has a printable character (0x20 is U+0120, "Ġ").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lowbit {

// Appends the bytes as characters of the alphabet.
void append_byte_level(std::string_view bytes, std::string& out);

// The bytes that valid UTF-8 `text` spells; nothing if some character is not in the alphabet.
std::optional<std::string> from_byte_level(std::string_view text);

}  // namespace lowbit
