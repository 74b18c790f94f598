// Regular expressions, of the kind that JSON schemas and vLLM's guided_regex hold (ECMA-262's
// syntax without what is not regular): the set of texts they match, as a fragment of a network.
#pragma once

#include <string_view>

#include "lowbit/grammar/characters.h"

namespace lowbit::grammar {

enum class Anchoring {
  kWhole,   // the whole text matches (^ and $ may stand at the ends)
  kSearch,  // the text contains a match: JSON schema's "pattern"
};

// Knows literals, escapes (\d \w \s and their complements, \n, \x41, \u0041), classes, groups,
// alternatives, and * + ? {m,n} (lazy ones match the same texts). Throws kInvalidArgument naming
// what is not supported (look-around, back references, \b, \p, anchors inside) and where.
Fragment regex(Builder& builder, std::string_view pattern, Anchoring anchoring, Spelling spelling);

}  // namespace lowbit::grammar
