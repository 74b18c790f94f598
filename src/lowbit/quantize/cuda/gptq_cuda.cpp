#include "lowbit/quantize/cuda/gptq_cuda.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/quantize/cuda/device_weights.h"
#include "lowbit/quantize/gptq.h"

namespace lowbit::cuda {

namespace {

class CudaGptq final : public GptqDevice {
 public:
  CudaGptq(int64_t cols, Transfers& transfers)
      : cols_(cols),
        transfers_(transfers),
        stream_(transfers.stream()),
        hessian_(cols * cols, "a Hessian", stream_) {
    hessian_.zero();
  }

  void add(const Tensor& x) override {
    LOWBIT_CHECK(x.cols == cols_ && x.dtype == DType::kF32, "inputs of ", x.cols,
                 " columns for a Hessian of ", cols_);
    if (x.rows == 0) return;
    const int64_t padded = padded_columns(cols_);
    if (halves_.count() < x.rows * padded) {
      halves_ = {};
      halves_ = {x.rows * padded, "inputs in 16 bits", stream_};
    }
    if (exponents_.count() == 0) exponents_ = {padded, "exponents", stream_};
    launch_add_moments(x.as<float>(), x.rows, cols_, halves_.get(), exponents_.get(),
                       hessian_.get(), stream_);
  }

  double factor(const std::string& name, const GptqOptions& options) override {
    halves_ = {};
    std::vector<double> diagonal(static_cast<size_t>(cols_));
    const auto pitch = static_cast<size_t>(cols_ + 1) * sizeof(double);
    LOWBIT_CUDA(cudaMemcpy2DAsync(diagonal.data(), sizeof(double), hessian_.get(), pitch,
                                  sizeof(double), diagonal.size(), cudaMemcpyDeviceToHost,
                                  stream_));
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));
    columns_ = gptq_factor(name, std::move(diagonal), options,
                           [this](const GptqFactor& columns, double damping) {
                             return decompose(columns.order, damping);
                           });
    hessian_ = {};
    return columns_.damp_percent;
  }

  QTensor round(const LinearJob& job, const QuantScheme& scheme,
                const GptqOptions& options) override {
    check_integers("gptq", 2, false, job, scheme);
    LOWBIT_CHECK(job.cols == cols_ && factor_.count() > 0, job.name, ": no factor of ", job.cols,
                 " columns was made");
    DeviceBuffer<float> weight = upload_weight(job, transfers_);
    ResultBuffers result(job, scheme, transfers_);
    result.check_finite(weight.get());
    zero_dead(weight.get(), job.rows);
    DeviceBuffer<float> permuted(job.rows * cols_, "a weight in order", stream_);
    launch_permute(weight.get(), job.rows, cols_, order_.get(), permuted.get(), stream_);

    const int64_t groups = cols_ / scheme.group_size;
    const bool ordered = options.act_order == ActOrder::kKept && groups > 1;
    // One group has no neighbours: codes need no order of their own.
    const bool fixed =
        groups == 1 ? options.act_order != ActOrder::kNone : options.act_order == ActOrder::kStatic;
    if (fixed) {
      launch_fit_grids(result.view(weight.get()), gptq_grid(scheme, options), sizes_.get(),
                       result.grids(), stream_);
    }
    weight = {};
    DeviceBuffer<float> errors(job.rows * kGptqSteps, "errors", stream_);
    const GptqRound round{.permuted = permuted.get(),
                          .errors = errors.get(),
                          .factor = factor_.get(),
                          .order = order_.get(),
                          .scales = result.grids().scales,
                          .zeros = result.grids().zeros,
                          .codes = result.codes(),
                          .rows = job.rows,
                          .cols = cols_,
                          .groups = groups,
                          .group_size = scheme.group_size,
                          .bits = scheme.bits,
                          .by_step = !fixed,
                          .codes_by_step = ordered};
    round_steps(round, result.grids(), gptq_grid(scheme, options));
    QTensor made = result.take();
    if (ordered) made.input_order = columns_.order;
    return made;
  }

 private:
  // The factor of the Hessian in this order; false if it is not positive definite.
  bool decompose(const std::vector<int32_t>& order, double damping) {
    if (order_.count() == 0) {
      order_ = {cols_, "an order of columns", stream_};
      order_.upload(order);
    }
    const int64_t size = (cols_ + kPanel - 1) / kPanel * kPanel;
    DeviceBuffer<double> matrix(size * size, "a Hessian's factor", stream_);
    DeviceBuffer<double> panel(kPanel * kPanel, "a panel", stream_);
    DeviceBuffer<int> failed(1, "a flag", stream_);
    failed.zero();
    launch_arrange(hessian_.get(), cols_, cols_, order_.get(), damping, matrix.get(), size,
                   stream_);
    launch_inverse_cholesky(matrix.get(), size, panel.get(), failed.get(), stream_);
    int bad = 0;
    failed.download(&bad, 1);
    if (bad != 0) return false;
    factor_ = {cols_ * cols_, "a Hessian's factor", stream_};
    launch_take_factor(matrix.get(), size, cols_, factor_.get(), stream_);
    return true;
  }

  // Columns whose input was always 0, and what grids weigh columns by.
  void zero_dead(float* weight, int64_t rows) {
    if (sizes_.count() == 0) {
      std::vector<float> by_step(static_cast<size_t>(cols_));
      for (int64_t s = 0; s < cols_; ++s) by_step[s] = columns_.sizes[columns_.order[s]];
      sizes_ = {cols_, "sizes of columns", stream_};
      sizes_.upload(columns_.sizes);
      step_sizes_ = {cols_, "sizes of columns", stream_};
      step_sizes_.upload(by_step);
    }
    if (std::find(columns_.dead.begin(), columns_.dead.end(), true) == columns_.dead.end()) return;
    std::vector<uint8_t> dead(columns_.dead.begin(), columns_.dead.end());
    DeviceBuffer<uint8_t> flags(cols_, "dead columns", stream_);
    flags.upload(dead);
    launch_zero_columns(weight, rows, cols_, flags.get(), stream_);
  }

  void round_steps(const GptqRound& round, const GridsOut& grids, const GridRequest& request) {
    for (int64_t begin = 0, end = 0; begin < cols_; begin = end) {
      end = std::min(cols_, begin + kGptqSteps);
      const int64_t group = begin / round.group_size;
      if (round.by_step) {
        end = std::min(end, (group + 1) * round.group_size);
        if (begin % round.group_size == 0) {
          const GroupsView view{round.permuted + begin, cols_,       round.rows, 1,
                                round.group_size,       round.groups};
          launch_fit_grids(
              view, request, step_sizes_.get() + begin,
              {grids.scales + group, grids.zeros ? grids.zeros + group : nullptr, grids.faults},
              stream_);
        }
      }
      launch_gptq_steps(round, begin, end, stream_);
      launch_gptq_update(round, begin, end, stream_);
    }
  }

  int64_t cols_;
  Transfers& transfers_;
  cudaStream_t stream_;
  DeviceBuffer<double> hessian_;  // [cols][cols], its lower half
  DeviceBuffer<uint16_t> halves_;
  DeviceBuffer<int> exponents_;
  GptqFactor columns_;  // without the factor itself, which is on the device
  DeviceBuffer<float> factor_, sizes_, step_sizes_;
  DeviceBuffer<int32_t> order_;
};

}  // namespace

std::unique_ptr<GptqDevice> make_gptq_device(int64_t cols, Transfers& transfers) {
  return std::make_unique<CudaGptq>(cols, transfers);
}

}  // namespace lowbit::cuda
