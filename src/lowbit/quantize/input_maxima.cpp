#include "lowbit/quantize/input_maxima.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

namespace {

// maxima[k] = the largest |x| of column k, if it was smaller.
void add_magnitudes(const std::vector<float>& x, std::vector<float>& maxima, ThreadPool& pool) {
  constexpr int64_t kColumns = 64;  // per turn of a thread
  const auto cols = static_cast<int64_t>(maxima.size());
  pool.parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t index, int) {
    const int64_t begin = index * kColumns, end = std::min(cols, begin + kColumns);
    for (const float* row = x.data(); row < x.data() + x.size(); row += cols) {
      for (int64_t k = begin; k < end; ++k) maxima[k] = std::max(maxima[k], std::fabs(row[k]));
    }
  });
}

void measure(BlockJob& job, InputMaxima& maxima) {
  const HiddenStates& input = *job.original_input;
  DecoderBlock block(job.block, job.rope, job.pool);
  BlockTrace trace;
  std::vector<float> room(static_cast<size_t>(input.tokens() * input.hidden_size()));
  for (int64_t s = 0; s < input.samples(); ++s) {
    const std::span<float> output = job.output != nullptr ? job.output->sample(s) : std::span(room);
    block.forward({1, input.tokens()}, input.sample(s), trace, output);
    for (size_t group = 0; group < maxima.size(); ++group) {
      if (!maxima[group].empty()) add_magnitudes(trace.inputs[group], maxima[group], job.pool);
    }
    job.progress(static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
}

}  // namespace

InputMaxima input_maxima(BlockJob& job, const std::array<bool, kLinearGroups>& groups,
                         const ActScales* scales) {
  InputMaxima maxima;
  for (const BlockWeights::Linear& linear : job.block.linears) {
    const LinearGroup group = group_of(static_cast<int>(&linear - job.block.linears.data()));
    if (!groups[group] || !maxima[group].empty()) continue;
    if (scales != nullptr) {
      maxima[group] = act_scales_of(*scales, linear.name, linear.cols);
    } else {
      maxima[group].resize(static_cast<size_t>(linear.cols));
    }
  }
  if (scales == nullptr) measure(job, maxima);
  return maxima;
}

}  // namespace lowbit
