// UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string_view>

namespace lowbit {

// Offset of the first byte that does not belong to a well-formed character, or npos.
size_t find_invalid_utf8(std::string_view text);

}  // namespace lowbit
