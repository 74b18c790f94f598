#include "lowbit/quantize/input_statistics.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

namespace {

// Calls body(first column, last column) for some columns at a time, in parallel.
template <typename Body>
void for_columns(int64_t cols, ThreadPool& pool, const Body& body) {
  constexpr int64_t kColumns = 64;  // per turn of a thread
  pool.parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t index, int) {
    body(index * kColumns, std::min(cols, (index + 1) * kColumns));
  });
}

// Calls see(inputs of each group, sample) for each sample.
template <typename See>
void for_inputs(BlockJob& job, const See& see) {
  const HiddenStates& input = *job.original_input;
  DecoderBlock block(job.block, job.rope, job.pool);
  BlockTrace trace;
  std::vector<float> room(static_cast<size_t>(input.tokens() * input.hidden_size()));
  for (int64_t s = 0; s < input.samples(); ++s) {
    const std::span<float> output = job.output != nullptr ? job.output->sample(s) : std::span(room);
    block.forward({1, input.tokens()}, input.sample(s), trace, output);
    see(trace.inputs, s);
    job.progress(static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
}

// low[k] and high[k] widened to hold the x of column k.
void add_range(const std::vector<float>& x, std::vector<float>& low, std::vector<float>& high,
               ThreadPool& pool) {
  const auto cols = static_cast<int64_t>(low.size());
  for_columns(cols, pool, [&](int64_t begin, int64_t end) {
    for (const float* row = x.data(); row < x.data() + x.size(); row += cols) {
      for (int64_t k = begin; k < end; ++k) {
        low[k] = std::min(low[k], row[k]);
        high[k] = std::max(high[k], row[k]);
      }
    }
  });
}

int64_t columns_of(const BlockWeights& block, LinearGroup group) {
  constexpr int kFirst[kLinearGroups] = {kQ, kO, kGate, kDown};
  return block.linears[kFirst[group]].cols;
}

}  // namespace

InputSamples sample_inputs(BlockJob& job, int64_t tokens) {
  InputSamples result;
  for (const LinearGroup group : {kAttentionInput, kOutputInput, kMlpInput, kDownInput}) {
    const auto cols = static_cast<size_t>(columns_of(job.block, group));
    result.low[group].assign(cols, INFINITY);
    result.high[group].assign(cols, -INFINITY);
  }
  const int64_t length = job.original_input->tokens();
  const int64_t stride = std::max<int64_t>(1, job.original_input->samples() * length / tokens);
  for_inputs(job, [&](const auto& inputs, int64_t sample) {
    for (size_t group = 0; group < inputs.size(); ++group) {
      const std::vector<float>& x = inputs[group];
      std::vector<float>& low = result.low[group];
      add_range(x, low, result.high[group], job.pool);
      const auto cols = static_cast<int64_t>(low.size());
      // Every stride-th token of all samples, so the first of a sample, which is unlike others, has
      // no more than its share.
      for (int64_t t = (stride - sample * length % stride) % stride; t < length; t += stride) {
        const float* row = x.data() + t * cols;
        result.rows[group].insert(result.rows[group].end(), row, row + cols);
      }
    }
  });
  return result;
}

InputStatistics stored_maxima(const BlockWeights& block, const std::vector<LinearGroup>& groups,
                              const ActScales& scales) {
  InputStatistics maxima;
  for (const LinearGroup group : groups) {
    for (int i = 0; i < kBlockLinears; ++i) {
      const BlockWeights::Linear& linear = block.linears[i];
      if (group_of(i) != group || !maxima[group].empty()) continue;
      maxima[group] = act_scales_of(scales, linear.name, linear.cols);
    }
  }
  return maxima;
}

}  // namespace lowbit
