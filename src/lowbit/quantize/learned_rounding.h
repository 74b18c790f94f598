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

// The parameters, as they are kept between two passes of learning. All flat.
struct RoundingState {
  std::vector<float> offsets;              // [rows][cols]
  std::vector<float> first, stretch;       // [rows][groups]
  std::vector<float> second, shrink_high;  // the same; empty if symmetric
};

// One step of Adam (Kingma and Ba 2014, arXiv:1412.6980).
struct AdamStep {
  int64_t number = 1;  // from 1 on
  float rate = 0;      // of offsets
  float range_rate = 0;
};

class LearnedRounding {
 public:
  // Ranges start where the squared error is least, columns weighted by `importance` ([cols], such
  // as their mean squared input): among about 100 symmetric scales, or both ends shrunk together by
  // up to a half. The linear and the pool must outlive this. Throws kInvalidArgument naming the
  // linear if the scheme is not of integers with a group that divides the columns, a weight is not
  // finite, or fp16 cannot hold a scale.
  LearnedRounding(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                  std::span<const float> importance, ThreadPool& pool);

  // Goes on from a state; throws kCorruptFile if it is of another shape.
  LearnedRounding(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                  RoundingState state, ThreadPool& pool);
  const RoundingState& state() const { return state_; }

  // w' for the parameters as they are. weight: [rows][cols]
  void dequantize(std::vector<float>& weight) const;
  // Moves every parameter by `rate` against the sign of its gradient, given dL/dw'.
  void descend(const std::vector<float>& gradient, float rate);
  // Moves them by a step of Adam instead, whose moments begin with the first call.
  void adam(const std::vector<float>& gradient, const AdamStep& step);
  QTensor encode() const;

 private:
  struct Grid {
    float scale, inverse;
    float low, high;  // of the rounded values; zero is -low
  };
  // dL/d(parameter) of a group's range.
  struct RangeSlopes {
    float stretch = 0, shrink_high = 0;
  };
  struct Moments {
    std::vector<float> mean, square;
  };
  int64_t group_at(int64_t row, int64_t group) const { return row * groups_ + group; }
  void check() const;
  void start_row(int64_t row, std::span<const float> importance);
  void shrink_range(const float* w, const float* importance, int64_t group);
  Grid grid(int64_t group) const;
  RangeSlopes range_slopes(int64_t group, const Grid& g, const float* gradient) const;
  void move_range(int64_t group, float stretch, float shrink_high);
  void descend_group(int64_t group, const float* gradient, float rate);
  void adam_group(int64_t group, const float* gradient, const AdamStep& step);
  template <typename Work>
  void for_groups(const Work& work) const;

  const BlockWeights::Linear& linear_;
  QuantScheme scheme_;
  ThreadPool& pool_;
  bool symmetric_;
  int64_t size_, groups_;  // of one group; in one row
  RoundingState state_;
  // Of Adam; empty until its first step.
  Moments offset_moments_, stretch_moments_, shrink_moments_;
};

}  // namespace lowbit
