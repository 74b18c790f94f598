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

// A scheme, and what of it a format uses.
struct WeightFormat {
  enum class Values {
    kAny,
    kTernary,    // of the integers only -1, 0 and 1
    kMultiples,  // scales and offsets are integers times a half for every 256 columns (K-quants)
  };
  QuantScheme scheme;
  Values values = Values::kAny;
  int64_t outliers = 0;  // columns that are multiplied in 16 bits (MixQ)
};

struct RandomModelOptions {
  std::string shape = "llama-3.2-1b";  // one of random_model_shapes()
  WeightFormat format;                 // of the linears in the blocks
  WeightFormat head;                   // of the embedding and the head
  int64_t layers = 0;                  // 0: as many as the shape has
  uint64_t seed = 1;
};

// A checkpoint without files; its tokenizer is made up. Weights depend on their shape and the seed
// only, so that layers share their codes: what a backend packs of them is its own. Norms are ones.
// Throws kInvalidArgument listing the shapes there are, or if the shape does not fit the scheme.
std::unique_ptr<Checkpoint> make_random_model(const RandomModelOptions& options);
// "llama-3.1-8b", "llama-3.2-1b", "smollm2-135m"
std::vector<std::string> random_model_shapes();

// By name: ggml's ("q4_0", "q4_k"), Hugging Face's ("awq", "nf4", "mxfp4"), or a scheme's own
// ("w4_g128", "ternary", "bf16"). Throws kInvalidArgument listing the names there are.
WeightFormat format_by_name(const std::string& name);
std::vector<std::string> format_names();

// Random codes and scales; values have a standard deviation of about 0.02. Not for
// ScaleForm::kNested.
QTensor random_weight(const WeightFormat& format, int64_t rows, int64_t cols, uint64_t seed);

}  // namespace lowbit
