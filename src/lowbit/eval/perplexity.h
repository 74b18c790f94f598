// Perplexity of a text under a model, by the field's protocols:
//   hf         windows of ctx tokens without overlap, no BOS inserted, every position scored
//   llama.cpp  chunks of ctx tokens, first replaced by BOS if the tokenizer adds one, second half
//              scored
//   mixq       as llama.cpp, BOS always, probabilities rounded through fp16
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/model/model.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct PerplexityOptions {
  std::string protocol = "hf";
  int64_t context = 0;  // 0: 2048 for hf, 512 otherwise
  int64_t chunks = -1;  // -1: all
};

struct PerplexityResult {
  std::string protocol;
  int64_t context = 0;
  int64_t chunks = 0;
  int64_t tokens = 0;  // scored
  double ppl = 0;
  double stderr_ppl = 0;  // ppl * standard error of the mean negative log-likelihood
  double seconds = 0;
  double tok_s = 0;  // tokens run through the model per second
};

// Throws kInvalidArgument for an unknown protocol (listing them), a text shorter than one window,
// or a window longer than the model's context.
PerplexityResult perplexity(Model& model, const Tokenizer& tokenizer, const std::string& text,
                            const PerplexityOptions& options);

}  // namespace lowbit
