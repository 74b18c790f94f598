// How far a model's predictions are from those of a reference, usually the same model in 16 bits:
// the statistics that llama.cpp prints for --kl-divergence.
#pragma once

#include <cstdint>
#include <string>

#include "lowbit/eval/logits_file.h"
#include "lowbit/eval/windows.h"

namespace lowbit {

struct DivergenceResult {
  // A mean and its standard error.
  struct Estimate {
    double mean = 0;
    double error = 0;
  };
  // Of the values of all scored positions.
  struct Quantiles {
    double min = 0, q01 = 0, q05 = 0, q10 = 0, median = 0, q90 = 0, q95 = 0, q99 = 0, q999 = 0;
    double max = 0;
  };

  int64_t context = 0;
  int64_t chunks = 0;
  int64_t tokens = 0;  // scored
  Estimate ppl, reference_ppl;
  Estimate log_ppl_ratio;  // ln(ppl / reference_ppl)
  Estimate kl;             // nats
  Quantiles kl_quantiles;
  Estimate delta_p;  // probability of the text's own token, minus the reference's
  double rms_delta_p = 0;
  Quantiles delta_p_quantiles;
  Estimate same_top;  // share of positions where both models' likeliest token is the same
  double seconds = 0;
};

// A reference that runs beside the model; the two must have the same vocabulary. If `save` is not
// empty, its log-probabilities are also written there (protocol llama.cpp only). Throws what
// make_windows() throws, kInvalidArgument if vocabularies differ, kCorruptFile if a model gives
// NaN. Shows a progress line.
DivergenceResult divergence(Model& model, Model& reference, const Tokenizer& tokenizer,
                            const std::string& text, const WindowOptions& options,
                            const fs::path& save = {});

// Runs the reference alone and keeps its log-probabilities in `path` (protocol llama.cpp), which
// appears when it is complete. Throws as divergence().
void save_logits(Model& reference, const Tokenizer& tokenizer, const std::string& text,
                 const WindowOptions& options, const fs::path& path);

// A reference that ran before; the windows are the file's.
DivergenceResult divergence(Model& model, const LogitsFile& reference, DType kv_dtype);

}  // namespace lowbit
