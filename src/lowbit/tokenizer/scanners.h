// The pre-tokenizer expressions of GPT-2, Llama-3 and Qwen2 (pattern.h) as code. Each scanner
// finds what a backtracking matcher finds, in one pass and without looking back.
#pragma once

#include <memory>

#include "lowbit/tokenizer/pattern.h"

namespace lowbit {

std::unique_ptr<Pattern> gpt2_scanner();
// \p{N}{1,digits}: Llama-3 takes up to 3 digits as one piece, Qwen2 one.
std::unique_ptr<Pattern> llama3_scanner(int digits);

}  // namespace lowbit
