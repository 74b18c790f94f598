// Grammars in llama.cpp's GBNF, which is also the EBNF that vLLM's guided_grammar takes:
//   root ::= "yes" | "no" ws [a-z]+   # a comment
#pragma once

#include <string_view>

#include "lowbit/grammar/network.h"

namespace lowbit::grammar {

// Knows literals, classes, ".", groups, "|", * + ? {m,n}, rules and comments. The rule "root" is
// the text. Throws kInvalidArgument with the line of what cannot be read.
Network gbnf(std::string_view source);

}  // namespace lowbit::grammar
