// The parts of AWQ that look at one linear, or a few with the same input.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/quantize/awq.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

constexpr int kClipSteps = 10;  // of kClipGrid: down to 0.55
constexpr int kClipGrid = 20;

// Replaces a group by the nearest points of its grid.
void round_group(std::span<float> group, const QuantScheme& scheme, const GroupPlace& place) {
  const Grid grid = group_grid(group, scheme.bits, scheme.zero, place);
  const float largest = static_cast<float>((1 << scheme.bits) - 1);
  for (float& weight : group) weight = value_of(code_of(weight, grid, largest), grid);
}

// d^T P d
float product_error(std::span<const float> d, const std::vector<float>& products) {
  const size_t size = d.size();
  float error = 0;
  for (size_t i = 0; i < size; ++i) {
    constexpr size_t kLanes = 8;
    float lanes[kLanes] = {};
    const float* row = products.data() + i * size;
    size_t j = 0;
    for (; j + kLanes <= size; j += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += row[j + lane] * d[j + lane];
    }
    float sum = 0;
    for (; j < size; ++j) sum += row[j] * d[j];
    for (const float lane : lanes) sum += lane;
    error += d[i] * sum;
  }
  return error;
}

void clip_group(std::span<float> group, const QuantScheme& scheme, const GroupPlace& place,
                const std::vector<float>& products) {
  float largest = 0;
  for (const float weight : group) largest = std::max(largest, std::fabs(weight));
  std::vector<float> rounded(group.size());
  float best = largest, least = INFINITY;
  for (int step = 0; step < kClipSteps; ++step) {
    const float bound = largest * (1 - static_cast<float>(step) / kClipGrid);
    for (size_t i = 0; i < group.size(); ++i) rounded[i] = std::clamp(group[i], -bound, bound);
    round_group(rounded, scheme, place);
    for (size_t i = 0; i < group.size(); ++i) rounded[i] -= group[i];
    const float error = product_error(rounded, products);
    if (error < least) {
      least = error;
      best = bound;
    }
  }
  for (float& weight : group) weight = std::clamp(weight, -best, best);
}

}  // namespace

std::vector<float> awq_weight_means(std::span<const BlockWeights::Linear* const> linears,
                                    int64_t group_size) {
  const int64_t cols = linears[0]->cols;
  std::vector<double> sums(static_cast<size_t>(cols));
  int64_t rows = 0;
  for (const BlockWeights::Linear* linear : linears) {
    rows += linear->rows;
    for (int64_t begin = 0; begin < linear->rows * cols; begin += group_size) {
      const float* group = linear->weight.data() + begin;
      float largest = 0;
      for (int64_t i = 0; i < group_size; ++i) largest = std::max(largest, std::fabs(group[i]));
      double* column = sums.data() + begin % cols;
      for (int64_t i = 0; i < group_size; ++i) column[i] += std::fabs(group[i]) / (largest + 1e-6f);
    }
  }
  std::vector<float> means(sums.size());
  for (size_t k = 0; k < sums.size(); ++k) {
    means[k] = static_cast<float>(sums[k] / static_cast<double>(rows));
  }
  return means;
}

std::vector<float> awq_scales(std::span<const float> x_means, std::span<const float> w_means,
                              double ratio, bool duo_scaling) {
  std::vector<float> scales(x_means.size());
  const auto r = static_cast<float>(ratio);
  float low = INFINITY, high = 0;
  for (size_t k = 0; k < scales.size(); ++k) {
    const float weight = duo_scaling ? std::pow(w_means[k], 1 - r) + 1e-4f : 1.f;
    scales[k] = std::max(std::pow(x_means[k], r) / weight, 1e-4f);
    low = std::min(low, scales[k]);
    high = std::max(high, scales[k]);
  }
  const float middle = std::sqrt(high * low);
  for (float& scale : scales) {
    scale /= middle;
    if (!std::isfinite(scale) || scale == 0) scale = 1;
  }
  return scales;
}

std::vector<float> awq_rounded(const BlockWeights::Linear& linear, const QuantScheme& scheme,
                               std::span<const float> scales, ThreadPool& pool) {
  const int64_t cols = linear.cols, size = scheme.group_size;
  std::vector<float> rounded(linear.weight.size());
  pool.parallel_for(linear.rows, [&](int64_t row, int) {
    const float* from = linear.weight.data() + row * cols;
    float* to = rounded.data() + row * cols;
    for (int64_t k = 0; k < cols; ++k) to[k] = from[k] * scales[k];
    for (int64_t k = 0; k < cols; k += size) {
      round_group({to + k, static_cast<size_t>(size)}, scheme, {linear.name, row});
    }
    for (int64_t k = 0; k < cols; ++k) to[k] /= scales[k];
  });
  return rounded;
}

void awq_clip(BlockWeights::Linear& linear, const QuantScheme& scheme,
              std::span<const std::vector<float>> products, ThreadPool& pool) {
  const int64_t size = scheme.group_size, groups = linear.cols / size;
  pool.parallel_for(linear.rows, [&](int64_t row, int) {
    for (int64_t g = 0; g < groups; ++g) {
      float* group = linear.weight.data() + row * linear.cols + g * size;
      clip_group({group, static_cast<size_t>(size)}, scheme, {linear.name, row},
                 products[static_cast<size_t>(g)]);
    }
  });
}

}  // namespace lowbit
