#include "lowbit/bench/latency.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"

namespace lowbit {

namespace {

// One sequence of random tokens. A step also fetches the logits, as generation does.
class Runner {
 public:
  Runner(Model& model, int64_t tokens, DType kv_dtype, uint64_t seed)
      : model_(model),
        cache_(model.make_kv_cache((tokens + kBlockTokens - 1) / kBlockTokens, kv_dtype)),
        logits_(static_cast<size_t>(model.config().vocab_size)),
        state_(seed) {
    block_table_.resize(static_cast<size_t>(cache_.spec.blocks));
    std::iota(block_table_.begin(), block_table_.end(), 0);
  }

  // Seconds to run `count` tokens, `batch` at a time, from position `first` on.
  double run(int64_t first, int64_t count, int64_t batch_size) {
    const Stopwatch watch;
    for (int64_t position = first; position < first + count; position += batch_size) {
      StepBatch batch;
      batch.tokens.resize(static_cast<size_t>(std::min(batch_size, first + count - position)));
      for (int32_t& id : batch.tokens) id = random_token();
      batch.sequences = {{0, batch.size(), position, block_table_}};
      const bool last = position + batch.size() == first + count;
      if (last || batch_size == 1) batch.logit_rows = {static_cast<int32_t>(batch.size() - 1)};
      const Tensor logits = model_.forward(batch, cache_);
      if (logits.rows > 0) model_.backend().copy_to_host(logits, logits_);
    }
    return watch.seconds();
  }

 private:
  int32_t random_token() {  // Knuth's MMIX generator; the high bits are the good ones
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int32_t>((state_ >> 33) % static_cast<uint64_t>(model_.config().vocab_size));
  }

  Model& model_;
  KvCache cache_;
  std::vector<int32_t> block_table_;
  std::vector<float> logits_;
  uint64_t state_;
};

}  // namespace

Rate summarize(std::vector<double> values) {
  Rate rate;
  if (values.empty()) return rate;
  const auto count = static_cast<double>(values.size());
  rate.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - rate.mean) * (value - rate.mean);
  if (values.size() > 1) rate.stddev = std::sqrt(squares / (count - 1));
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  rate.median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return rate;
}

double peak_memory_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

std::vector<LatencyRow> measure_latency(Model& model, const LatencyOptions& options) {
  LOWBIT_CHECK(options.repetitions > 0, "repetitions must be positive, not ", options.repetitions);
  LOWBIT_CHECK(!options.prompt_tokens.empty(), "no prompt length is given");
  LOWBIT_CHECK(options.depth >= 0 && options.depth <= model.context(), "a depth of ",
               options.depth, " tokens; expected 0 to the model's context of ", model.context());
  int64_t longest = options.depth + options.decode_tokens;
  for (const int64_t tokens : options.prompt_tokens) longest = std::max(longest, tokens);
  for (int64_t tokens : options.prompt_tokens) {
    LOWBIT_CHECK(std::min(tokens, options.decode_tokens) > 0 && longest <= model.context(),
                 "prompt of ", tokens, ", decode of ", options.decode_tokens,
                 " tokens behind ", options.depth, "; expected 1 to the model's context of ", model.context());
  }

  Runner runner(model, longest, options.kv_dtype, options.seed);
  const auto rows = static_cast<int64_t>(options.prompt_tokens.size());
  Progress progress("measuring", (rows + 1) * (options.repetitions + 1), "runs");
  int64_t done = 0;
  const auto measure = [&](int64_t first, int64_t tokens, int64_t batch) {
    std::vector<double> rates;
    for (int i = 0; i <= options.repetitions; ++i) {
      const double seconds = runner.run(first, tokens, batch);
      if (i > 0) rates.push_back(static_cast<double>(tokens) / seconds);
      progress.update(++done);
    }
    return summarize(rates);
  };

  if (options.depth > 0) runner.run(0, options.depth, model.max_batch());
  const Rate decode = measure(options.depth, options.decode_tokens, 1);
  std::vector<LatencyRow> table;
  for (const int64_t tokens : options.prompt_tokens) {
    LatencyRow row;
    row.prompt_tokens = tokens;
    row.decode_tokens = options.decode_tokens;
    row.depth = options.depth;
    row.repetitions = options.repetitions;
    row.prefill_tok_s = measure(0, tokens, model.max_batch());
    row.decode_tok_s = decode;
    row.weight_gb_s = static_cast<double>(model.weight_bytes()) * decode.median / 1e9;
    const double context =
        static_cast<double>(options.depth) + static_cast<double>(options.decode_tokens + 1) / 2;
    row.read_gb_s =
        row.weight_gb_s +
        context * static_cast<double>(model.config().kv_bytes_per_token(size_of(options.kv_dtype))) *
            decode.median / 1e9;
    row.peak_memory_mib = peak_memory_mib();
    table.push_back(row);
  }
  return table;
}

}  // namespace lowbit
