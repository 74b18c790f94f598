// The measurements of one checkpoint, each as JSON: what the process that measures tells the one
// that writes the report.
#pragma once

#include <string>

#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/bench/latency.h"
#include "lowbit/eval/windows.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

// Where and how models run.
struct MeasureOptions {
  std::string backend = "cpu";
  int threads = 0;
  int64_t batch = 512;  // tokens in one forward pass at most
  DType kv_dtype = DType::kF16;
};

// {format, bits_per_weight, file_mib, peak_mib, prefill_tok_s, decode_tok_s, machine}. The peak is
// that of this process: call it in one of its own.
Json measure_speed(const std::string& checkpoint, const LatencyOptions& options,
                   Activations activations, const MeasureOptions& measure);

struct QualityOptions {
  std::string text;
  WindowOptions eval;
  Activations activations = Activations::kDefault;
  WindowOptions divergence;
  fs::path logits;      // of the source; empty: no divergence
  bool source = false;  // writes `logits`, if they are wanted
};
// {perplexity, perplexity_error, chunks, tokens}, and with logits that were there {kl, kl_error,
// kl_median, kl_q99, kl_max, same_top}; another vocabulary than the source's: {note}.
Json measure_quality(const std::string& checkpoint, const QualityOptions& options,
                     const MeasureOptions& measure);

// {loads_in, problems, layers: [[module, relative error], ...]}; layers of the model's blocks, and
// only with an original. As `lowbit verify --against`.
Json check_layers(const std::string& checkpoint, const std::string& original, int threads);

}  // namespace lowbit
