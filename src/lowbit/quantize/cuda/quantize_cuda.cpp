// The QuantizeDevice of an NVIDIA GPU: the data-free methods. gptq_cuda.cpp has GPTQ.
#include "lowbit/quantize/cuda/device_weights.h"
#include "lowbit/quantize/cuda/gptq_cuda.h"
#include "lowbit/quantize/hqq_math.h"
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/runtime/cuda/cuda_backend.h"

namespace lowbit {

namespace cuda {

namespace {

class CudaQuantizeDevice final : public QuantizeDevice {
 public:
  explicit CudaQuantizeDevice(int threads)
      : backend_(make_cuda_backend({.threads = threads})),
        stream_(cuda_stream(*backend_)),
        transfers_(stream_) {
    keep_freed_memory();
  }

  Backend& backend() override { return *backend_; }

  QTensor rtn(const LinearJob& job, const QuantScheme& scheme, bool search) override {
    const QuantScheme exact = for_shape(scheme, job.rows, job.cols);
    check_integers("rtn", 2, false, job, exact);
    const DeviceBuffer<float> weight = upload_weight(job, transfers_);
    ResultBuffers result(job, exact, transfers_);
    result.check_finite(weight.get());
    const GroupsView view = result.view(weight.get());
    launch_fit_grids(
        view,
        {exact.bits, exact.zero == Zero::kNone, search ? GridSearch::kError : GridSearch::kNone},
        nullptr, result.grids(), stream_);
    launch_grid_codes(view, exact.bits, result.grids().scales, result.grids().zeros, result.codes(),
                      stream_);
    return result.take();
  }

  QTensor hqq(const LinearJob& job, const QuantScheme& scheme) override {
    const QuantScheme exact = for_shape(scheme, job.rows, job.cols);
    check_integers("hqq", 1, true, job, exact);
    const DeviceBuffer<float> weight = upload_weight(job, transfers_);
    ResultBuffers result(job, exact, transfers_);
    result.check_finite(weight.get());
    const GroupsView view = result.view(weight.get());
    const int64_t groups = view.count();
    DeviceBuffer<float> magnitudes(groups, "errors of groups", stream_);
    DeviceBuffer<double> sums(job.rows + 1, "errors of rows", stream_);
    DeviceBuffer<int> stopped(1, "a flag", stream_);
    const HqqState state{result.grids().scales, result.offsets(), magnitudes.get(), sums.get(),
                         sums.get() + job.rows, stopped.get()};
    launch_hqq_start(view, exact.bits, state, stream_);
    for (int i = 0; i < kHqqIterations; ++i) {
      launch_hqq_step(view, exact.bits, state, stream_);
    }
    launch_hqq_codes(view, exact.bits, state, result.grids().faults, result.codes(), stream_);
    return result.take();
  }

  std::unique_ptr<GptqDevice> gptq(int64_t cols) override {
    return make_gptq_device(cols, transfers_);
  }

  void wait() override { LOWBIT_CUDA(cudaStreamSynchronize(stream_)); }

 private:
  std::unique_ptr<Backend> backend_;
  cudaStream_t stream_;  // the backend's
  Transfers transfers_;
};

}  // namespace

}  // namespace cuda

std::unique_ptr<QuantizeDevice> make_cuda_quantize_device(int threads) {
  return std::make_unique<cuda::CudaQuantizeDevice>(threads);
}

}  // namespace lowbit
