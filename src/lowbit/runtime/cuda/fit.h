// Fit: the arithmetic of fitting weights to data on the device, with the members of the host's
// (quantize/host_fit.h), so that code is written once for both. Pointers are the device's, except
// where a span is named; all objects use one stream, so that what they do runs in order.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/matrix_view.h"

namespace lowbit::cuda {

// Floats on the device. Grows like a vector, but loses its content when it does: zeros then.
class DeviceArray {
 public:
  DeviceArray() = default;
  float* data() { return static_cast<float*>(memory_.get()); }
  const float* data() const { return static_cast<const float*>(memory_.get()); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void resize(size_t size);
  operator std::span<float>() { return {data(), size_}; }
  operator std::span<const float>() const { return {data(), size_}; }

 private:
  std::shared_ptr<void> memory_;
  size_t size_ = 0, capacity_ = 0;
};

class Fit {
 public:
  using Array = DeviceArray;

  Fit();  // throws kDevice if there is no usable device

  // Return when the copy is done.
  void upload(std::span<const float> from, float* to);
  void download(const float* from, std::span<float> to);
  Array uploaded(std::span<const float> from);

  void fill_zero(Array& values);
  void copy(const float* from, float* to, int64_t count);

  // c = a * b, or c += a * b: fit_gemm.h.
  void multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                int64_t c_stride, bool add = false);
  // The rest: fit_kernels.h.
  void add_bias(float* y, const Array& bias, int64_t rows);
  void rms_norm(const float* x, const Array& weight, float eps, int64_t rows, float* out);
  void rms_norm_backward(const float* x, const Array& weight, float eps, int64_t rows,
                         const float* dout, float* dx, bool add);
  // x: [sequences * length][heads][dim]; cos, sin: [positions][dim / 2]
  void rotate(float* x, const Array& cos, const Array& sin, int64_t tokens, int64_t length,
              int64_t heads, int64_t dim, bool back);
  // q, out: [sequences * length][heads * head_dim]; k, v: [...][kv_heads * head_dim]
  void attend(const AttentionShape& shape, int64_t sequences, int64_t length, const float* q,
              const float* k, const float* v, float* out);
  void attend_backward(const AttentionShape& shape, int64_t sequences, int64_t length,
                       const float* q, const float* k, const float* v, const float* out,
                       const float* dout, float* dq, float* dk, float* dv);
  void swiglu(const float* gate, const float* up, float* out, int64_t count);
  void swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                       float* dup, int64_t count);
  void inverse_squares(const float* x, int64_t rows, int64_t size, float* weights);
  void add_weighted_squares(const float* x, const float* weights, int64_t rows, int64_t size,
                            float* sums);
  void weighted_difference(float* y, const float* target, const float* weights, int64_t rows,
                           int64_t size, float* losses);

  cudaStream_t stream() const { return cudaStreamLegacy; }

 private:
  struct Scores;
  Scores scores_of(const AttentionShape& shape, int64_t sequences, int64_t length);
  void score(const Scores& scores, const float* q, const float* k);

  // [sequences][heads][length][length padded] of some sequences: probabilities, and slopes of them.
  DeviceArray probabilities_, slopes_;
};

}  // namespace lowbit::cuda
