#include "lowbit/compare/measure.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/eval/divergence.h"
#include "lowbit/eval/perplexity.h"
#include "lowbit/verify/verify.h"

namespace lowbit {

namespace {

constexpr double kMib = 1 << 20;

struct Loaded {
  Loaded(const std::string& path, int64_t context, Activations activations,
         const MeasureOptions& options)
      : checkpoint(open_checkpoint(path)) {
    BackendOptions backend_options;
    backend_options.threads = options.threads;
    backend_options.activations = activations;
    backend = make_backend(options.backend, backend_options);
    ModelOptions model_options;
    model_options.context = context;
    model_options.max_batch = options.batch;
    model = std::make_unique<Model>(*checkpoint, *backend, model_options);
  }

  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
};

// Bits that the blocks' linears take, by weight.
double bits_per_weight(const Checkpoint& checkpoint, const ModelConfig& config) {
  std::map<std::string, int64_t> bytes_of;
  for (const TensorInfo& tensor : checkpoint.tensors()) bytes_of[tensor.name] = tensor.bytes;
  double bytes = 0, weights = 0;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (const auto& group : block_linears(config, block)) {
      for (const LinearSlot& slot : group) {
        bytes += static_cast<double>(bytes_of[slot.module + ".weight"]);
        weights += static_cast<double>(slot.rows) * static_cast<double>(slot.cols);
      }
    }
  }
  return 8 * bytes / weights;
}

// Of the files that hold weights.
double file_mib(const std::string& path) {
  if (!is_folder(path)) return static_cast<double>(fs::file_size(path)) / kMib;
  double bytes = 0;
  for (const fs::path& entry : folder_entries(path)) {
    const std::string ending = entry.extension().string();
    if (ending != ".safetensors" && ending != ".gguf") continue;
    bytes += static_cast<double>(fs::file_size(entry));
  }
  return bytes / kMib;
}

Json quality_of(const PerplexityResult& result) {
  return {{"perplexity", result.ppl},
          {"perplexity_error", result.stderr_ppl},
          {"chunks", result.chunks},
          {"tokens", result.tokens}};
}

void add_divergence(Json& out, Model& model, const LogitsFile& reference, DType kv_dtype) {
  const int64_t vocab = model.config().vocab_size;
  if (vocab != reference.vocab_size()) {
    out["note"] =
        concat("no divergence: ", vocab, " words, the source has ", reference.vocab_size());
    return;
  }
  const DivergenceResult result = divergence(model, reference, kv_dtype);
  out["kl"] = result.kl.mean;
  out["kl_error"] = result.kl.error;
  out["kl_median"] = result.kl_quantiles.median;
  out["kl_q99"] = result.kl_quantiles.q99;
  out["kl_max"] = result.kl_quantiles.max;
  out["same_top"] = result.same_top.mean;
}

}  // namespace

Json measure_speed(const std::string& checkpoint, const LatencyOptions& options,
                   Activations activations, const MeasureOptions& measure) {
  LatencyOptions latency = options;
  latency.kv_dtype = measure.kv_dtype;
  const int64_t context = std::max(options.prompt_tokens.front(), options.decode_tokens);
  const Loaded loaded(checkpoint, context, activations, measure);
  const LatencyRow row = measure_latency(*loaded.model, latency).front();
  return {{"format", loaded.checkpoint->format()},
          {"bits_per_weight", bits_per_weight(*loaded.checkpoint, loaded.model->config())},
          {"file_mib", file_mib(loaded.checkpoint->path())},
          {"peak_mib", peak_memory_mib()},
          {"prefill_tok_s", row.prefill_tok_s.median},
          {"decode_tok_s", row.decode_tok_s.median},
          {"machine", loaded.backend->description()}};
}

Json measure_quality(const std::string& checkpoint, const QualityOptions& options,
                     const MeasureOptions& measure) {
  WindowOptions eval = options.eval, windows = options.divergence;
  eval.kv_dtype = windows.kv_dtype = measure.kv_dtype;
  if (eval.context == 0) eval.context = find_protocol(eval.protocol).context;
  const bool diverges = !options.logits.empty();
  const int64_t context = diverges ? std::max(eval.context, windows.context) : eval.context;
  const Loaded loaded(checkpoint, context, options.activations, measure);
  const Tokenizer tokenizer(loaded.checkpoint->tokenizer());
  Json out = quality_of(perplexity(*loaded.model, tokenizer, options.text, eval));
  if (diverges && options.source) {
    save_logits(*loaded.model, tokenizer, options.text, windows, options.logits);
  } else if (diverges) {
    add_divergence(out, *loaded.model, LogitsFile(options.logits), measure.kv_dtype);
  }
  return out;
}

Json check_layers(const std::string& checkpoint, const std::string& original, int threads) {
  const VerifyReport report = verify_checkpoint(checkpoint, original, threads);
  Json layers = Json::array();
  for (const VerifyReport::Layer& layer : report.layers) {
    if (!report.compared || layer.module.find(".layers.") == std::string::npos) continue;
    layers.push_back({layer.module, layer.relative_error});
  }
  return {{"loads_in", report.loads_in}, {"problems", report.problems}, {"layers", layers}};
}

}  // namespace lowbit
