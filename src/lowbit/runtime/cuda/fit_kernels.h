// Everything of fitting weights on the device that is no matrix product: norms, rotation, softmax,
// SiLU, their derivatives, learned rounding and the divergence of predictions. fp32; every sum has
// one order, so that the same inputs give the same bits. Formulas: quantize/decoder_block.h,
// learned_rounding.h, divergence_loss.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lowbit::cuda {

// y[row][i] += bias[i]
void add_bias(float* y, const float* bias, int64_t rows, int64_t size, cudaStream_t stream);

struct NormRows {
  const float* x;  // [rows][size]
  const float* weight;
  float eps;
  int64_t rows, size;
};
// out = x / rms(x) * weight
void rms_norm(const NormRows& norm, float* out, cudaStream_t stream);
// dx = dL/dx from dL/dout, added to dx if `add`; dx may be dout.
void rms_norm_backward(const NormRows& norm, const float* dout, float* dx, bool add,
                       cudaStream_t stream);

// Rotates the pairs (i, i + dim / 2) of x[tokens][heads][dim], or turns them back; the position of
// a token is its number modulo `length`. cos, sin: [positions][dim / 2]
struct Rotation {
  const float *cos, *sin;
  int64_t tokens, length, heads, dim;
  bool back;
};
void rotate(float* x, const Rotation& rotation, cudaStream_t stream);

// Scores of queries and keys of whole sequences, [matrices][length][stride]; a query sees the
// `window` keys up to its own (0: all up to its own).
struct ScoreRows {
  int64_t matrices, length, stride, window;
  float scale;
};
// Scores become probabilities, 0 where a query sees nothing.
void causal_softmax(float* scores, const ScoreRows& rows, cudaStream_t stream);
// slopes, of the probabilities, become those of the scores: p * (slope - out . dout) * scale. out
// and dout: [sequences * length][heads * dim], matrices in the order sequence, head.
struct OutputRows {
  const float *out, *dout;
  int64_t heads, dim;
};
void causal_softmax_backward(const float* probabilities, float* slopes, const ScoreRows& rows,
                             const OutputRows& outputs, cudaStream_t stream);

void swiglu(const float* gate, const float* up, float* out, int64_t count, cudaStream_t stream);
void swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                     float* dup, int64_t count, cudaStream_t stream);

// weights[row] = 1 / |x[row]|^2
void inverse_squares(const float* x, int64_t rows, int64_t size, float* weights,
                     cudaStream_t stream);
// sums[k] += sum over rows of weights[row] * x[row][k]^2
void add_weighted_squares(const float* x, const float* weights, int64_t rows, int64_t size,
                          float* sums, cudaStream_t stream);
// losses[row] = weights[row] * |y - target|^2; y = weights[row] * (y - target)
void weighted_difference(float* y, const float* target, const float* weights, int64_t rows,
                         int64_t size, float* losses, cudaStream_t stream);
// losses[row] = KL(softmax(target) || softmax(logits)); logits = its gradient * share
void divergence(float* logits, const float* target, int64_t rows, int64_t size, float share,
                float* losses, cudaStream_t stream);

// LearnedRounding's parameters on the device.
struct RoundingParameters {
  int64_t groups, size;  // of all rows together; weights of a group
  int bits;
  bool symmetric;
  const float* weight;          // [groups][size]
  float* offsets;               // [groups][size]
  float *first, *stretch;       // [groups]
  float *second, *shrink_high;  // [groups], null if symmetric
};
struct RoundingMoments {                 // of Adam: means and mean squares
  float *offset_mean, *offset_square;    // [groups][size]
  float *stretch_mean, *stretch_square;  // [groups]
  float *shrink_mean, *shrink_square;    // [groups], null if symmetric
};
struct RoundingStep {
  float rate, range_rate;
  float whole_mean, whole_square;  // 1 - 0.9^n, 1 - 0.98^n in step n
};
void dequantize_rounding(const RoundingParameters& rounding, float* weight, cudaStream_t stream);
void descend_rounding(const RoundingParameters& rounding, const float* gradient, float rate,
                      cudaStream_t stream);
void adam_rounding(const RoundingParameters& rounding, const RoundingMoments& moments,
                   const float* gradient, const RoundingStep& step, cudaStream_t stream);

}  // namespace lowbit::cuda
