#include "lowbit/verify/verify.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/checkpoint/checksums.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/checkpoint/shards.h"
#include "lowbit/model/model.h"
#include "lowbit/verify/plain_weight.h"

namespace lowbit {

namespace {

// Who reads what, by the formats' own documentation; which of them was tried is in the README.
std::string programs_for(const std::string& format, const QuantScheme& scheme) {
  const bool marlin = scheme.zero == Zero::kNone && (scheme.bits == 4 || scheme.bits == 8);
  if (format == "gguf") return "llama.cpp and what builds on it, lowbit";
  if (format == "gptq") {
    return marlin ? "vLLM (Marlin), transformers with GPTQModel, lowbit"
                  : "transformers with GPTQModel, vLLM (slower kernel), lowbit";
  }
  if (format == "awq") return "vLLM, transformers with AutoAWQ, lowbit";
  if (format.rfind("auto-round", 0) == 0) return "transformers with auto-round, vLLM, lowbit";
  if (format == "compressed-tensors") return "vLLM, transformers with compressed-tensors, lowbit";
  if (format == "bitsandbytes") return "transformers with bitsandbytes, vLLM, lowbit";
  if (format == "hqq") return "transformers with hqq, lowbit";
  if (format == "mixq") return "lowbit (MixQ itself also wants q_weight: --format mixq-gpu)";
  if (format == "aqlm") return "transformers with aqlm, vLLM, lowbit";
  if (format == "fp8") return "vLLM, transformers, lowbit";
  return "everything that reads safetensors";
}

// The bytes beneath a checkpoint, for the second reading.
class Files {
 public:
  explicit Files(const std::string& path) {
    if (is_folder(path)) {
      shards_ = std::make_unique<ShardedSafetensors>(path);
    } else {
      file_ = std::make_unique<MappedFile>(path);
      gguf_ = parse_gguf(file_->bytes(), path);
    }
  }

  PlainWeight weight(const Checkpoint& checkpoint, const std::string& module) const {
    if (shards_ == nullptr) return plain_gguf_weight(gguf_, file_->bytes(), module + ".weight");
    return plain_weight(*shards_, checkpoint.config().value("quantization_config", Json()),
                        checkpoint.format(), module);
  }

 private:
  std::unique_ptr<ShardedSafetensors> shards_;
  std::unique_ptr<MappedFile> file_;
  GgufContents gguf_;
};

struct Sums {
  double error = 0, original = 0, stored = 0, product = 0, max_error = 0;
  double largest = 0;     // |w| of the loader's reading
  double difference = 0;  // largest between both readings
};

class Verifier {
 public:
  Verifier(const std::string& path, const std::string& original, int threads)
      : pool_(threads), checkpoint_(open_checkpoint(path)), files_(checkpoint_->path()) {
    if (!original.empty()) original_ = open_checkpoint(original);
  }

  void run(VerifyReport& report) {
    report.format = checkpoint_->format();
    report.compared = original_ != nullptr;
    const ModelConfig config = parse_model_config(
        checkpoint_->config(), checkpoint_->generation_config(), checkpoint_->path());
    report.tensors = static_cast<int64_t>(checkpoint_->tensors().size());
    std::vector<LinearSlot> slots;
    slots.push_back({"model.embed_tokens", config.vocab_size, config.hidden_size, false});
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      for (const auto& group : block_linears(config, i)) {
        slots.insert(slots.end(), group.begin(), group.end());
      }
    }
    if (checkpoint_->contains("lm_head.weight")) {
      slots.push_back({"lm_head", config.vocab_size, config.hidden_size, false});
    }
    Progress progress("verifying", static_cast<int64_t>(slots.size()), "modules");
    int64_t done = 0;
    for (const LinearSlot& slot : slots) {
      collect(report, slot.module, [&] { check(slot, report); });
      progress.update(++done, slot.module);
    }
    check_vectors(config, report);
    if (report.loads_in.empty()) report.loads_in = programs_for("safetensors", {});
  }

 private:
  // A fault of one module should not hide those of the others.
  template <typename Body>
  static void collect(VerifyReport& report, const std::string& name, const Body& body) {
    try {
      body();
    } catch (const Error& error) {
      const std::string what = error.what();
      report.problems.push_back(what.find(name) == std::string::npos ? concat(name, ": ", what)
                                                                     : what);
    }
  }

  void check(const LinearSlot& slot, VerifyReport& report) {
    const LinearWeight linear = checkpoint_->load_linear(slot.module, slot.rows, slot.cols);
    LinearWeight original;
    if (original_ != nullptr) {
      original = original_->load_linear(slot.module, slot.rows, slot.cols);
    }
    const QuantScheme& scheme = linear.weight.scheme;
    const PlainWeight plain =
        scheme.dense() ? PlainWeight() : files_.weight(*checkpoint_, slot.module);
    const Sums sums = compare(linear.weight, original_ ? &original.weight : nullptr, plain);
    LOWBIT_CHECK_KIND(std::isfinite(sums.stored), ErrorKind::kCorruptFile, slot.module,
                      ".weight holds values that are not finite");
    // Two ways to write scale * (q - zero) may differ in the last bits.
    LOWBIT_CHECK_KIND(sums.difference <= 1e-5 * sums.largest, ErrorKind::kCorruptFile, slot.module,
                      ".weight: two independent readings differ by ", sums.difference);
    for (const float value : linear.bias) {
      LOWBIT_CHECK_KIND(std::isfinite(value), ErrorKind::kCorruptFile, slot.module,
                        ".bias holds values that are not finite");
    }
    if (!scheme.dense() && report.loads_in.empty()) {
      report.loads_in = programs_for(report.format, scheme);
    }
    VerifyReport::Layer layer{slot.module, name_of(scheme), static_cast<bool>(plain)};
    if (original_ != nullptr) {
      layer.relative_error = sums.original > 0 ? std::sqrt(sums.error / sums.original) : 0;
      layer.cosine = sums.product / std::sqrt(std::max(sums.original * sums.stored, 1e-300));
      layer.max_error = sums.max_error;
      original_->release(slot.module);
    }
    report.layers.push_back(std::move(layer));
    checkpoint_->release(slot.module);
  }

  Sums compare(const QTensor& stored, const QTensor* original, const PlainWeight& plain) {
    const int64_t rows = stored.rows, cols = stored.cols;
    std::vector<Sums> of_row(static_cast<size_t>(rows));
    pool_.parallel_for(rows, [&](int64_t n, int) {
      std::vector<float> a(static_cast<size_t>(cols)), b;
      dequantize_row(stored, n, a.data());
      if (original != nullptr) {
        b.resize(a.size());
        dequantize_row(*original, n, b.data());
      }
      Sums& sums = of_row[static_cast<size_t>(n)];
      for (int64_t k = 0; k < cols; ++k) {
        const double value = a[static_cast<size_t>(k)];
        sums.stored += value * value;
        sums.largest = std::max(sums.largest, std::fabs(value));
        if (plain) {
          const double difference = std::fabs(plain(n, k) - value);
          // NaN on one side only is a difference too.
          if (!(difference <= sums.difference)) sums.difference = difference;
        }
        if (original == nullptr) continue;
        const double truth = b[static_cast<size_t>(k)], error = truth - value;
        sums.original += truth * truth;
        sums.product += truth * value;
        sums.error += error * error;
        sums.max_error = std::max(sums.max_error, std::fabs(error));
      }
    });
    Sums all;
    for (const Sums& sums : of_row) {
      all.error += sums.error;
      all.original += sums.original;
      all.stored += sums.stored;
      all.product += sums.product;
      all.max_error = std::max(all.max_error, sums.max_error);
      all.largest = std::max(all.largest, sums.largest);
      if (!(sums.difference <= all.difference)) all.difference = sums.difference;
    }
    return all;
  }

  void check_vectors(const ModelConfig& config, VerifyReport& report) {
    std::vector<std::pair<std::string, int64_t>> vectors{{"model.norm.weight", config.hidden_size}};
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      const std::string block = concat("model.layers.", i, ".");
      vectors.emplace_back(block + "input_layernorm.weight", config.hidden_size);
      vectors.emplace_back(block + "post_attention_layernorm.weight", config.hidden_size);
      if (!config.qk_norm) continue;
      vectors.emplace_back(block + "self_attn.q_norm.weight", config.head_dim);
      vectors.emplace_back(block + "self_attn.k_norm.weight", config.head_dim);
    }
    for (const auto& [name, size] : vectors) {
      collect(report, name, [&] {
        for (const float value : checkpoint_->load_vector(name, size)) {
          LOWBIT_CHECK_KIND(std::isfinite(value), ErrorKind::kCorruptFile, name,
                            " holds values that are not finite");
        }
      });
    }
  }

  ThreadPool pool_;
  std::unique_ptr<Checkpoint> checkpoint_, original_;
  Files files_;
};

}  // namespace

VerifyReport verify_checkpoint(const std::string& path, const std::string& original, int threads) {
  const Stopwatch watch;
  VerifyReport report;
  std::unique_ptr<Verifier> verifier;
  const std::string resolved = resolve_model(path);
  if (is_folder(resolved)) report.checksums = check_checksums(resolved, report.problems);
  if (!original.empty()) open_checkpoint(original);  // the caller's mistake, not the checkpoint's
  try {
    verifier = std::make_unique<Verifier>(path, original, threads);
    verifier->run(report);
  } catch (const Error& error) {
    report.problems.emplace_back(error.what());
  }
  report.seconds = watch.seconds();
  return report;
}

}  // namespace lowbit
