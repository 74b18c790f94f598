#include "lowbit/quantize/hessian.h"

#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

namespace {

bool wanted(const BlockJob& job, int group) {
  for (int i = 0; i < kBlockLinears; ++i) {
    if (group_of(i) == group && !job.schemes[i].dense()) return true;
  }
  return false;
}

}  // namespace

void Hessian::add(const float* x, int64_t tokens, cpu::Gemm& gemm, ThreadPool& pool) {
  values.resize(static_cast<size_t>(cols * cols));
  products_.resize(values.size());
  gemm.multiply_self(cols, tokens, cpu::transposed(x, cols), products_.data());
  pool.parallel_for(cols, [&](int64_t i, int) {
    for (int64_t j = 0; j <= i; ++j) values[i * cols + j] += products_[i * cols + j];
  });
}

std::array<Hessian, kLinearGroups> block_hessians(BlockJob& job) {
  std::array<Hessian, kLinearGroups> hessians;
  for (int i = 0; i < kBlockLinears; ++i) hessians[group_of(i)].cols = job.block.linears[i].cols;
  const HiddenStates& input = *job.quantized_input;
  DecoderBlock block(job.block, job.rope, job.pool);
  cpu::Gemm gemm(&job.pool);
  BlockTrace trace;
  for (int64_t s = 0; s < input.samples(); ++s) {
    block.attention({1, input.tokens()}, input.sample(s), trace);
    block.activate(trace);
    for (int group = 0; group < kLinearGroups; ++group) {
      if (!wanted(job, group)) continue;
      hessians[group].add(trace.inputs[group].data(), input.tokens(), gemm, job.pool);
    }
    job.progress(static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
  return hessians;
}

}  // namespace lowbit
