#include "lowbit/eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <optional>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/eval/log_softmax.h"

namespace lowbit {

namespace {

constexpr int64_t kLogitRows = 64;  // logits held at once: 64 x 128k words are 32 MiB

struct Protocol {
  const char* name;
  int64_t context;                           // default
  int64_t windows_needed;                    // a shorter text is refused
  bool parse_special;                        // "<s>" in the text is the token
  bool half_precision;                       // probabilities pass through fp16
  int64_t (*first_scored)(int64_t context);  // first position whose prediction counts
  std::optional<int32_t> (*first_token)(const Tokenizer& tokenizer);  // replaces each window's
};

std::optional<int32_t> keep_token(const Tokenizer&) { return std::nullopt; }

// The tokenizer adds BOS if it gives one for an empty text.
std::optional<int32_t> bos_if_added(const Tokenizer& tokenizer) {
  const std::vector<int32_t> added = tokenizer.encode("");
  const std::optional<int32_t> bos = tokenizer.bos_id();
  return bos && !added.empty() && added.front() == *bos ? bos : std::nullopt;
}

std::optional<int32_t> bos_always(const Tokenizer& tokenizer) {
  constexpr int32_t kWithoutBos = 11;  // what MixQ's evalppl puts where there is none
  return tokenizer.bos_id().value_or(kWithoutBos);
}

constexpr Protocol kProtocols[] = {
    {"hf", 2048, 1, true, false, [](int64_t) -> int64_t { return 0; }, keep_token},
    {"llama.cpp", 512, 2, false, false, [](int64_t context) { return context / 2; }, bos_if_added},
    {"mixq", 512, 1, true, true,
     [](int64_t context) { return std::min<int64_t>(512, context / 2); }, bos_always},
};

const Protocol& find_protocol(const std::string& name) {
  std::string names;
  for (const Protocol& protocol : kProtocols) {
    if (name == protocol.name) return protocol;
    names += concat(names.empty() ? "" : ", ", protocol.name);
  }
  fail(ErrorKind::kInvalidArgument, "unknown perplexity protocol \"", name, "\"; there are ",
       names);
}

// A probability that is no half but 0 would make the whole text infinitely unlikely; it counts as
// the smallest half, 2^-24.
double through_half(double nll) {
  const float probability = f16_to_f32(f32_to_f16(static_cast<float>(std::exp(-nll))));
  return -std::log(std::max(static_cast<double>(probability), 0x1p-24));
}

// Mean and its standard error over values that come one at a time.
struct Running {
  int64_t count = 0;
  double sum = 0, squares = 0;

  void add(double value) {
    ++count;
    sum += value;
    squares += value * value;
  }
  double mean() const { return sum / static_cast<double>(count); }
  double standard_error() const {
    if (count < 2) return 0;
    const double variance = squares / static_cast<double>(count) - mean() * mean();
    return std::sqrt(std::max(variance, 0.0) / static_cast<double>(count - 1));
  }
};

class Scorer {
 public:
  Scorer(Model& model, const Protocol& protocol, int64_t context, DType kv_dtype)
      : model_(model),
        protocol_(protocol),
        context_(context),
        cache_(model.make_kv_cache((context + kBlockTokens - 1) / kBlockTokens, kv_dtype)),
        pool_(model.backend().threads()) {
    block_table_.resize(static_cast<size_t>(cache_.spec.blocks));
    std::iota(block_table_.begin(), block_table_.end(), 0);
  }

  // Runs one window from position 0, max_batch tokens at a time, and scores its predictions.
  void run(const std::vector<int32_t>& window, Running& nlls) {
    for (int64_t begin = 0; begin < context_; begin += model_.max_batch()) {
      const int64_t end = std::min(context_, begin + model_.max_batch());
      StepBatch batch;
      batch.tokens.assign(window.begin() + begin, window.begin() + end);
      batch.sequences = {{0, end - begin, begin, block_table_}};
      const int64_t first = std::max(begin, protocol_.first_scored(context_));
      for (int64_t i = first; i < std::min(end, context_ - 1); ++i) {
        batch.logit_rows.push_back(static_cast<int32_t>(i - begin));
      }
      const Tensor hidden = model_.hidden_states(batch, cache_);
      for (int64_t row = 0; row < hidden.rows; row += kLogitRows) {
        Tensor part = hidden.first(std::min(hidden.rows, row + kLogitRows));
        score(rows_from(part, row), window.data() + first + row + 1, nlls);
      }
    }
  }

 private:
  static Tensor rows_from(Tensor tensor, int64_t row) {
    tensor.data = tensor.row(row);
    tensor.rows -= row;
    return tensor;
  }

  // targets: the token that follows each row of `hidden`.
  void score(const Tensor& hidden, const int32_t* targets, Running& nlls) {
    const Tensor logits = model_.logits(hidden);
    logits_.resize(static_cast<size_t>(logits.size()));
    model_.backend().copy_to_host(logits, logits_);
    std::vector<double> values(static_cast<size_t>(logits.rows));
    pool_.parallel_for(logits.rows, [&](int64_t row, int) {
      const std::span<const float> all(logits_.data() + row * logits.cols,
                                       static_cast<size_t>(logits.cols));
      values[static_cast<size_t>(row)] = negative_log_likelihood(all, targets[row]);
    });
    for (size_t row = 0; row < values.size(); ++row) {
      const double nll = values[row];
      LOWBIT_CHECK_KIND(std::isfinite(nll), ErrorKind::kCorruptFile, "the model gives token ",
                        targets[row], " a log-probability of ", -nll,
                        "; its weights are damaged or overflow");
      nlls.add(protocol_.half_precision ? through_half(nll) : nll);
    }
  }

  Model& model_;
  const Protocol& protocol_;
  int64_t context_;
  KvCache cache_;
  ThreadPool pool_;
  std::vector<int32_t> block_table_;
  std::vector<float> logits_;  // [kLogitRows][vocabulary]
};

std::string running_note(const Running& nlls) {
  std::ostringstream note;
  note << "ppl " << std::fixed << std::setprecision(3) << std::exp(nlls.mean());
  return note.str();
}

}  // namespace

std::vector<std::string> perplexity_protocols() {
  std::vector<std::string> names;
  for (const Protocol& protocol : kProtocols) names.emplace_back(protocol.name);
  return names;
}

PerplexityResult perplexity(Model& model, const Tokenizer& tokenizer, const std::string& text,
                            const PerplexityOptions& options) {
  const Protocol& protocol = find_protocol(options.protocol);
  const int64_t context = options.context > 0 ? options.context : protocol.context;
  LOWBIT_CHECK(options.context >= 0 && context >= 4 && context <= model.context(), "a window of ",
               options.context, " tokens; expected 4 to the model's context of ", model.context());
  const std::vector<int32_t> ids =
      tokenizer.encode(text, {.parse_special = protocol.parse_special});
  const auto windows = static_cast<int64_t>(ids.size()) / context;
  LOWBIT_CHECK(windows >= protocol.windows_needed, "the text has ", ids.size(),
               " tokens; protocol ", protocol.name, " needs at least ",
               protocol.windows_needed * context);

  PerplexityResult result;
  result.protocol = protocol.name;
  result.context = context;
  result.chunks = options.chunks < 0 ? windows : std::min(windows, options.chunks);
  LOWBIT_CHECK(result.chunks > 0, "chunks must be positive, or -1 for all");

  const auto start = std::chrono::steady_clock::now();
  Scorer scorer(model, protocol, context, options.kv_dtype);
  Progress progress("perplexity", result.chunks * context, "tokens");
  const std::optional<int32_t> first_token = protocol.first_token(tokenizer);
  Running all;
  for (int64_t chunk = 0; chunk < result.chunks; ++chunk) {
    const auto begin = ids.begin() + chunk * context;
    std::vector<int32_t> window(begin, begin + context);
    if (first_token) window.front() = *first_token;
    const Running before = all;
    scorer.run(window, all);
    result.chunk_nll.push_back((all.sum - before.sum) /
                               static_cast<double>(all.count - before.count));
    progress.update((chunk + 1) * context, running_note(all));
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.tokens = all.count;
  result.ppl = std::exp(all.mean());
  result.stderr_ppl = result.ppl * all.standard_error();
  result.tok_s = static_cast<double>(result.chunks * context) / result.seconds;
  return result;
}

}  // namespace lowbit
