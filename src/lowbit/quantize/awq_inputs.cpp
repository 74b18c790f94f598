#include "lowbit/quantize/awq_inputs.h"

#include <algorithm>
#include <cmath>

#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

namespace {

constexpr int64_t kPiece = 2048;       // tokens multiplied at once
constexpr int64_t kClipTokens = 4096;  // of the inputs that only clipping asks for

// Every `stride`-th of the rows of x, from `first` on, appended to pieces of kPiece rows.
void keep_rows(std::span<const float> x, int64_t cols, int64_t first, int64_t stride,
               std::vector<std::vector<float>>& pieces) {
  const auto rows = static_cast<int64_t>(x.size()) / cols;
  for (int64_t row = first; row < rows; row += stride) {
    if (pieces.empty() || static_cast<int64_t>(pieces.back().size()) >= kPiece * cols) {
      pieces.emplace_back();
    }
    pieces.back().insert(pieces.back().end(), x.begin() + row * cols, x.begin() + (row + 1) * cols);
  }
}

class Collector {
 public:
  explicit Collector(BlockJob& job) : input_(*job.original_input), pool_(job.pool) {
    result_.original = job.block;
    result_.tokens = input_.tokens();
    const int64_t all = input_.samples() * input_.tokens();
    stride_ = std::max<int64_t>(1, all / kAwqLossTokens);
    clip_stride_ = std::max<int64_t>(1, all / kClipTokens);
    const int64_t wanted =
        std::clamp<int64_t>(kAwqLossTokens / input_.tokens(), 1, input_.samples());
    for (int64_t i = 0; i < wanted; ++i) {
      result_.sequences.push_back(i * input_.samples() / wanted);
    }
    for (int i = 0; i < kBlockLinears; ++i) cols_[group_of(i)] = job.block.linears[i].cols;
    for (int group = 0; group < kLinearGroups; ++group) {
      sums_[group].resize(static_cast<size_t>(cols_[group]));
    }
  }

  void add(int64_t sample, const BlockTrace& trace, std::span<const float> output) {
    for (int group = 0; group < kLinearGroups; ++group) {
      const std::vector<float>& x = trace.inputs[group];
      add_magnitudes(x, sums_[group]);
      const bool searched = group == kDownInput || group == kOutputInput;
      const int64_t stride = searched ? stride_ : clip_stride_;
      keep_rows(x, cols_[group], first(sample, stride), stride, result_.samples[group]);
    }
    const int64_t hidden = input_.hidden_size(), from = first(sample, stride_);
    keep_rows(trace.residual, hidden, from, stride_, residuals_);
    keep_rows(output, hidden, from, stride_, outputs_);
    if (std::find(result_.sequences.begin(), result_.sequences.end(), sample) !=
        result_.sequences.end()) {
      result_.residuals.push_back(trace.residual);
    }
  }

  AwqInputs finish() {
    const auto tokens = static_cast<double>(input_.samples() * input_.tokens());
    for (int group = 0; group < kLinearGroups; ++group) {
      for (const double sum : sums_[group]) {
        result_.means[group].push_back(static_cast<float>(sum / tokens));
      }
    }
    for (size_t i = 0; i < residuals_.size(); ++i) {
      const auto count = static_cast<int64_t>(residuals_[i].size()) / input_.hidden_size();
      result_.mlp.push_back({count, std::move(residuals_[i]), std::move(outputs_[i])});
    }
    return std::move(result_);
  }

 private:
  void add_magnitudes(const std::vector<float>& x, std::vector<double>& sums) {
    constexpr int64_t kColumns = 64;  // per turn of a thread
    const auto cols = static_cast<int64_t>(sums.size());
    pool_.parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t index, int) {
      const int64_t begin = index * kColumns, end = std::min(cols, begin + kColumns);
      for (const float* row = x.data(); row < x.data() + x.size(); row += cols) {
        for (int64_t k = begin; k < end; ++k) sums[k] += std::fabs(row[k]);
      }
    });
  }

  // The first row of a sample that every stride-th row of all samples meets.
  int64_t first(int64_t sample, int64_t stride) const {
    return (stride - sample * input_.tokens() % stride) % stride;
  }

  const HiddenStates& input_;
  ThreadPool& pool_;
  AwqInputs result_;
  int64_t stride_, clip_stride_;
  std::array<int64_t, kLinearGroups> cols_{};
  std::array<std::vector<double>, kLinearGroups> sums_;
  std::vector<std::vector<float>> residuals_, outputs_;
};

}  // namespace

AwqInputs collect_awq_inputs(BlockJob& job) {
  const HiddenStates& input = *job.original_input;
  Collector collector(job);
  DecoderBlock block(job.block, job.rope, job.pool);
  BlockTrace trace;
  std::vector<float> room(static_cast<size_t>(input.tokens() * input.hidden_size()));
  for (int64_t s = 0; s < input.samples(); ++s) {
    const std::span<float> output = job.output != nullptr ? job.output->sample(s) : std::span(room);
    block.forward({1, input.tokens()}, input.sample(s), trace, output);
    collector.add(s, trace, output);
    job.progress(0.3 * static_cast<double>(s + 1) / static_cast<double>(input.samples()), "");
  }
  return collector.finish();
}

}  // namespace lowbit
