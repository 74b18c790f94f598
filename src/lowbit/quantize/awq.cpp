#include "lowbit/quantize/awq.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/awq_inputs.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rtn.h"

namespace lowbit {

namespace {

double squared_difference(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    sum += difference * difference;
  }
  return sum;
}

void divide(std::vector<float>& values, std::span<const float> scales) {
  for (size_t k = 0; k < values.size(); ++k) values[k] /= scales[k];
}

void divide_rows(BlockWeights::Linear& linear, std::span<const float> scales) {
  for (int64_t row = 0; row < linear.rows; ++row) {
    float* weights = linear.weight.data() + row * linear.cols;
    for (int64_t k = 0; k < linear.cols; ++k) weights[k] /= scales[row];
  }
  if (!linear.bias.empty()) divide(linear.bias, scales);
}

void multiply_columns(BlockWeights::Linear& linear, std::span<const float> scales) {
  for (int64_t row = 0; row < linear.rows; ++row) {
    float* weights = linear.weight.data() + row * linear.cols;
    for (int64_t k = 0; k < linear.cols; ++k) weights[k] *= scales[k];
  }
}

// One block while its scales are searched. Each search sees the original weights elsewhere: what
// has been folded already changes nothing that the block computes.
class Search {
 public:
  Search(BlockJob& job, const AwqOptions& options)
      : job_(job),
        options_(options),
        inputs_(collect_awq_inputs(job)),
        trial_(job.block, job.rope, job.pool) {}

  void run() {
    const int steps = 4 * options_.grid;
    int step = 0;
    const auto report = [&] { job_.progress(0.3 + 0.6 * step++ / steps, ""); };
    apply(
        kAttentionInput,
        best(
            kAttentionInput, [&](std::span<const float> s) { return attention_loss(s); }, report));
    if (job_.block.linears[kV].rows == job_.block.linears[kO].cols) {
      apply(
          kOutputInput,
          best(
              kOutputInput, [&](std::span<const float> s) { return linear_loss(kO, s); }, report));
    }
    apply(kMlpInput, best(
                         kMlpInput, [&](std::span<const float> s) { return mlp_loss(s); }, report));
    apply(kDownInput,
          best(
              kDownInput, [&](std::span<const float> s) { return linear_loss(kDown, s); }, report));
  }

  // After run(): q and k, whose products go through a softmax, keep their range.
  void clip() {
    for (const int i : {kV, kO, kGate, kUp, kDown}) {
      const QuantScheme& scheme = job_.schemes[i];
      if (scheme.dense() || scheme.group_size > kAwqClipGroup) continue;
      awq_clip(job_.block.linears[i], scheme, products_of(i), job_.pool);
    }
  }

 private:
  using Linear = BlockWeights::Linear;

  std::vector<int> members(LinearGroup group) const {
    std::vector<int> members;
    for (int i = 0; i < kBlockLinears; ++i) {
      if (group_of(i) == group && !job_.schemes[i].dense()) members.push_back(i);
    }
    return members;
  }

  // Scales of least loss; empty if the group has nothing to round, or no ratio gave a finite loss.
  template <typename Loss, typename Report>
  std::vector<float> best(LinearGroup group, const Loss& loss, const Report& report) {
    std::vector<const Linear*> linears;
    for (const int i : members(group)) linears.push_back(&job_.block.linears[i]);
    if (linears.empty()) return {};
    const int64_t group_size = job_.schemes[members(group)[0]].group_size;
    const std::vector<float> w_means = awq_weight_means(linears, group_size);
    std::vector<float> best;
    double least = INFINITY;
    for (int step = 0; step < options_.grid; ++step) {
      const double ratio = static_cast<double>(step) / options_.grid;
      const std::vector<float> scales =
          awq_scales(inputs_.means[group], w_means, ratio, options_.duo_scaling);
      const double now = loss(std::span<const float>(scales));
      if (now < least) {
        least = now;
        best = scales;
      }
      report();
    }
    return best;
  }

  void round_members(LinearGroup group, std::span<const float> scales) {
    for (const int i : members(group)) {
      trial_.weights().linears[i].weight =
          awq_rounded(original().linears[i], job_.schemes[i], scales, job_.pool);
    }
  }
  void restore_members(LinearGroup group) {
    for (const int i : members(group)) {
      trial_.weights().linears[i].weight = original().linears[i].weight;
    }
  }
  // The block as it came: job_.block has scales folded into it by and by.
  const BlockWeights& original() const { return inputs_.original; }

  double attention_loss(std::span<const float> scales) {
    round_members(kAttentionInput, scales);
    double loss = 0;
    for (size_t s = 0; s < inputs_.sequences.size(); ++s) {
      trial_.attention({1, inputs_.tokens}, job_.original_input->sample(inputs_.sequences[s]),
                       trace_);
      loss += squared_difference(trace_.residual, inputs_.residuals[s]);
    }
    restore_members(kAttentionInput);
    return loss;
  }

  double mlp_loss(std::span<const float> scales) {
    round_members(kMlpInput, scales);
    double loss = 0;
    for (const AwqTokens& tokens : inputs_.mlp) {
      trace_.batch = {tokens.count, 1};  // each on its own
      trace_.residual = tokens.residual;
      output_.resize(tokens.output.size());
      trial_.mlp(trace_, output_);
      loss += squared_difference(output_, tokens.output);
    }
    restore_members(kMlpInput);
    return loss;
  }

  // Of the linear's own output.
  double linear_loss(int index, std::span<const float> scales) {
    const Linear& linear = original().linears[index];
    std::vector<float> difference = awq_rounded(linear, job_.schemes[index], scales, job_.pool);
    for (size_t i = 0; i < difference.size(); ++i) difference[i] -= linear.weight[i];
    double loss = 0;
    for (const std::vector<float>& x : inputs_.samples[group_of(index)]) {
      const auto tokens = static_cast<int64_t>(x.size()) / linear.cols;
      output_.resize(static_cast<size_t>(tokens * linear.rows));
      gemm_.multiply(tokens, linear.rows, linear.cols, cpu::rows_of(x.data(), linear.cols),
                     cpu::transposed(difference.data(), linear.cols), output_.data(), linear.rows);
      for (const float value : output_) loss += static_cast<double>(value) * value;
    }
    return loss;
  }

  void apply(LinearGroup group, const std::vector<float>& scales) {
    if (scales.empty()) return;
    BlockWeights& block = job_.block;
    switch (group) {
      case kAttentionInput:
        divide(block.input_norm, scales);
        break;
      case kOutputInput:
        divide_rows(block.linears[kV], scales);
        break;
      case kMlpInput:
        divide(block.post_attention_norm, scales);
        break;
      case kDownInput:
        divide_rows(block.linears[kUp], scales);
        break;
    }
    for (int i = 0; i < kBlockLinears; ++i) {
      if (group_of(i) == group) multiply_columns(block.linears[i], scales);
    }
    folded_[group] = scales;
  }

  // Of the inputs as they are after folding, group by group of columns.
  std::vector<std::vector<float>> products_of(int index) {
    const LinearGroup group = group_of(index);
    const int64_t cols = job_.block.linears[index].cols;
    const int64_t size = job_.schemes[index].group_size;
    std::vector<std::vector<float>> products(static_cast<size_t>(cols / size));
    for (std::vector<float>& square : products) square.resize(static_cast<size_t>(size * size));
    for (std::vector<float> x : inputs_.samples[group]) {
      const auto tokens = static_cast<int64_t>(x.size()) / cols;
      if (!folded_[group].empty()) {
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t k = 0; k < cols; ++k) x[t * cols + k] /= folded_[group][k];
        }
      }
      for (int64_t g = 0; g < cols / size; ++g) {
        gemm_.multiply(size, size, tokens, cpu::transposed(x.data() + g * size, cols),
                       cpu::rows_of(x.data() + g * size, cols), products[g].data(), size, true);
      }
    }
    return products;
  }

  BlockJob& job_;
  const AwqOptions& options_;
  AwqInputs inputs_;
  DecoderBlock trial_;
  BlockTrace trace_;
  cpu::Gemm gemm_{&job_.pool};
  std::vector<float> output_;
  std::array<std::vector<float>, kLinearGroups> folded_;  // scales, by group; empty: none
};

}  // namespace

CalibrationNeeds Awq::needs() const {
  return {.quantized_input = false, .original_input = true, .output = true};
}

BlockResult Awq::quantize(BlockJob& job) const {
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = job.block.linears[i];
    for (int64_t row = 0; row < linear.rows; ++row) {
      check_finite(linear.name, std::span(linear.weight).subspan(row * linear.cols, linear.cols),
                   row);
    }
  }
  Search search(job, options_);
  search.run();
  if (options_.clip) search.clip();
  BlockResult result;
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = job.block.linears[i];
    if (job.schemes[i].dense()) continue;
    result[i] = Rtn().quantize({linear.name, linear.rows, linear.cols, linear.weight, &job.pool},
                               job.schemes[i]);
  }
  return result;
}

}  // namespace lowbit
