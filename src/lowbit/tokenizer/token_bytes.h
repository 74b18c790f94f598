// The bytes that each token of a vocabulary adds to a text, where text is what decoding gives.
#pragma once

#include <string>
#include <vector>

#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

// [highest id + 1]. Special tokens and ids without a piece are empty: they add nothing. What a
// decoder does at the start of a text alone (dropping a space) is not in it.
std::vector<std::string> token_bytes(const TokenizerSpec& spec);

}  // namespace lowbit
