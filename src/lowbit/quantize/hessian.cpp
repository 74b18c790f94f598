#include "lowbit/quantize/hessian.h"

#include <algorithm>

#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

namespace {

constexpr int64_t kStrip = 192;  // rows of the product held at once

bool wanted(const BlockJob& job, int group) {
  for (int i = 0; i < kBlockLinears; ++i) {
    if (group_of(i) == group && !job.schemes[i].dense()) return true;
  }
  return false;
}

}  // namespace

void Hessian::add(const float* x, int64_t tokens, cpu::Gemm& gemm) {
  values.resize(static_cast<size_t>(cols * cols));
  std::vector<float> strip;
  for (int64_t begin = 0; begin < cols; begin += kStrip) {
    const int64_t end = std::min(cols, begin + kStrip);
    strip.resize(static_cast<size_t>((end - begin) * end));
    gemm.multiply(end - begin, end, tokens, cpu::transposed(x + begin, cols), cpu::rows_of(x, cols),
                  strip.data(), end);
    for (int64_t i = begin; i < end; ++i) {
      double* row = values.data() + i * cols;
      const float* part = strip.data() + (i - begin) * end;
      for (int64_t j = 0; j <= i; ++j) row[j] += part[j];
    }
  }
}

std::array<Hessian, kLinearGroups> block_hessians(BlockJob& job) {
  std::array<Hessian, kLinearGroups> hessians;
  for (int i = 0; i < kBlockLinears; ++i) hessians[group_of(i)].cols = job.block.linears[i].cols;
  const HiddenStates& input = *job.quantized_input;
  DecoderBlock block(job.block, job.rope, job.pool);
  cpu::Gemm gemm(&job.pool);
  BlockTrace trace;
  std::vector<float> output(static_cast<size_t>(input.tokens() * input.hidden_size()));
  for (int64_t s = 0; s < input.samples(); ++s) {
    block.forward({1, input.tokens()}, input.sample(s), trace, output);
    for (int group = 0; group < kLinearGroups; ++group) {
      if (!wanted(job, group)) continue;
      hessians[group].add(trace.inputs[group].data(), input.tokens(), gemm);
    }
    job.progress(static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
  return hessians;
}

}  // namespace lowbit
