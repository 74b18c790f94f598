#include "lowbit/eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iomanip>
#include <memory>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/eval/log_softmax.h"
#include "lowbit/eval/running_mean.h"

namespace lowbit {

namespace {

// Where the reference's log-probabilities come from, part of a window by part.
class Reference {
 public:
  virtual ~Reference() = default;
  // Tokens [begin, end) of a window come next.
  virtual void run(const Windows& windows, int64_t index, int64_t begin, int64_t end) = 0;
  // Log-probabilities [count][vocab] of the scored positions of that part from the row-th on;
  // valid until the next call.
  virtual const float* log_probabilities(int64_t row, int64_t count) = 0;
};

class ModelReference final : public Reference {
 public:
  ModelReference(Model& model, const Windows& windows, DType kv_dtype, const fs::path& save,
                 ThreadPool& pool)
      : vocab_(model.config().vocab_size),
        runner_(model, windows.context, kv_dtype),
        log_p_(static_cast<size_t>(kLogitRows * vocab_)),
        pool_(pool) {
    if (!save.empty()) writer_ = std::make_unique<LogitsFileWriter>(save, windows, vocab_);
  }

  void run(const Windows& windows, int64_t index, int64_t begin, int64_t end) override {
    runner_.run(windows, index, begin, end);
  }

  const float* log_probabilities(int64_t row, int64_t count) override {
    const float* logits = runner_.logits(row, count);
    if (writer_ != nullptr) writer_->write(logits, count, pool_);
    pool_.parallel_for(count, [&](int64_t i, int) {
      const float* from = logits + i * vocab_;
      float* to = log_p_.data() + i * vocab_;
      const double normalizer = log_sum_exp({from, static_cast<size_t>(vocab_)});
      for (int64_t v = 0; v < vocab_; ++v) to[v] = static_cast<float>(from[v] - normalizer);
    });
    return log_p_.data();
  }

  void finish() {
    if (writer_ != nullptr) writer_->close();
  }

 private:
  int64_t vocab_;
  WindowRunner runner_;
  std::unique_ptr<LogitsFileWriter> writer_;
  std::vector<float> log_p_;
  ThreadPool& pool_;
};

class FileReference final : public Reference {
 public:
  FileReference(const LogitsFile& file, ThreadPool& pool)
      : file_(file), log_p_(static_cast<size_t>(kLogitRows * file.vocab_size())), pool_(pool) {}

  void run(const Windows& windows, int64_t index, int64_t begin, int64_t) override {
    window_ = index;
    first_ = std::max<int64_t>(0, begin - windows.first_scored);
  }

  const float* log_probabilities(int64_t row, int64_t count) override {
    const auto vocab = static_cast<size_t>(file_.vocab_size());
    pool_.parallel_for(count, [&](int64_t i, int) {
      const std::span<float> to(log_p_.data() + static_cast<size_t>(i) * vocab, vocab);
      file_.read(window_, first_ + row + i, to);
    });
    return log_p_.data();
  }

 private:
  const LogitsFile& file_;
  int64_t window_ = 0, first_ = 0;
  std::vector<float> log_p_;
  ThreadPool& pool_;
};

// What one scored position says.
struct Position {
  double nll = 0, reference_nll = 0;
  double kl = 0;
  bool same_top = false;
};

Position compare(std::span<const float> logits, std::span<const float> log_p, int32_t token) {
  Position position;
  position.nll = negative_log_likelihood(logits, token);
  position.reference_nll = -static_cast<double>(log_p[static_cast<size_t>(token)]);
  position.kl = kl_divergence(log_p, logits);
  const auto top = std::max_element(logits.begin(), logits.end()) - logits.begin();
  position.same_top = top == std::max_element(log_p.begin(), log_p.end()) - log_p.begin();
  LOWBIT_CHECK_KIND(std::isfinite(position.nll) && std::isfinite(position.reference_nll) &&
                        std::isfinite(position.kl),
                    ErrorKind::kCorruptFile, "token ", token, " has log-probability ",
                    -position.nll, " under the model and ", -position.reference_nll,
                    " under the reference; the weights of one are damaged or overflow");
  return position;
}

DivergenceResult::Quantiles quantiles(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(low + 1, values.size() - 1);
    const double weight = place - static_cast<double>(low);
    return (1 - weight) * values[low] + weight * values[high];
  };
  return {at(0),   at(0.01), at(0.05), at(0.1),   at(0.5),
          at(0.9), at(0.95), at(0.99), at(0.999), at(1)};
}

class Statistics {
 public:
  void add(const Position& position) {
    const double delta_p = std::exp(-position.nll) - std::exp(-position.reference_nll);
    nll_.add(position.nll);
    reference_nll_.add(position.reference_nll);
    difference_.add(position.nll - position.reference_nll);
    kl_.add(position.kl);
    delta_p_.add(delta_p);
    same_top_.add(position.same_top ? 1 : 0);
    kls_.push_back(static_cast<float>(position.kl));
    delta_ps_.push_back(static_cast<float>(delta_p));
  }
  std::string note() const {
    std::ostringstream note;
    note << "KL " << std::fixed << std::setprecision(5) << kl_.mean();
    return note.str();
  }
  DivergenceResult result() {
    DivergenceResult result;
    result.tokens = nll_.count;
    result.ppl = perplexity(nll_);
    result.reference_ppl = perplexity(reference_nll_);
    result.log_ppl_ratio = estimate(difference_);
    result.kl = estimate(kl_);
    result.kl_quantiles = quantiles(std::move(kls_));
    result.delta_p = estimate(delta_p_);
    result.rms_delta_p = std::sqrt(delta_p_.squares / static_cast<double>(delta_p_.count));
    result.delta_p_quantiles = quantiles(std::move(delta_ps_));
    result.same_top = estimate(same_top_);
    return result;
  }

 private:
  static DivergenceResult::Estimate estimate(const RunningMean& values) {
    return {values.mean(), values.standard_error()};
  }
  static DivergenceResult::Estimate perplexity(const RunningMean& nll) {
    return {std::exp(nll.mean()), std::exp(nll.mean()) * nll.standard_error()};
  }

  RunningMean nll_, reference_nll_, difference_, kl_, delta_p_, same_top_;
  std::vector<float> kls_, delta_ps_;
};

DivergenceResult measure(Model& model, Reference& reference, const Windows& windows,
                         int64_t max_batch, DType kv_dtype, ThreadPool& pool) {
  const Stopwatch watch;
  const int64_t vocab = model.config().vocab_size;
  WindowRunner runner(model, windows.context, kv_dtype);
  Progress progress("divergence", windows.count * windows.context, "tokens");
  Statistics statistics;
  std::vector<Position> positions(static_cast<size_t>(kLogitRows));
  for (int64_t index = 0; index < windows.count; ++index) {
    const int32_t* target = windows.window(index) + windows.first_scored + 1;
    for (int64_t begin = 0; begin < windows.context; begin += max_batch) {
      const int64_t end = std::min(windows.context, begin + max_batch);
      const int64_t rows = runner.run(windows, index, begin, end);
      reference.run(windows, index, begin, end);
      for (int64_t row = 0; row < rows; row += kLogitRows) {
        const int64_t count = std::min(kLogitRows, rows - row);
        const float* logits = runner.logits(row, count);
        const float* log_p = reference.log_probabilities(row, count);
        pool.parallel_for(count, [&](int64_t i, int) {
          const auto words = static_cast<size_t>(vocab);
          positions[static_cast<size_t>(i)] =
              compare({logits + i * vocab, words}, {log_p + i * vocab, words}, target[i]);
        });
        for (int64_t i = 0; i < count; ++i) statistics.add(positions[static_cast<size_t>(i)]);
        target += count;
      }
    }
    progress.update((index + 1) * windows.context, statistics.note());
  }
  DivergenceResult result = statistics.result();
  result.context = windows.context;
  result.chunks = windows.count;
  result.seconds = watch.seconds();
  return result;
}

void check_vocabulary(int64_t model, int64_t reference) {
  LOWBIT_CHECK(model == reference, "the model has ", model, " words, the reference ", reference,
               "; only models of the same vocabulary can be compared");
}

}  // namespace

DivergenceResult divergence(Model& model, Model& reference, const Tokenizer& tokenizer,
                            const std::string& text, const WindowOptions& options,
                            const fs::path& save) {
  check_vocabulary(model.config().vocab_size, reference.config().vocab_size);
  const Windows windows =
      make_windows(tokenizer, text, options, std::min(model.context(), reference.context()));
  ThreadPool pool(model.backend().threads());
  ModelReference source(reference, windows, options.kv_dtype, save, pool);
  const int64_t max_batch = std::min(model.max_batch(), reference.max_batch());
  const DivergenceResult result =
      measure(model, source, windows, max_batch, options.kv_dtype, pool);
  source.finish();
  return result;
}

void save_logits(Model& reference, const Tokenizer& tokenizer, const std::string& text,
                 const WindowOptions& options, const fs::path& path) {
  const Windows windows = make_windows(tokenizer, text, options, reference.context());
  const int64_t vocab = reference.config().vocab_size;
  ThreadPool pool(reference.backend().threads());
  WindowRunner runner(reference, windows.context, options.kv_dtype);
  fs::path partial = path;
  partial += ".partial";
  LogitsFileWriter writer(partial, windows, vocab);
  Progress progress("reference", windows.count * windows.context, "tokens");
  for (int64_t index = 0; index < windows.count; ++index) {
    for (int64_t begin = 0; begin < windows.context; begin += reference.max_batch()) {
      const int64_t end = std::min(windows.context, begin + reference.max_batch());
      const int64_t rows = runner.run(windows, index, begin, end);
      for (int64_t row = 0; row < rows; row += kLogitRows) {
        const int64_t count = std::min(kLogitRows, rows - row);
        writer.write(runner.logits(row, count), count, pool);
      }
    }
    progress.update((index + 1) * windows.context);
  }
  writer.close();
  std::error_code error;
  fs::rename(partial, path, error);
  LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot rename to ", path.string(), ": ",
                    error.message());
}

DivergenceResult divergence(Model& model, const LogitsFile& reference, DType kv_dtype) {
  check_vocabulary(model.config().vocab_size, reference.vocab_size());
  const Windows& windows = reference.windows();
  LOWBIT_CHECK(windows.context <= model.context(), "the reference's windows have ", windows.context,
               " tokens, more than the model's context of ", model.context());
  ThreadPool pool(model.backend().threads());
  FileReference source(reference, pool);
  return measure(model, source, windows, model.max_batch(), kv_dtype, pool);
}

}  // namespace lowbit
