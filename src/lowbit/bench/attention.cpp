#include "lowbit/bench/attention.h"

#include <algorithm>
#include <chrono>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/bench/noise.h"

namespace lowbit {

namespace {

constexpr int64_t kColdBytes = int64_t{1} << 30;  // of all layers' keys and values, at least
constexpr int64_t kMostLayers = 64;
constexpr int64_t kChunk = 1024;  // tokens that are stored at once

class Bench {
 public:
  // sequences: how many; tokens: of each.
  Bench(Backend& backend, const AttentionBenchOptions& options, int64_t sequences, int64_t tokens)
      : backend_(backend), shape_(options.shape), sequences_(sequences), tokens_(tokens) {
    const int64_t pages = (tokens + kBlockTokens - 1) / kBlockTokens * sequences;
    KvCacheSpec spec{1, shape_.kv_heads, shape_.head_dim, pages, options.kv_dtype};
    layers_ = std::clamp(kColdBytes / spec.bytes(), int64_t{2}, kMostLayers);
    if (sequences * tokens < 64) layers_ = 2;
    spec.layers = layers_;
    cache_ = backend.make_kv_cache(spec);
    const int64_t half = shape_.head_dim / 2;
    cos_ = noise(tokens, half);
    sin_ = noise(tokens, half);
    fill();
  }

  AttentionRow decode(double seconds) {
    const StepBatch batch = batch_of(tokens_ - 1, 1);
    Tensor qkv = noise(sequences_, shape_.qkv_cols());
    Tensor out = backend_.allocate(sequences_, shape_.q_cols());
    AttentionRow row = row_of(sequences_);
    row.operations *= static_cast<double>(tokens_);
    row.seconds = time_of(seconds, batch, out, [&](int64_t layer) {
      backend_.rope_and_attend(qkv, shape_, cos_, sin_, cache_, layer, out);
    });
    return row;
  }

  AttentionRow prefill(double seconds) {
    const StepBatch batch = batch_of(0, tokens_);
    const Tensor qkv = noise(tokens_, shape_.qkv_cols());
    Tensor out = backend_.allocate(tokens_, shape_.q_cols());
    AttentionRow row = row_of(0);
    const auto tokens = static_cast<double>(tokens_);
    row.operations *= tokens * (tokens + 1) / 2;
    row.seconds = time_of(seconds, batch, out, [&](int64_t layer) {
      backend_.attention(qkv, shape_, cache_, layer, out);
    });
    return row;
  }

 private:
  Tensor noise(int64_t rows, int64_t cols) {
    std::vector<float> values(static_cast<size_t>(rows * cols));
    for (float& x : values) x = 2 * (noise_.uniform() + noise_.uniform()) - 2;
    Tensor tensor = backend_.allocate(rows, cols);
    backend_.copy_from_host(values, tensor);
    return tensor;
  }

  // Blocks of sequences lie between each other's.
  StepBatch batch_of(int64_t position, int64_t count, int64_t only = -1) const {
    StepBatch batch;
    for (int64_t s = 0; s < sequences_; ++s) {
      if (only >= 0 && s != only) continue;
      SequenceSpan span{batch.size(), count, position, {}};
      for (int64_t page = 0; page * kBlockTokens < position + count; ++page) {
        span.block_table.push_back(static_cast<int32_t>(page * sequences_ + s));
      }
      batch.tokens.resize(batch.tokens.size() + static_cast<size_t>(count));
      batch.sequences.push_back(std::move(span));
    }
    return batch;
  }

  void fill() {
    const int64_t most = std::min(kChunk, tokens_);
    Tensor qkv = noise(most, shape_.qkv_cols());
    for (int64_t s = 0; s < sequences_; ++s) {
      for (int64_t position = 0; position < tokens_; position += most) {
        Tensor chunk = qkv;
        chunk.rows = std::min(most, tokens_ - position);
        const StepBatch batch = batch_of(position, chunk.rows, s);
        backend_.begin_step(batch);
        for (int64_t layer = 0; layer < layers_; ++layer) {
          backend_.rope_and_store(chunk, shape_, cos_, sin_, cache_, layer);
        }
      }
    }
  }

  // operations: of one query and one key.
  AttentionRow row_of(int64_t sequences) const {
    AttentionRow row;
    row.sequences = sequences;
    row.tokens = tokens_;
    const double many = static_cast<double>(std::max<int64_t>(sequences, 1));
    row.operations = 4.0 * static_cast<double>(shape_.q_cols()) * many;
    row.bytes = static_cast<double>(cache_.spec.token_bytes() / layers_ * tokens_) * many;
    return row;
  }

  // Median seconds of body(layer).
  double time_of(double seconds, const StepBatch& batch, const Tensor& out,
                 const std::function<void(int64_t)>& body) {
    using Clock = std::chrono::steady_clock;
    Tensor last = out;
    last.rows = 1;
    std::vector<float> row(static_cast<size_t>(last.size()));
    const auto run = [&](int64_t steps) {
      const Clock::time_point start = Clock::now();
      for (int64_t i = 0; i < steps; ++i) {
        backend_.run_step(batch, cache_, this, [&] {
          for (int64_t layer = 0; layer < layers_; ++layer) body(layer);
        });
      }
      backend_.copy_to_host(last, row);  // waits
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    constexpr int kReadings = 7;
    run(3);
    const double once = run(1);
    const auto steps = static_cast<int64_t>(std::max(1.0, seconds / kReadings / once));
    std::vector<double> times;
    for (int i = 0; i < kReadings; ++i) times.push_back(run(steps));
    std::sort(times.begin(), times.end());
    return times[kReadings / 2] / static_cast<double>(steps * layers_);
  }

  Backend& backend_;
  AttentionShape shape_;
  int64_t sequences_, tokens_, layers_ = 0;
  Noise noise_{1};
  KvCache cache_;
  Tensor cos_, sin_;
};

}  // namespace

void measure_attention(Backend& backend, const AttentionBenchOptions& options,
                       const std::function<void(const AttentionRow&)>& done) {
  const AttentionShape& shape = options.shape;
  LOWBIT_CHECK(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 &&
                   shape.head_dim > 0 && shape.head_dim % 2 == 0,
               "attention of ", shape.heads, " heads on ", shape.kv_heads, " of ", shape.head_dim,
               " is not possible");
  const auto check = [](int64_t tokens) {
    LOWBIT_CHECK(tokens > 0 && tokens <= limits::kContext, "cannot attend to ", tokens, " tokens");
  };
  for (const int64_t sequences : options.sequences) {
    for (const int64_t context : options.contexts) {
      check(sequences);
      check(context);
      done(Bench(backend, options, sequences, context).decode(options.seconds));
    }
  }
  for (const int64_t tokens : options.prompts) {
    check(tokens);
    done(Bench(backend, options, 1, tokens).prefill(options.seconds));
  }
}

}  // namespace lowbit
