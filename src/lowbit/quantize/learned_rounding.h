// LearnedRounding: the integer codes of one linear as a function of parameters that a gradient can
// move (SignRound, arXiv:2309.05516): for each weight an offset before rounding, for each group its
// range.
//
//   symmetric   w' = scale * clamp(round(w / scale + offset), -2^(b-1), 2^(b-1) - 1)
//               scale = first scale * stretch, 0.2 <= stretch <= 2
//   asymmetric  w' = scale * clamp(round(w / scale + offset), -zero, 2^b - 1 - zero)
//               low = min(w, 0) * shrink_low, high = max(w, 0) * shrink_high, 0 <= shrink <= 1
//               scale = (high - low) / (2^b - 1), zero = round(-low / scale)
//
// A scale is rounded to fp16, as it will be stored, before anything is computed with it. Rounding
// has the gradient of the identity, clamping none outside of its range.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/quantize/block_weights.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

class LearnedRounding {
 public:
  // The symmetric first scale is the one of least squared error, columns weighted by `importance`
  // ([cols], such as their mean squared input), among about 100 and both signs. The linear and the
  // pool must outlive this. Throws kInvalidArgument naming the linear if the scheme is not of
  // integers with a group that divides the columns, a weight is not finite, or fp16 cannot hold a
  // scale.
  LearnedRounding(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                  std::span<const float> importance, ThreadPool& pool);

  // w' for the parameters as they are. weight: [rows][cols]
  void dequantize(std::vector<float>& weight) const;
  // Moves every parameter by `rate` against the sign of its gradient, given dL/dw'.
  void descend(const std::vector<float>& gradient, float rate);
  QTensor encode() const;

 private:
  struct Grid {
    float scale, inverse;
    float low, high;  // of the rounded values; zero is -low
  };
  int64_t group_at(int64_t row, int64_t group) const { return row * groups_ + group; }
  void check() const;
  void start_row(int64_t row, std::span<const float> importance);
  Grid grid(int64_t group) const;
  void descend_group(int64_t group, const float* gradient, float rate);
  template <typename Work>
  void for_groups(const Work& work) const;

  const BlockWeights::Linear& linear_;
  QuantScheme scheme_;
  ThreadPool& pool_;
  bool symmetric_;
  int64_t size_, groups_;       // of one group; in one row
  std::vector<float> offsets_;  // [rows][cols]
  std::vector<float> first_;    // [rows][groups]: symmetric, the first scale; else min(w, 0)
  std::vector<float> second_;   // asymmetric: max(w, 0)
  std::vector<float> stretch_;  // [rows][groups]: stretch, or shrink_low
  std::vector<float> shrink_high_;
};

}  // namespace lowbit
