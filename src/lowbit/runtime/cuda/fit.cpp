#include "lowbit/runtime/cuda/fit.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cuda/fit_gemm.h"
#include "lowbit/runtime/cuda/fit_kernels.h"

namespace lowbit::cuda {

namespace {

constexpr int64_t kScoresAtOnce = int64_t{1} << 29;  // bounds the scores in memory: 2 GiB

}  // namespace

void DeviceArray::resize(size_t size) {
  if (size > capacity_) {
    memory_.reset();
    size_ = capacity_ = 0;
    memory_ = allocate(size * sizeof(float), "fitting weights");
    capacity_ = size;
    LOWBIT_CUDA(cudaMemset(memory_.get(), 0, size * sizeof(float)));
  }
  size_ = size;
}

Fit::Fit() {
  const std::string problem = device_problem();
  LOWBIT_CHECK_KIND(problem.empty(), ErrorKind::kDevice, problem);
}

void Fit::upload(std::span<const float> from, float* to) {
  LOWBIT_CUDA(
      cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream()));
  LOWBIT_CUDA(cudaStreamSynchronize(stream()));
}

void Fit::download(const float* from, std::span<float> to) {
  LOWBIT_CUDA(cudaMemcpyAsync(to.data(), from, to.size_bytes(), cudaMemcpyDeviceToHost, stream()));
  LOWBIT_CUDA(cudaStreamSynchronize(stream()));
}

DeviceArray Fit::uploaded(std::span<const float> from) {
  DeviceArray array;
  array.resize(from.size());
  if (!from.empty()) upload(from, array.data());
  return array;
}

void Fit::fill_zero(Array& values) {
  if (values.empty()) return;
  LOWBIT_CUDA(cudaMemsetAsync(values.data(), 0, values.size() * sizeof(float), stream()));
}

void Fit::copy(const float* from, float* to, int64_t count) {
  LOWBIT_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(float),
                              cudaMemcpyDeviceToDevice, stream()));
}

void Fit::multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                   int64_t c_stride, bool add) {
  cuda::multiply(m, n, k, a, b, c, c_stride, add, {}, stream());
}

void Fit::add_bias(float* y, const Array& bias, int64_t rows) {
  cuda::add_bias(y, bias.data(), rows, static_cast<int64_t>(bias.size()), stream());
}

void Fit::rms_norm(const float* x, const Array& weight, float eps, int64_t rows, float* out) {
  const auto size = static_cast<int64_t>(weight.size());
  cuda::rms_norm({x, weight.data(), eps, rows, size}, out, stream());
}

void Fit::rms_norm_backward(const float* x, const Array& weight, float eps, int64_t rows,
                            const float* dout, float* dx, bool add) {
  const auto size = static_cast<int64_t>(weight.size());
  cuda::rms_norm_backward({x, weight.data(), eps, rows, size}, dout, dx, add, stream());
}

void Fit::rotate(float* x, const Array& cos, const Array& sin, int64_t tokens, int64_t length,
                 int64_t heads, int64_t dim, bool back) {
  cuda::rotate(x, {cos.data(), sin.data(), tokens, length, heads, dim, back}, stream());
}

// The score matrices of some sequences.
struct Fit::Scores {
  AttentionShape shape;
  int64_t sequences, length, stride;

  int64_t matrix() const { return length * stride; }
  int64_t share() const { return shape.heads / shape.kv_heads; }
  ScoreRows rows() const {
    return {sequences * shape.heads, length, stride, shape.sliding_window,
            1.f / std::sqrt(static_cast<float>(shape.head_dim))};
  }
  GemmOffsets per_head() const { return {length * shape.q_cols(), shape.head_dim}; }
  GemmOffsets per_kv_head() const { return {length * shape.kv_cols(), shape.head_dim, share()}; }
  GemmOffsets per_matrix() const { return {shape.heads * matrix(), matrix()}; }
};

Fit::Scores Fit::scores_of(const AttentionShape& shape, int64_t sequences, int64_t length) {
  const int64_t stride = (length + 3) / 4 * 4;  // rows on 16 bytes
  const int64_t most = std::max<int64_t>(1, kScoresAtOnce / (shape.heads * length * stride));
  return {shape, std::min(sequences, most), length, stride};
}

// probabilities_ of the first sequences of q and k.
void Fit::score(const Scores& s, const float* q, const float* k) {
  const AttentionShape& shape = s.shape;
  probabilities_.resize(static_cast<size_t>(s.sequences * shape.heads * s.matrix()));
  cuda::multiply(s.length, s.length, shape.head_dim, rows_of(q, shape.q_cols()),
                 transposed(k, shape.kv_cols()), probabilities_.data(), s.stride, false,
                 {s.sequences, shape.heads, s.per_head(), s.per_kv_head(), s.per_matrix()},
                 stream());
  causal_softmax(probabilities_.data(), s.rows(), stream());
}

void Fit::attend(const AttentionShape& shape, int64_t sequences, int64_t length, const float* q,
                 const float* k, const float* v, float* out) {
  Scores s = scores_of(shape, sequences, length);
  const int64_t step = s.sequences;
  for (int64_t first = 0; first < sequences; first += step) {
    s.sequences = std::min(step, sequences - first);
    const int64_t at = first * length * shape.q_cols(), kv_at = first * length * shape.kv_cols();
    score(s, q + at, k + kv_at);
    cuda::multiply(length, shape.head_dim, length, rows_of(probabilities_.data(), s.stride),
                   rows_of(v + kv_at, shape.kv_cols()), out + at, shape.q_cols(), false,
                   {s.sequences, shape.heads, s.per_matrix(), s.per_kv_head(), s.per_head()},
                   stream());
  }
}

void Fit::attend_backward(const AttentionShape& shape, int64_t sequences, int64_t length,
                          const float* q, const float* k, const float* v, const float* out,
                          const float* dout, float* dq, float* dk, float* dv) {
  Scores s = scores_of(shape, sequences, length);
  const int64_t step = s.sequences, dim = shape.head_dim;
  const int64_t q_cols = shape.q_cols(), kv_cols = shape.kv_cols();
  // dk or dv: heads that share one add up one after another.
  const auto add_by_heads = [&](const float* matrices, const float* x, float* dx) {
    GemmOffsets matrix = s.per_matrix(), head = s.per_head();
    const GemmOffsets kv_head = {length * kv_cols, dim};
    matrix.head *= s.share();
    head.head *= s.share();
    for (int64_t i = 0; i < s.share(); ++i) {
      cuda::multiply(length, dim, length, transposed(matrices + i * s.matrix(), s.stride),
                     rows_of(x + i * dim, q_cols), dx, kv_cols, i > 0,
                     {s.sequences, shape.kv_heads, matrix, head, kv_head}, stream());
    }
  };
  for (int64_t first = 0; first < sequences; first += step) {
    s.sequences = std::min(step, sequences - first);
    const int64_t at = first * length * q_cols, kv_at = first * length * kv_cols;
    score(s, q + at, k + kv_at);
    add_by_heads(probabilities_.data(), dout + at, dv + kv_at);
    slopes_.resize(probabilities_.size());
    cuda::multiply(length, length, dim, rows_of(dout + at, q_cols), transposed(v + kv_at, kv_cols),
                   slopes_.data(), s.stride, false,
                   {s.sequences, shape.heads, s.per_head(), s.per_kv_head(), s.per_matrix()},
                   stream());
    causal_softmax_backward(probabilities_.data(), slopes_.data(), s.rows(),
                            {out + at, dout + at, shape.heads, dim}, stream());
    cuda::multiply(length, dim, length, rows_of(slopes_.data(), s.stride),
                   rows_of(k + kv_at, kv_cols), dq + at, q_cols, false,
                   {s.sequences, shape.heads, s.per_matrix(), s.per_kv_head(), s.per_head()},
                   stream());
    add_by_heads(slopes_.data(), q + at, dk + kv_at);
  }
}

void Fit::swiglu(const float* gate, const float* up, float* out, int64_t count) {
  cuda::swiglu(gate, up, out, count, stream());
}

void Fit::swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                          float* dup, int64_t count) {
  cuda::swiglu_backward(gate, up, dout, dgate, dup, count, stream());
}

void Fit::inverse_squares(const float* x, int64_t rows, int64_t size, float* weights) {
  cuda::inverse_squares(x, rows, size, weights, stream());
}

void Fit::add_weighted_squares(const float* x, const float* weights, int64_t rows, int64_t size,
                               float* sums) {
  cuda::add_weighted_squares(x, weights, rows, size, sums, stream());
}

void Fit::weighted_difference(float* y, const float* target, const float* weights, int64_t rows,
                              int64_t size, float* losses) {
  cuda::weighted_difference(y, target, weights, rows, size, losses, stream());
}

}  // namespace lowbit::cuda
