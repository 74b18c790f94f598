// HostFit: the arithmetic of fitting weights to data on the CPU, in fp32. cuda::Fit
// (runtime/cuda/fit.h) has the same members for the device; code that is a template of one of them
// calls nothing else on what they hold. Results do not depend on the pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/quantize/block_attention.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

class HostFit {
 public:
  using Array = std::vector<float>;

  HostFit(ThreadPool& pool) : pool_(pool), gemm_(&pool), attention_(pool) {}  // NOLINT: converts

  void upload(std::span<const float> from, float* to) { copy(from.data(), to, size_of(from)); }
  void download(const float* from, std::span<float> to) { copy(from, to.data(), size_of(to)); }
  Array uploaded(Array from) { return from; }

  void fill_zero(Array& values);
  void copy(const float* from, float* to, int64_t count);

  // c = a * b, or c += a * b.
  void multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                int64_t c_stride, bool add = false) {
    gemm_.multiply(m, n, k, a, b, c, c_stride, add);
  }
  // y[row][i] += bias[i]
  void add_bias(float* y, const Array& bias, int64_t rows);
  // Of rows of weight.size(): rms_norm.h.
  void rms_norm(const float* x, const Array& weight, float eps, int64_t rows, float* out);
  void rms_norm_backward(const float* x, const Array& weight, float eps, int64_t rows,
                         const float* dout, float* dx, bool add);
  // Rotates the pairs (i, i + dim / 2) of x[tokens][heads][dim], or turns them back. The position
  // of a token is its number modulo `length`. cos, sin: [positions][dim / 2]
  void rotate(float* x, const Array& cos, const Array& sin, int64_t tokens, int64_t length,
              int64_t heads, int64_t dim, bool back);
  // block_attention.h
  void attend(const AttentionShape& shape, int64_t sequences, int64_t length, const float* q,
              const float* k, const float* v, float* out) {
    attention_.forward({shape, sequences, length}, q, k, v, out);
  }
  void attend_backward(const AttentionShape& shape, int64_t sequences, int64_t length,
                       const float* q, const float* k, const float* v, const float* out,
                       const float* dout, float* dq, float* dk, float* dv) {
    attention_.backward({shape, sequences, length}, q, k, v, out, dout, dq, dk, dv);
  }
  // out = silu(gate) * up, and back.
  void swiglu(const float* gate, const float* up, float* out, int64_t count);
  void swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                       float* dup, int64_t count);
  // weights[row] = 1 / |x[row]|^2
  void inverse_squares(const float* x, int64_t rows, int64_t size, float* weights);
  // sums[k] += sum over rows of weights[row] * x[row][k]^2
  void add_weighted_squares(const float* x, const float* weights, int64_t rows, int64_t size,
                            float* sums);
  // losses[row] = weights[row] * |y - target|^2; y = weights[row] * (y - target)
  void weighted_difference(float* y, const float* target, const float* weights, int64_t rows,
                           int64_t size, float* losses);

 private:
  template <typename Values>
  static int64_t size_of(const Values& values) {
    return static_cast<int64_t>(values.size());
  }
  template <typename Body>
  void for_shares(int64_t count, int64_t share, const Body& body);

  ThreadPool& pool_;
  cpu::Gemm gemm_;
  BlockAttention attention_;
};

}  // namespace lowbit
