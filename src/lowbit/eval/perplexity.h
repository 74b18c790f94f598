// Perplexity of a text under a model, by the protocols of windows.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/eval/windows.h"

namespace lowbit {

struct PerplexityResult {
  std::string protocol;
  int64_t context = 0;
  int64_t chunks = 0;
  int64_t tokens = 0;  // scored
  double ppl = 0;
  double stderr_ppl = 0;          // ppl * standard error of the mean negative log-likelihood
  double seconds = 0;             // without tokenizing
  double tok_s = 0;               // tokens run through the model per second
  std::vector<double> chunk_nll;  // mean negative log-likelihood of each chunk, in nats
};

// Throws what make_windows() throws; kCorruptFile if the model gives NaN. Shows a progress line
// with the running perplexity.
PerplexityResult perplexity(Model& model, const Tokenizer& tokenizer, const std::string& text,
                            const WindowOptions& options);

}  // namespace lowbit
