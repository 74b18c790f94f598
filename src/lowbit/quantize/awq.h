// AWQ, activation-aware weight quantization (Lin et al. 2023, arXiv:2306.00978). Input columns that
// carry large activations are scaled up before rounding, and the operation before is scaled down by
// as much, so that the block computes the same:
//
//   input_norm -> q, k, v    v -> o    post_attention_norm -> gate, up    up -> down
//
// (v -> o only where both have as many channels, that is without grouped queries.) Scales are
// s = x^r / w^(1 - r) of the mean input and weight magnitudes of a column, r chosen on a grid for
// the least squared error of the attention's, the MLP's, or the linear's output. Then the range of
// each group is clipped to where its own products have the least error, and weights are rounded to
// nearest.
#pragma once

#include <span>
#include <vector>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/method_options.h"

namespace lowbit {

class Awq final : public BlockQuantizer {
 public:
  explicit Awq(const AwqOptions& options) : options_(options) {}

  CalibrationNeeds needs() const override;
  BlockResult quantize(BlockJob& job) const override;

 private:
  AwqOptions options_;
};

// Mean over all rows of `linears` (same columns) of |w| over the largest |w| of its group. [cols]
std::vector<float> awq_weight_means(std::span<const BlockWeights::Linear* const> linears,
                                    int64_t group_size);

// Scales of the columns for one ratio r; the geometric mean of their extremes is 1. Without
// `duo_scaling`, weights are left out: s = x^r. x_means, w_means: [cols]
std::vector<float> awq_scales(std::span<const float> x_means, std::span<const float> w_means,
                              double ratio, bool duo_scaling);

// round(W * s) / s on the grids of the scheme, as fp32. scales: [cols]
std::vector<float> awq_rounded(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                               std::span<const float> scales, ThreadPool& pool);

// Clamps each group of each row to the range, of ten down to 0.55 of the largest magnitude, for
// which the products of the rounded group have the least squared error. products: for each group,
// [group_size][group_size] sums of x * x^T. Groups must divide the columns.
void awq_clip(BlockWeights::Linear& linear, const QuantScheme& scheme,
              std::span<const std::vector<float>> products, ThreadPool& pool);

}  // namespace lowbit
