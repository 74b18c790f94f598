#include <cuda_fp16.h>

#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/fit_kernels.h"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

unsigned blocks_for(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// Of a warp, in every lane.
__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}
__device__ float warp_max(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

__device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
__device__ int64_t warp_index() {
  return int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / 32;
}
__device__ int64_t thread_index() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// The sum over a row's elements by a warp.
template <typename Term>
__device__ float row_sum(int64_t size, const Term& term) {
  float sum = 0;
  for (int64_t i = lane(); i < size; i += 32) sum += term(i);
  return warp_sum(sum);
}

__global__ void add_bias_kernel(float* y, const float* bias, int64_t count, int64_t size) {
  const int64_t i = thread_index();
  if (i < count) y[i] += bias[i % size];
}

__global__ void rms_norm_kernel(NormRows norm, float* out) {
  const int64_t row = warp_index();
  if (row >= norm.rows) return;
  const float* x = norm.x + row * norm.size;
  const float squares = row_sum(norm.size, [&](int64_t i) { return x[i] * x[i]; });
  const float scale = 1.f / sqrtf(squares / static_cast<float>(norm.size) + norm.eps);
  for (int64_t i = lane(); i < norm.size; i += 32) {
    out[row * norm.size + i] = x[i] * scale * norm.weight[i];
  }
}

__global__ void rms_norm_backward_kernel(NormRows norm, const float* dout, float* dx, bool add) {
  const int64_t row = warp_index();
  if (row >= norm.rows) return;
  const float* x = norm.x + row * norm.size;
  dout += row * norm.size;
  dx += row * norm.size;
  const float count = static_cast<float>(norm.size);
  const float squares = row_sum(norm.size, [&](int64_t i) { return x[i] * x[i]; });
  const float dot = row_sum(norm.size, [&](int64_t i) { return dout[i] * norm.weight[i] * x[i]; });
  const float scale = 1.f / sqrtf(squares / count + norm.eps);
  const float shrink = scale * scale * scale * dot / count;
  for (int64_t i = lane(); i < norm.size; i += 32) {
    const float value = dout[i] * norm.weight[i] * scale - x[i] * shrink;
    dx[i] = add ? dx[i] + value : value;
  }
}

__global__ void rotate_kernel(float* x, Rotation r) {
  const int64_t half = r.dim / 2, index = thread_index();
  if (index >= r.tokens * r.heads * half) return;
  const int64_t i = index % half, head = index / half, token = head / r.heads;
  const int64_t table = token % r.length * half + i;
  const float c = r.cos[table], s = r.back ? -r.sin[table] : r.sin[table];
  float* pair = x + head * r.dim + i;
  const float a = pair[0], b = pair[half];
  pair[0] = a * c - b * s;
  pair[half] = b * c + a * s;
}

// A warp has a query's row.
__global__ void causal_softmax_kernel(float* scores, ScoreRows rows) {
  const int64_t row = warp_index();
  if (row >= rows.matrices * rows.length) return;
  float* values = scores + row * rows.stride;
  const int64_t end = row % rows.length + 1;
  const int64_t first = rows.window > 0 && end > rows.window ? end - rows.window : 0;
  float most = -INFINITY, sum = 0;
  for (int64_t i = first + lane(); i < end; i += 32) most = fmaxf(most, values[i]);
  most = warp_max(most);
  for (int64_t i = first + lane(); i < end; i += 32) {
    const float value = expf((values[i] - most) * rows.scale);
    values[i] = value;
    sum += value;
  }
  const float inverse = 1.f / warp_sum(sum);
  for (int64_t i = lane(); i < rows.stride; i += 32) {
    values[i] = i >= first && i < end ? values[i] * inverse : 0.f;
  }
}

__global__ void causal_softmax_backward_kernel(const float* probabilities, float* slopes,
                                               ScoreRows rows, OutputRows outputs) {
  const int64_t row = warp_index();
  if (row >= rows.matrices * rows.length) return;
  const int64_t matrix = row / rows.length, sequence = matrix / outputs.heads;
  const int64_t token = sequence * rows.length + row % rows.length;
  const int64_t at = (token * outputs.heads + matrix % outputs.heads) * outputs.dim;
  const float dot =
      row_sum(outputs.dim, [&](int64_t d) { return outputs.out[at + d] * outputs.dout[at + d]; });
  const float* p = probabilities + row * rows.stride;
  float* slope = slopes + row * rows.stride;
  for (int64_t i = lane(); i < rows.length; i += 32) {
    slope[i] = p[i] * (slope[i] - dot) * rows.scale;
  }
}

__device__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

__global__ void swiglu_kernel(const float* gate, const float* up, float* out, int64_t count) {
  const int64_t i = thread_index();
  if (i < count) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

__global__ void swiglu_backward_kernel(const float* gate, const float* up, const float* dout,
                                       float* dgate, float* dup, int64_t count) {
  const int64_t i = thread_index();
  if (i >= count) return;
  const float g = gate[i], s = sigmoid(g), d = dout[i];
  dup[i] = d * g * s;
  dgate[i] = d * up[i] * s * (1.f + g * (1.f - s));
}

__global__ void inverse_squares_kernel(const float* x, int64_t rows, int64_t size, float* weights) {
  const int64_t row = warp_index();
  if (row >= rows) return;
  x += row * size;
  const float squares = row_sum(size, [&](int64_t i) { return x[i] * x[i]; });
  if (lane() == 0) weights[row] = 1.f / fmaxf(squares, 1e-30f);
}

// A thread has a column.
__global__ void add_weighted_squares_kernel(const float* x, const float* weights, int64_t rows,
                                            int64_t size, float* sums) {
  const int64_t column = thread_index();
  if (column >= size) return;
  float sum = sums[column];
  for (int64_t row = 0; row < rows; ++row) {
    const float value = x[row * size + column];
    sum += weights[row] * value * value;
  }
  sums[column] = sum;
}

__global__ void weighted_difference_kernel(float* y, const float* target, const float* weights,
                                           int64_t rows, int64_t size, float* losses) {
  const int64_t row = warp_index();
  if (row >= rows) return;
  y += row * size;
  target += row * size;
  const float weight = weights[row];
  const float sum = row_sum(size, [&](int64_t i) {
    const float difference = y[i] - target[i];
    y[i] = weight * difference;
    return difference * difference;
  });
  if (lane() == 0) losses[row] = weight * sum;
}

// Sums or maxima of all threads of a block, in every thread.
template <bool kMost>
__device__ float over_block(float value) {
  __shared__ float parts[kWarps];
  value = kMost ? warp_max(value) : warp_sum(value);
  __syncthreads();
  if (lane() == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = parts[0];
  for (int i = 1; i < kWarps; ++i) value = kMost ? fmaxf(value, parts[i]) : value + parts[i];
  return value;
}

// A block has a token. KL = sum p (t - s) - log sum e^t + log sum e^s, p of t.
__global__ void divergence_kernel(float* logits, const float* target, int64_t size, float share,
                                  float* losses) {
  float* s = logits + blockIdx.x * size;
  const float* t = target + blockIdx.x * size;
  float most_s = -INFINITY, most_t = -INFINITY;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    most_s = fmaxf(most_s, s[i]);
    most_t = fmaxf(most_t, t[i]);
  }
  most_s = over_block<true>(most_s);
  most_t = over_block<true>(most_t);
  float sum_s = 0, sum_t = 0, mean = 0;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const float p = expf(t[i] - most_t);
    sum_s += expf(s[i] - most_s);
    sum_t += p;
    mean += p * ((t[i] - most_t) - (s[i] - most_s));
  }
  sum_s = over_block<false>(sum_s);
  sum_t = over_block<false>(sum_t);
  mean = over_block<false>(mean);
  const float inverse_s = 1.f / sum_s, inverse_t = 1.f / sum_t;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    s[i] = (expf(s[i] - most_s) * inverse_s - expf(t[i] - most_t) * inverse_t) * share;
  }
  if (threadIdx.x == 0) losses[blockIdx.x] = mean * inverse_t - logf(sum_t) + logf(sum_s);
}

__device__ float clamp(float value, float low, float high) {
  return fminf(fmaxf(value, low), high);
}

struct Grid {
  float scale, inverse, low, high;
};

__device__ float stored_scale(float scale) {
  const float half = __half2float(__float2half_rn(scale));
  return half == 0 ? copysignf(0x1p-24f, scale) : half;
}

__device__ Grid grid_of(const RoundingParameters& r, int64_t group) {
  const float levels = static_cast<float>((1 << r.bits) - 1);
  if (r.symmetric) {
    const float scale = stored_scale(r.first[group] * r.stretch[group]);
    const float half = static_cast<float>(1 << (r.bits - 1));
    return {scale, 1.f / scale, -half, half - 1};
  }
  const float low = r.first[group] * r.stretch[group],
              high = r.second[group] * r.shrink_high[group];
  const float scale = high > low ? stored_scale((high - low) / levels) : 1.f;
  const float zero = clamp(rintf(-low / scale), 0.f, levels);
  return {scale, 1.f / scale, -zero, levels - zero};
}

// A warp has a group.
__global__ void dequantize_rounding_kernel(RoundingParameters r, float* weight) {
  const int64_t group = warp_index();
  if (group >= r.groups) return;
  const Grid g = grid_of(r, group);
  const int64_t first = group * r.size;
  for (int64_t k = first + lane(); k < first + r.size; k += 32) {
    const float scaled = __fadd_rn(__fmul_rn(r.weight[k], g.inverse), r.offsets[k]);
    weight[k] = g.scale * clamp(rintf(scaled), g.low, g.high);
  }
}

struct RangeSlopes {
  float stretch, shrink_high;
};

__device__ RangeSlopes range_slopes(const RoundingParameters& r, int64_t group, const Grid& g,
                                    const float* gradient) {
  const float* w = r.weight + group * r.size;
  const float* offset = r.offsets + group * r.size;
  const float by_scale = row_sum(r.size, [&](int64_t k) {
    const float scaled = w[k] * g.inverse, rounded = rintf(__fadd_rn(scaled, offset[k]));
    const float code = clamp(rounded, g.low, g.high);
    return gradient[k] * (code - (rounded == code ? scaled : 0.f));
  });
  if (r.symmetric) return {by_scale * r.first[group], 0};
  const float by_zero = -g.scale * row_sum(r.size, [&](int64_t k) {
    const float rounded = rintf(__fadd_rn(__fmul_rn(w[k], g.inverse), offset[k]));
    return rounded == clamp(rounded, g.low, g.high) ? 0.f : gradient[k];
  });
  const float levels = static_cast<float>((1 << r.bits) - 1);
  const float low = r.first[group] * r.stretch[group];
  const float by_range = (by_scale + by_zero * low * g.inverse * g.inverse) / levels;
  return {(-by_range - by_zero * g.inverse) * r.first[group], by_range * r.second[group]};
}

// By one lane.
__device__ void move_range(const RoundingParameters& r, int64_t group, float stretch,
                           float shrink_high) {
  if (r.symmetric) {
    r.stretch[group] = clamp(r.stretch[group] - stretch, 0.2f, 2.f);
  } else {
    r.stretch[group] = clamp(r.stretch[group] - stretch, 0.f, 1.f);
    r.shrink_high[group] = clamp(r.shrink_high[group] - shrink_high, 0.f, 1.f);
  }
}

__device__ float step_of(float slope, float rate) {
  return slope > 0 ? rate : slope < 0 ? -rate : 0.f;
}

__global__ void descend_rounding_kernel(RoundingParameters r, const float* gradient, float rate) {
  const int64_t group = warp_index();
  if (group >= r.groups) return;
  const Grid g = grid_of(r, group);
  const float* slope = gradient + group * r.size;
  const RangeSlopes slopes = range_slopes(r, group, g, slope);
  const float up = g.scale > 0 ? rate : -rate;
  for (int64_t k = lane(); k < r.size; k += 32) {
    const int64_t at = group * r.size + k;
    const float rounded = rintf(__fadd_rn(__fmul_rn(r.weight[at], g.inverse), r.offsets[at]));
    if (rounded == clamp(rounded, g.low, g.high)) r.offsets[at] -= step_of(slope[k], up);
  }
  __syncwarp();
  if (lane() == 0) {
    move_range(r, group, step_of(slopes.stretch, rate), step_of(slopes.shrink_high, rate));
  }
}

__device__ float adam_move(float* mean, float* square, float slope, const RoundingStep& step) {
  *mean = 0.9f * *mean + (1.f - 0.9f) * slope;
  *square = 0.98f * *square + (1.f - 0.98f) * slope * slope;
  return *mean / step.whole_mean / (sqrtf(*square / step.whole_square) + 1e-10f);
}

__global__ void adam_rounding_kernel(RoundingParameters r, RoundingMoments m, const float* gradient,
                                     RoundingStep step) {
  const int64_t group = warp_index();
  if (group >= r.groups) return;
  const Grid g = grid_of(r, group);
  const float* slope = gradient + group * r.size;
  const RangeSlopes slopes = range_slopes(r, group, g, slope);
  for (int64_t k = lane(); k < r.size; k += 32) {
    const int64_t at = group * r.size + k;
    const float rounded = rintf(__fadd_rn(__fmul_rn(r.weight[at], g.inverse), r.offsets[at]));
    const bool inside = rounded == clamp(rounded, g.low, g.high);
    r.offsets[at] -= step.rate * adam_move(m.offset_mean + at, m.offset_square + at,
                                           inside ? slope[k] * g.scale : 0.f, step);
  }
  __syncwarp();
  if (lane() != 0) return;
  const float stretch =
      adam_move(m.stretch_mean + group, m.stretch_square + group, slopes.stretch, step);
  const float high = r.symmetric ? 0.f
                                 : adam_move(m.shrink_mean + group, m.shrink_square + group,
                                             slopes.shrink_high, step);
  move_range(r, group, step.range_rate * stretch, step.range_rate * high);
}

}  // namespace

// Launches a kernel of kThreads threads a block.
#define LOWBIT_FIT_LAUNCH(kernel, blocks, ...)              \
  do {                                                      \
    kernel<<<(blocks), kThreads, 0, stream>>>(__VA_ARGS__); \
    LOWBIT_CUDA(cudaGetLastError());                        \
  } while (0)

void add_bias(float* y, const float* bias, int64_t rows, int64_t size, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(add_bias_kernel, blocks_for(rows * size, kThreads), y, bias, rows * size, size);
}

void rms_norm(const NormRows& norm, float* out, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(rms_norm_kernel, blocks_for(norm.rows, kWarps), norm, out);
}

void rms_norm_backward(const NormRows& norm, const float* dout, float* dx, bool add,
                       cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(rms_norm_backward_kernel, blocks_for(norm.rows, kWarps), norm, dout, dx, add);
}

void rotate(float* x, const Rotation& rotation, cudaStream_t stream) {
  const int64_t pairs = rotation.tokens * rotation.heads * (rotation.dim / 2);
  LOWBIT_FIT_LAUNCH(rotate_kernel, blocks_for(pairs, kThreads), x, rotation);
}

void causal_softmax(float* scores, const ScoreRows& rows, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(causal_softmax_kernel, blocks_for(rows.matrices * rows.length, kWarps), scores,
                    rows);
}

void causal_softmax_backward(const float* probabilities, float* slopes, const ScoreRows& rows,
                             const OutputRows& outputs, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(causal_softmax_backward_kernel, blocks_for(rows.matrices * rows.length, kWarps),
                    probabilities, slopes, rows, outputs);
}

void swiglu(const float* gate, const float* up, float* out, int64_t count, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(swiglu_kernel, blocks_for(count, kThreads), gate, up, out, count);
}

void swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                     float* dup, int64_t count, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(swiglu_backward_kernel, blocks_for(count, kThreads), gate, up, dout, dgate, dup,
                    count);
}

void inverse_squares(const float* x, int64_t rows, int64_t size, float* weights,
                     cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(inverse_squares_kernel, blocks_for(rows, kWarps), x, rows, size, weights);
}

void add_weighted_squares(const float* x, const float* weights, int64_t rows, int64_t size,
                          float* sums, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(add_weighted_squares_kernel, blocks_for(size, kThreads), x, weights, rows, size,
                    sums);
}

void weighted_difference(float* y, const float* target, const float* weights, int64_t rows,
                         int64_t size, float* losses, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(weighted_difference_kernel, blocks_for(rows, kWarps), y, target, weights, rows,
                    size, losses);
}

void divergence(float* logits, const float* target, int64_t rows, int64_t size, float share,
                float* losses, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(divergence_kernel, static_cast<unsigned>(rows), logits, target, size, share,
                    losses);
}

void dequantize_rounding(const RoundingParameters& rounding, float* weight, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(dequantize_rounding_kernel, blocks_for(rounding.groups, kWarps), rounding,
                    weight);
}

void descend_rounding(const RoundingParameters& rounding, const float* gradient, float rate,
                      cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(descend_rounding_kernel, blocks_for(rounding.groups, kWarps), rounding,
                    gradient, rate);
}

void adam_rounding(const RoundingParameters& rounding, const RoundingMoments& moments,
                   const float* gradient, const RoundingStep& step, cudaStream_t stream) {
  LOWBIT_FIT_LAUNCH(adam_rounding_kernel, blocks_for(rounding.groups, kWarps), rounding, moments,
                    gradient, step);
}

}  // namespace lowbit::cuda
