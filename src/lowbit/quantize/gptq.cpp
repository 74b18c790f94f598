#include "lowbit/quantize/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/quantize/cholesky.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/device_blocks.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/quantize/hessian.h"
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/quantize/scale_search.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr int64_t kRows = 16;      // of the weight, side by side in vector registers
constexpr int kDampingTries = 12;  // each doubles it

void check_job(const LinearJob& job, const QuantScheme& scheme) {
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.bits >= 2 && scheme.bits <= 8 &&
                   scheme.group_rows == 1 && scheme.zero != Zero::kOffset,
               job.name, ": gptq makes integer codes of 2 to 8 bits, not ", name_of(scheme));
  LOWBIT_CHECK(
      job.rows > 0 && job.cols > 0 && job.weight.size() == static_cast<size_t>(job.rows) * job.cols,
      job.name, ": ", job.weight.size(), " weights for ", job.rows, " x ", job.cols);
  LOWBIT_CHECK(scheme.group_size > 0 && job.cols % scheme.group_size == 0, job.name, ": groups of ",
               scheme.group_size, " do not divide ", job.cols, " columns");
}

// The published program's symmetric scale is 2 max|w| / (2^b - 1): the largest weight lies half a
// step beyond the last code, and every step is smaller for it.
float symmetric_range(const QuantScheme& scheme) {
  const auto half = static_cast<float>(1 << (scheme.bits - 1));
  return scheme.zero == Zero::kNone ? (half - 1.f) / (half - 0.5f) : 1.f;
}

// Some rows of a weight while they are rounded. Steps are columns in the factor's order.
class RowRounder {
 public:
  RowRounder(const LinearJob& job, const QuantScheme& scheme, const GptqFactor& factor,
             const GptqOptions& options, QTensor& out)
      : job_(job),
        scheme_(scheme),
        factor_(factor),
        block_(options.block_size),
        range_(symmetric_range(scheme)),
        search_(options.search_scale),
        out_(out),
        codes_(const_cast<uint8_t*>(out.codes.data)),
        kept_order_(options.act_order == ActOrder::kKept),
        static_groups_(options.act_order == ActOrder::kStatic),
        weights_(static_cast<size_t>(job.cols * kRows)),
        errors_(static_cast<size_t>(block_ * kRows)),
        grids_(static_cast<size_t>(kRows * (static_groups_ ? out.groups() : 1))) {}

  void round(int64_t first_row) {
    first_ = first_row;
    count_ = std::min(kRows, job_.rows - first_row);
    load();
    if (static_groups_) fix_grids();
    for (int64_t begin = 0; begin < job_.cols; begin += block_) {
      const int64_t end = std::min(job_.cols, begin + block_);
      for (int64_t step = begin; step < end; ++step) round_column(step, begin);
      for (int64_t later = end; later < job_.cols; ++later) move_errors(later, begin, end);
    }
  }

 private:
  // Rows side by side, columns in the factor's order, dead ones zero.
  void load() {
    std::fill(weights_.begin(), weights_.end(), 0.f);
    for (int64_t r = 0; r < count_; ++r) {
      const auto row = job_.weight.subspan((first_ + r) * job_.cols, job_.cols);
      check_finite(job_.name, row, first_ + r);
      for (int64_t step = 0; step < job_.cols; ++step) {
        const int32_t column = factor_.order[step];
        if (!factor_.dead[column]) weights_[step * kRows + r] = row[column];
      }
    }
  }

  void fix_grids() {
    std::vector<float> group(static_cast<size_t>(scheme_.group_size)), sizes(group.size());
    for (int64_t r = 0; r < count_; ++r) {
      const float* row = job_.weight.data() + (first_ + r) * job_.cols;
      for (int64_t g = 0; g < out_.groups(); ++g) {
        for (int64_t i = 0; i < scheme_.group_size; ++i) {
          const int64_t column = g * scheme_.group_size + i;
          group[i] = factor_.dead[column] ? 0.f : row[column];
          sizes[i] = factor_.sizes[column];
        }
        set_grid(r, g, group, sizes, grids_[g * kRows + r]);
      }
    }
  }

  void set_grid(int64_t r, int64_t group, std::span<const float> values,
                std::span<const float> sizes, Grid& grid) {
    const int64_t row = first_ + r;
    const GroupPlace place = {job_.name, row};
    grid = search_ ? searched_grid(values, sizes, scheme_.bits, scheme_.zero, place)
                   : group_grid(values, scheme_.bits, scheme_.zero, place, range_);
    out_.scales[row * out_.groups() + group] = grid.scale;
    if (scheme_.zero == Zero::kInt) {
      out_.zeros[row * out_.groups() + group] = static_cast<uint8_t>(grid.zero);
    }
  }

  // The group that starts at `step` of the block from `begin` on. Its columns within the block lack
  // the errors of the columns between.
  void start_group(int64_t step, int64_t begin) {
    const int64_t size = scheme_.group_size;
    std::vector<float> group(static_cast<size_t>(kRows * size)), sizes(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      sizes[i] = factor_.sizes[factor_.order[step + i]];
      float column[kRows];
      std::copy_n(weights_.data() + (step + i) * kRows, kRows, column);
      subtract(step + i, begin, step, column);
      for (int64_t r = 0; r < kRows; ++r) group[r * size + i] = column[r];
    }
    for (int64_t r = 0; r < count_; ++r) {
      set_grid(r, step / size, std::span(group).subspan(r * size, size), sizes, grids_[r]);
    }
  }

  void round_column(int64_t step, int64_t begin) {
    if (!static_groups_ && step % scheme_.group_size == 0) start_group(step, begin);
    float* weights = weights_.data() + step * kRows;
    subtract(step, begin, step, weights);
    const int64_t column = factor_.order[step];
    const int64_t group = static_groups_ ? column / scheme_.group_size : 0;
    // Codes of static groups lie in the order of the inputs.
    const int64_t place = kept_order_ ? step : column;
    const float largest = static_cast<float>((1 << scheme_.bits) - 1);
    const float inverse = 1.f / factor_.factor[step * job_.cols + step];
    float* errors = errors_.data() + (step - begin) * kRows;
    for (int64_t r = 0; r < count_; ++r) {
      const Grid& grid = grids_[group * kRows + r];
      const float code = code_of(weights[r], grid, largest);
      errors[r] = (weights[r] - value_of(code, grid)) * inverse;
      pack(codes_ + (first_ + r) * out_.row_bytes(), place, scheme_.bits,
           static_cast<uint32_t>(code));
    }
  }

  // column -= the errors of steps [from, to) of the block that begins at `begin`.
  void subtract(int64_t step, int64_t begin, int64_t to, float* column) const {
    const float* factor = factor_.factor.data() + step * job_.cols;
    float sums[kRows];
    std::copy_n(column, kRows, sums);
    for (int64_t s = begin; s < to; ++s) {
      const float* errors = errors_.data() + (s - begin) * kRows;
      for (int r = 0; r < kRows; ++r) sums[r] -= errors[r] * factor[s];
    }
    std::copy_n(sums, kRows, column);
  }

  void move_errors(int64_t later, int64_t begin, int64_t end) {
    subtract(later, begin, end, weights_.data() + later * kRows);
  }

  const LinearJob& job_;
  const QuantScheme& scheme_;
  const GptqFactor& factor_;
  int64_t block_;
  float range_;  // that grids cover, over the largest weight
  bool search_;
  QTensor& out_;
  uint8_t* codes_;
  bool kept_order_;
  bool static_groups_;
  int64_t first_ = 0, count_ = 0;
  std::vector<float> weights_;  // [step][kRows]
  std::vector<float> errors_;   // [step of the block][kRows], over the factor's diagonal
  std::vector<Grid> grids_;     // [groups or 1][kRows]
};

}  // namespace

GridRequest gptq_grid(const QuantScheme& scheme, const GptqOptions& options) {
  return {scheme.bits, scheme.zero != Zero::kInt,
          options.search_scale ? GridSearch::kWeighted : GridSearch::kNone,
          symmetric_range(scheme)};
}

GptqFactor gptq_factor(const std::string& name, std::vector<double> diagonal,
                       const GptqOptions& options,
                       const std::function<bool(GptqFactor& columns, double damping)>& decompose) {
  const auto cols = static_cast<int64_t>(diagonal.size());
  GptqFactor result;
  result.order.resize(diagonal.size());
  result.dead.resize(diagonal.size());
  result.sizes.resize(diagonal.size());
  for (int64_t k = 0; k < cols; ++k) {
    LOWBIT_CHECK(std::isfinite(diagonal[k]), name, ": column ", k, " of its inputs is ",
                 diagonal[k], " in the calibration data; the model is damaged or overflows");
    result.dead[k] = diagonal[k] <= 0;
    result.sizes[k] = static_cast<float>(diagonal[k]);
    if (result.dead[k]) diagonal[k] = 1;
  }
  std::iota(result.order.begin(), result.order.end(), 0);
  if (options.act_order != ActOrder::kNone) {
    std::stable_sort(result.order.begin(), result.order.end(),
                     [&](int32_t a, int32_t b) { return diagonal[a] > diagonal[b]; });
  }
  const double mean = std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / cols;
  result.damp_percent = options.damp_percent;
  for (int attempt = 0; attempt < kDampingTries; ++attempt) {
    if (decompose(result, result.damp_percent * mean)) return result;
    result.damp_percent = std::max(2 * result.damp_percent, 0.01);
  }
  fail(ErrorKind::kInvalidArgument, name,
       ": the products of its inputs are not positive definite even with a damping of ",
       result.damp_percent, "; the calibration data overflow");
}

GptqFactor gptq_factor(const std::string& name, std::span<const double> hessian, int64_t cols,
                       const GptqOptions& options, ThreadPool& pool) {
  std::vector<double> diagonal(static_cast<size_t>(cols));
  for (int64_t k = 0; k < cols; ++k) diagonal[k] = hessian[k * cols + k];
  std::vector<double> matrix(hessian.size());
  return gptq_factor(name, diagonal, options, [&](GptqFactor& columns, double damping) {
    const std::vector<int32_t>& order = columns.order;
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        const int64_t a = std::max(order[i], order[j]), b = std::min(order[i], order[j]);
        matrix[i * cols + j] = hessian[a * cols + b];
      }
      const double pivot = diagonal[order[i]];
      matrix[i * cols + i] = (pivot > 0 ? pivot : 1) + damping;
    }
    columns.factor = inverse_factor(matrix, cols, pool);
    return !columns.factor.empty();
  });
}

QTensor gptq_round(const LinearJob& job, const QuantScheme& scheme, const GptqFactor& factor,
                   const GptqOptions& options) {
  check_job(job, scheme);
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = job.rows;
  weight.cols = job.cols;
  weight.codes =
      Bytes::own(std::vector<uint8_t>(static_cast<size_t>(job.rows * weight.row_bytes())));
  weight.scales.resize(static_cast<size_t>(job.rows * weight.groups()));
  if (scheme.zero == Zero::kInt) weight.zeros.resize(weight.scales.size());
  if (options.act_order == ActOrder::kKept && weight.groups() > 1) {
    weight.input_order = factor.order;
  }
  GptqOptions chosen = options;
  // One group has no neighbours: codes need no order of their own.
  if (weight.groups() == 1 && chosen.act_order == ActOrder::kKept) {
    chosen.act_order = ActOrder::kStatic;
  }
  const auto round_rows = [&](int64_t index, int) {
    RowRounder(job, scheme, factor, chosen, weight).round(index * kRows);
  };
  const int64_t turns = (job.rows + kRows - 1) / kRows;
  if (job.pool != nullptr) {
    job.pool->parallel_for(turns, round_rows);
  } else {
    for (int64_t index = 0; index < turns; ++index) round_rows(index, 0);
  }
  return weight;
}

namespace {

// Where the heavy steps are done.
struct Steps {
  std::function<double(int group, const std::string& name)> factor;  // the damping it took
  std::function<QTensor(const LinearJob& job, const QuantScheme& scheme, int group)> round;
};

BlockResult round_block(BlockJob& job, const GptqOptions& options, const Steps& steps) {
  BlockResult result;
  std::array<bool, kLinearGroups> factored = {};
  for (int i = 0; i < kBlockLinears; ++i) {
    if (job.schemes[i].dense()) continue;
    const BlockWeights::Linear& linear = job.block.linears[i];
    const int group = group_of(i);
    if (!factored[group]) {
      const double damping = steps.factor(group, linear.name);
      if (damping > options.damp_percent) {
        job.notice(concat("the inputs of ", linear.name, " (and perhaps others) do not determine ",
                          "its weights: damping raised to ", damping,
                          "; more calibration data would help"));
      }
      factored[group] = true;
    }
    LinearJob one{linear.name, linear.rows, linear.cols, linear.weight, &job.pool};
    if (job.device != nullptr) one.stored = &job.device->weights[i].weight;
    result[i] = steps.round(one, job.schemes[i], group);
  }
  return result;
}

}  // namespace

BlockResult Gptq::quantize(BlockJob& job) const {
  if (job.device != nullptr) return quantize_on_device(job);
  const std::array<Hessian, kLinearGroups> hessians = block_hessians(job);
  GptqFactor factor;  // of one group after another
  return round_block(job, options_,
                     {[&](int group, const std::string& name) {
                        const Hessian& hessian = hessians[group];
                        factor =
                            gptq_factor(name, hessian.values, hessian.cols, options_, job.pool);
                        return factor.damp_percent;
                      },
                      [&](const LinearJob& one, const QuantScheme& scheme, int) {
                        return gptq_round(one, scheme, factor, options_);
                      }});
}

BlockResult Gptq::quantize_on_device(BlockJob& job) const {
  std::array<std::unique_ptr<GptqDevice>, kLinearGroups> groups;
  for (int i = 0; i < kBlockLinears; ++i) {
    if (job.schemes[i].dense() || groups[group_of(i)]) continue;
    groups[group_of(i)] = job.device->device.gptq(job.block.linears[i].cols);
  }
  job.device->run([&](LinearGroup group, const Tensor& x) {
    if (groups[group]) groups[group]->add(x);
  });
  return round_block(
      job, options_,
      {[&](int group, const std::string& name) { return groups[group]->factor(name, options_); },
       [&](const LinearJob& one, const QuantScheme& scheme, int group) {
         return groups[group]->round(one, scheme, options_);
       }});
}

}  // namespace lowbit
