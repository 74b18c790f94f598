// Perplexity of a text under a model, by the field's protocols:
//   hf         windows of ctx tokens without overlap, no BOS inserted, every position scored
//   llama.cpp  chunks of ctx tokens, first replaced by BOS if the tokenizer adds one, second half
//              scored
//   mixq       as llama.cpp, BOS always, scored from min(512, ctx / 2) on, probabilities rounded
//              through fp16
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
  DType kv_dtype = DType::kF16;
};

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

// Names of the protocols.
std::vector<std::string> perplexity_protocols();

// Throws kInvalidArgument for an unknown protocol (listing them), a text shorter than the protocol
// needs, or a window longer than the model's context; kCorruptFile if the model gives NaN. Shows a
// progress line with the running perplexity.
PerplexityResult perplexity(Model& model, const Tokenizer& tokenizer, const std::string& text,
                            const PerplexityOptions& options);

}  // namespace lowbit
