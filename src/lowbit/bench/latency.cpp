#include "lowbit/bench/latency.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/bench/noise.h"

namespace lowbit {

namespace {

// Some sequences of random tokens. A step also finds the likeliest token of each, or fetches the
// logits, as generation does.
class Runner {
 public:
  Runner(Model& model, int64_t sequences, int64_t tokens, const LatencyOptions& options)
      : model_(model),
        blocks_((tokens + kBlockTokens - 1) / kBlockTokens),
        cache_(model.make_kv_cache(sequences * blocks_, options.kv_dtype)),
        noise_(options.seed) {
    for (int64_t i = 0; i < sequences; ++i) {
      block_tables_.emplace_back(static_cast<size_t>(blocks_));
      std::iota(block_tables_.back().begin(), block_tables_.back().end(), i * blocks_);
    }
  }

  // Seconds to run `count` tokens of each sequence, `chunk` at a time, from position `first` on.
  double run(int64_t first, int64_t count, int64_t chunk) {
    const Stopwatch watch;
    const int64_t end = first + count;
    for (int64_t position = first; position < end; position += chunk) {
      const int64_t size = std::min(chunk, end - position);
      StepBatch batch;
      for (const std::vector<int32_t>& table : block_tables_) {
        batch.sequences.push_back({batch.size(), size, position, table});
        for (int64_t i = 0; i < size; ++i) batch.tokens.push_back(random_token());
        const bool last = position + size == end;
        if (last || chunk == 1) batch.logit_rows.push_back(static_cast<int32_t>(batch.size() - 1));
      }
      const Tensor logits = model_.forward(batch, cache_);
      if (logits.rows > 0) finish_step(logits);
    }
    return watch.seconds();
  }

 private:
  void finish_step(const Tensor& logits) {
    queries_.assign(static_cast<size_t>(logits.rows), {LogitQuery::Kind::kHighest});
    answers_.resize(queries_.size());
    if (model_.backend().answer(logits, queries_, answers_)) return;
    logits_.resize(static_cast<size_t>(logits.size()));
    model_.backend().copy_to_host(logits, logits_);
  }
  int32_t random_token() {
    return static_cast<int32_t>((noise_.next() >> 33) %
                                static_cast<uint64_t>(model_.config().vocab_size));
  }

  Model& model_;
  int64_t blocks_;  // of a sequence
  KvCache cache_;
  std::vector<std::vector<int32_t>> block_tables_;
  std::vector<float> logits_;
  std::vector<LogitQuery> queries_;
  std::vector<LogitAnswer> answers_;
  Noise noise_;
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

namespace {

void check(const Model& model, int64_t prompt, const LatencyOptions& options) {
  LOWBIT_CHECK(options.repetitions > 0, "repetitions must be positive, not ", options.repetitions);
  const int64_t decoded = options.depth + options.decode_tokens;
  LOWBIT_CHECK(std::min(prompt, options.decode_tokens) > 0 && options.depth >= 0 &&
                   std::max(prompt, decoded) <= model.context(),
               "prompt of ", prompt, ", decode of ", options.decode_tokens, " tokens behind ",
               options.depth, "; expected 1 to the model's context of ", model.context());
}

// Of runs over `count` tokens of each sequence behind `first`, `total` in all; the first run is not
// counted.
Rate measure_rate(Runner& runner, int64_t first, int64_t count, int64_t total, int64_t chunk,
                  int repetitions, Progress& progress, int64_t& done) {
  std::vector<double> rates;
  for (int i = 0; i <= repetitions; ++i) {
    const double seconds = runner.run(first, count, chunk);
    if (i > 0) rates.push_back(static_cast<double>(total) / seconds);
    progress.update(++done);
  }
  return summarize(rates);
}

}  // namespace

std::vector<LatencyRow> measure_latency(Model& model, const LatencyOptions& options) {
  LOWBIT_CHECK(!options.prompt_tokens.empty(), "no prompt length is given");
  int64_t longest = options.depth + options.decode_tokens;
  for (const int64_t tokens : options.prompt_tokens) longest = std::max(longest, tokens);
  for (const int64_t tokens : options.prompt_tokens) check(model, tokens, options);

  Runner runner(model, 1, longest, options);
  const auto rows = static_cast<int64_t>(options.prompt_tokens.size());
  Progress progress("measuring", (rows + 1) * (options.repetitions + 1), "runs");
  int64_t done = 0;
  const auto measure = [&](int64_t first, int64_t tokens, int64_t chunk) {
    return measure_rate(runner, first, tokens, tokens, chunk, options.repetitions, progress, done);
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
        context * static_cast<double>(model.config().kv_cache(1, options.kv_dtype).token_bytes()) *
            decode.median / 1e9;
    row.peak_memory_mib = peak_memory_mib();
    table.push_back(row);
  }
  return table;
}

std::vector<BatchedRow> measure_batched(Model& model, const LatencyOptions& options) {
  check(model, 1, options);
  const auto count = static_cast<int64_t>(options.sequences.size());
  Progress progress("measuring", count * (options.repetitions + 1), "runs");
  int64_t done = 0;
  std::vector<BatchedRow> table;
  for (const int64_t sequences : options.sequences) {
    LOWBIT_CHECK(sequences > 0 && sequences <= model.max_batch(), sequences,
                 " sequences; expected 1 to the ", model.max_batch(), " tokens of a batch");
    Runner runner(model, sequences, options.decode_tokens, options);
    table.push_back({sequences, measure_rate(runner, 0, options.decode_tokens,
                                             sequences * options.decode_tokens, 1,
                                             options.repetitions, progress, done)});
  }
  return table;
}

}  // namespace lowbit
