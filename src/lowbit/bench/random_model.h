// Models of known shapes with random weights: speed without a download. Weights are random codes
// with random scales, so what is measured (bytes, arithmetic, caches) is that of a real file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit {

struct RandomModelOptions {
  std::string shape = "llama-3.2-1b";  // one of random_model_shapes()
  QuantScheme scheme;                  // of the linears in the blocks
  QuantScheme head;                    // of the embedding and the head
  int64_t layers = 0;                  // 0: as many as the shape has
  uint64_t seed = 1;
};

// A checkpoint without files or tokenizer. Weights depend on their shape and the seed only, so that
// layers share their codes: what a backend packs of them is its own. Norms are ones. Throws
// kInvalidArgument listing the shapes there are, or if the shape does not fit the scheme.
std::unique_ptr<Checkpoint> make_random_model(const RandomModelOptions& options);
// "llama-3.1-8b", "llama-3.2-1b", "smollm2-135m"
std::vector<std::string> random_model_shapes();

// Scheme by the name of a format: ggml's ("q4_0", "q4_k"), Hugging Face's ("awq", "nf4", "mxfp4"),
// or one's own ("w4_g128", "w3_g64_zero", "ternary", "bf16"). Throws kInvalidArgument listing the
// names there are.
QuantScheme scheme_by_name(const std::string& name);
std::vector<std::string> scheme_names();

// Random codes and scales; values have a standard deviation of about 0.02. Not for
// ScaleForm::kNested.
QTensor random_weight(const QuantScheme& scheme, int64_t rows, int64_t cols, uint64_t seed);

}  // namespace lowbit
