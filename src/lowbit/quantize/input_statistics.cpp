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

// maxima[k] = the largest |x| of column k, if it was smaller.
void add_magnitudes(const std::vector<float>& x, std::vector<float>& maxima, ThreadPool& pool) {
  const auto cols = static_cast<int64_t>(maxima.size());
  for_columns(cols, pool, [&](int64_t begin, int64_t end) {
    for (const float* row = x.data(); row < x.data() + x.size(); row += cols) {
      for (int64_t k = begin; k < end; ++k) maxima[k] = std::max(maxima[k], std::fabs(row[k]));
    }
  });
}

// sums[k] += (x[k]^2 / mean of x^2)^2 of each token
void add_prominence(const std::vector<float>& x, std::vector<float>& sums, ThreadPool& pool) {
  const auto cols = static_cast<int64_t>(sums.size());
  std::vector<float> inverses;  // of each token's mean square
  for (const float* row = x.data(); row < x.data() + x.size(); row += cols) {
    double squares = 0;
    for (int64_t k = 0; k < cols; ++k) squares += static_cast<double>(row[k]) * row[k];
    inverses.push_back(squares > 0 ? static_cast<float>(static_cast<double>(cols) / squares) : 0);
  }
  for_columns(cols, pool, [&](int64_t begin, int64_t end) {
    const float* row = x.data();
    for (const float inverse : inverses) {
      for (int64_t k = begin; k < end; ++k) {
        const float share = row[k] * row[k] * inverse;
        sums[k] += share * share;
      }
      row += cols;
    }
  });
}

// Calls add(inputs, statistic) with the inputs of each sample, for each statistic that is not
// empty.
template <typename Add>
void measure(BlockJob& job, InputStatistics& statistics, const Add& add) {
  const HiddenStates& input = *job.original_input;
  DecoderBlock block(job.block, job.rope, job.pool);
  BlockTrace trace;
  std::vector<float> room(static_cast<size_t>(input.tokens() * input.hidden_size()));
  for (int64_t s = 0; s < input.samples(); ++s) {
    const std::span<float> output = job.output != nullptr ? job.output->sample(s) : std::span(room);
    block.forward({1, input.tokens()}, input.sample(s), trace, output);
    for (size_t group = 0; group < statistics.size(); ++group) {
      if (!statistics[group].empty()) add(trace.inputs[group], statistics[group], job.pool);
    }
    job.progress(static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
}

int64_t columns_of(const BlockWeights& block, LinearGroup group) {
  constexpr int kFirst[kLinearGroups] = {kQ, kO, kGate, kDown};
  return block.linears[kFirst[group]].cols;
}

}  // namespace

InputStatistics input_maxima(BlockJob& job, const std::vector<LinearGroup>& groups) {
  InputStatistics maxima;
  for (const LinearGroup group : groups) maxima[group].resize(columns_of(job.block, group));
  measure(job, maxima, add_magnitudes);
  return maxima;
}

InputStatistics input_prominence(BlockJob& job) {
  InputStatistics sums;
  for (const LinearGroup group : {kAttentionInput, kOutputInput, kMlpInput, kDownInput}) {
    sums[group].resize(columns_of(job.block, group));
  }
  measure(job, sums, add_prominence);
  return sums;
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
