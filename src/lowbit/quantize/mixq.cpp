#include "lowbit/quantize/mixq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/quantize/input_statistics.h"
#include "lowbit/quantize/outlier_choice.h"
#include "lowbit/quantize/rtn.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr int64_t kOutlierTokens = 4096;  // that columns are chosen by

// Runs body(row) for all rows, in parallel if the job has a pool.
template <typename Body>
void for_rows(const LinearJob& job, const Body& body) {
  if (job.pool != nullptr) {
    job.pool->parallel_for(job.rows, [&](int64_t row, int) { body(row); });
  } else {
    for (int64_t row = 0; row < job.rows; ++row) body(row);
  }
}

std::shared_ptr<const OutlierColumns> keep(const LinearJob& job,
                                           const std::vector<int32_t>& columns) {
  if (columns.empty()) return nullptr;
  auto outliers = std::make_shared<OutlierColumns>();
  outliers->columns = columns;
  QTensor& values = outliers->weight;
  values.scheme = dense_scheme(Code::kF16);
  values.rows = job.rows;
  values.cols = static_cast<int64_t>(columns.size());
  std::vector<uint8_t> bytes(static_cast<size_t>(values.rows * values.row_bytes()));
  for_rows(job, [&](int64_t row) {
    for (size_t j = 0; j < columns.size(); ++j) {
      const float weight = job.weight[static_cast<size_t>(row * job.cols + columns[j])];
      const uint16_t half = f32_to_f16(weight);
      LOWBIT_CHECK((half & 0x7c00u) != 0x7c00u, job.name, ": ", weight, " at row ", row,
                   ", column ", columns[j], " is too large for fp16");
      std::memcpy(bytes.data() + row * values.row_bytes() + static_cast<int64_t>(j) * 2, &half, 2);
    }
  });
  values.codes = Bytes::own(std::move(bytes));
  return outliers;
}

// Codes of 4 bits, for weights whose outlier columns are 0 already: the largest weights are cut off
// at 0.7 and 0.8 of the largest.
QTensor clipped_nibbles(const LinearJob& job, const QuantScheme& scheme) {
  constexpr int kSteps = 10;
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = job.rows;
  weight.cols = job.cols;
  weight.scales.resize(static_cast<size_t>(job.rows));
  std::vector<uint8_t> codes(static_cast<size_t>(job.rows * weight.row_bytes()));
  for_rows(job, [&](int64_t row) {
    const std::span<const float> values = job.weight.subspan(row * job.cols, job.cols);
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    const Grid grid{half_scale(largest, kSteps, {job.name, row}), 8};
    weight.scales[static_cast<size_t>(row)] = grid.scale;
    for (int64_t k = 0; k < job.cols; ++k) {
      pack(codes.data() + row * weight.row_bytes(), k, 4,
           static_cast<uint32_t>(code_of(values[static_cast<size_t>(k)], grid, 15)));
    }
  });
  weight.codes = Bytes::own(std::move(codes));
  return weight;
}

}  // namespace

QuantScheme mixq_module_scheme(const QuantScheme& request, const std::string& module) {
  QuantScheme scheme = request;
  if (scheme.bits != 4 || !module.ends_with("down_proj")) return scheme;
  scheme.bits = 8;
  if (scheme.input_bits != 0) scheme.input_bits = 8;
  return scheme;
}

std::vector<int32_t> outlier_columns(const std::vector<float>& ranks, int64_t count) {
  std::vector<int32_t> order(ranks.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return ranks[static_cast<size_t>(a)] < ranks[static_cast<size_t>(b)];
  });
  return {order.end() - count, order.end()};
}

QTensor quantize_with_outliers(const LinearJob& job, const QuantScheme& scheme,
                               const std::vector<int32_t>& columns, MixqScale scale) {
  QTensor weight;
  const bool searched = scale == MixqScale::kSearched;
  if (scheme.bits == 8 && !searched) {
    weight = Rtn().quantize(job, scheme);
  } else {
    std::vector<float> rest(job.weight.begin(), job.weight.end());
    for_rows(job, [&](int64_t row) {
      check_finite(job.name, job.weight.subspan(row * job.cols, job.cols), row);
      for (const int32_t column : columns) rest[static_cast<size_t>(row * job.cols + column)] = 0;
    });
    const LinearJob others{job.name, job.rows, job.cols, rest, job.pool};
    weight = searched ? Rtn(Rtn::Search::kScale).quantize(others, scheme)
                      : clipped_nibbles(others, scheme);
  }
  weight.outliers = keep(job, columns);
  return weight;
}

CalibrationNeeds MixQ::needs() const {
  const bool measures = !options_.act_scales && options_.outliers > 0;
  return {.quantized_input = false, .original_input = measures, .output = measures};
}

BlockResult MixQ::quantize(BlockJob& job) const {
  const int64_t count = options_.outliers;
  const bool measured = count > 0 && !options_.act_scales;
  std::array<std::vector<int32_t>, kLinearGroups> columns;
  if (count > 0) {
    for (int i = 0; i < kBlockLinears; ++i) {
      const BlockWeights::Linear& linear = job.block.linears[i];
      LOWBIT_CHECK(job.schemes[i].dense() || count < linear.cols, linear.name, " has ", linear.cols,
                   " columns, not enough for ", count,
                   " outliers among them; give fewer with --outliers");
    }
    const std::vector<LinearGroup> all = {kAttentionInput, kOutputInput, kMlpInput, kDownInput};
    const InputSamples inputs = measured ? sample_inputs(job, kOutlierTokens) : InputSamples{};
    const InputStatistics largest =
        measured ? InputStatistics{} : stored_maxima(job.block, all, *options_.act_scales);
    for (const LinearGroup group : all) {
      const auto cols = static_cast<int64_t>(inputs.low[group].size());
      columns[group] = !measured      ? outlier_columns(largest[group], count)
                       : cols > count ? choose_outliers(inputs.rows[group], cols, count, job.pool)
                                      : std::vector<int32_t>();  // all its linears stay dense
    }
  }
  BlockResult result;
  for (int i = 0; i < kBlockLinears; ++i) {
    const BlockWeights::Linear& linear = job.block.linears[i];
    if (job.schemes[i].dense()) continue;
    result[i] = quantize_with_outliers(
        {linear.name, linear.rows, linear.cols, linear.weight, &job.pool}, job.schemes[i],
        columns[group_of(i)], measured ? MixqScale::kSearched : MixqScale::kPublished);
  }
  return result;
}

}  // namespace lowbit
