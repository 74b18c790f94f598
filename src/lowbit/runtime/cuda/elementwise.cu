// Everything between the products: norms, rotation, the KV store, SiLU, gathers; and reading, to
// know what memory can do. A token's values are computed the same in any batch.
#include "lowbit/runtime/cuda/elementwise.cuh"
#include "lowbit/runtime/cuda/kv_codes.cuh"
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;

constexpr int kNormQuads = 2;  // that a thread keeps in registers

// One block per token. The first quads of a thread stay in registers: one round trip to memory is
// most of the time that a single token takes.
__global__ void __launch_bounds__(kNormThreads)
    add_rms_norm(float* residual, const float* hidden, const float* weight, int cols, float eps,
                 float* out) {
  __shared__ float warps[kNormThreads / 32];
  grid_start();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * cols;
  residual += row;
  out += row;
  float4 weights[kNormQuads], kept[kNormQuads];
#pragma unroll
  for (int i = 0; i < kNormQuads; ++i) {
    const int at = 4 * (static_cast<int>(threadIdx.x) + i * kNormThreads);
    if (at < cols) weights[i] = load_quad(weight, cols, at);
  }
  grid_wait();
  const auto added = [&](int at) {
    const float4 v = add(load_quad(residual, cols, at), load_quad(hidden + row, cols, at));
    store_quad(residual, cols, at, v);
    return v;
  };
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kNormQuads; ++i) {
    const int at = 4 * (static_cast<int>(threadIdx.x) + i * kNormThreads);
    if (at >= cols) break;
    kept[i] = added(at);
    squares = add_squares(kept[i], squares);
  }
  const int rest = 4 * (static_cast<int>(threadIdx.x) + kNormQuads * kNormThreads);
  for (int at = rest; at < cols; at += 4 * kNormThreads) squares = add_squares(added(at), squares);
  const float scale = rms_scale(sum_of_block(squares, warps), cols, eps);
#pragma unroll
  for (int i = 0; i < kNormQuads; ++i) {
    const int at = 4 * (static_cast<int>(threadIdx.x) + i * kNormThreads);
    if (at < cols) store_quad(out, cols, at, normalize(kept[i], scale, weights[i]));
  }
  for (int at = rest; at < cols; at += 4 * kNormThreads) {
    store_quad(out, cols, at,
               normalize(load_quad(residual, cols, at), scale, load_quad(weight, cols, at)));
  }
}

// One warp per head of q and of k.
__global__ void qk_norm(float* qkv, AttentionDims dims, const float* q_weight,
                        const float* k_weight, int tokens, float eps) {
  grid_start();
  grid_wait();
  const int lane = static_cast<int>(threadIdx.x) % 32, heads = dims.heads + dims.kv_heads;
  const int index = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) / 32;
  if (index >= tokens * heads) return;
  const int head = index % heads;
  float* x = qkv + static_cast<int64_t>(index / heads) * dims.qkv_cols() + head * dims.head_dim;
  const float* weight = head < dims.heads ? q_weight : k_weight;
  float squares = 0;
  for (int i = lane; i < dims.head_dim; i += 32) squares = fmaf(x[i], x[i], squares);
  squares = sum_of_warp(squares);
  const float scale = 1.f / sqrtf(squares / static_cast<float>(dims.head_dim) + eps);
  for (int i = lane; i < dims.head_dim; i += 32) x[i] = x[i] * scale * weight[i];
}

__device__ void store(const CacheView& cache, void* to, int64_t index, float value) {
  if (cache.type == CacheType::kF16) {
    static_cast<uint16_t*>(to)[index] = float_to_half(value);
  } else {
    static_cast<float*>(to)[index] = value;
  }
}

// A thread for each pair (i, i + head_dim / 2) of q and k, and for two values of v.
__global__ void rope_store(float* qkv, AttentionDims dims, StepView step, const float* cos,
                           const float* sin, CacheView cache) {
  grid_start();
  grid_wait();
  const int half = dims.head_dim / 2, heads = dims.heads + 2 * dims.kv_heads;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int token = static_cast<int>(index / (heads * half));
  if (token >= step.tokens) return;
  const int head = static_cast<int>(index / half % heads), i = static_cast<int>(index % half);
  const int position = step.positions[token];
  float* x = qkv + static_cast<int64_t>(token) * dims.qkv_cols() + head * dims.head_dim + i;
  float a = x[0], b = x[half];
  if (head < dims.heads + dims.kv_heads) {
    const float c = cos[static_cast<int64_t>(position) * half + i];
    const float s = sin[static_cast<int64_t>(position) * half + i];
    const float2 rotated = rotate(a, b, c, s);
    a = rotated.x;
    b = rotated.y;
    x[0] = a;
    x[half] = b;
  }
  if (head < dims.heads) return;
  const int block = step.tables[step.table_offsets[token] + position / 64];
  const int kv_head = (head - dims.heads) % dims.kv_heads;
  void* to = head < dims.heads + dims.kv_heads ? cache.keys : cache.values;
  const int64_t at =
      ((static_cast<int64_t>(block) * dims.kv_heads + kv_head) * 64 + position % 64) *
          dims.head_dim +
      i;
  store(cache, to, at, a);
  store(cache, to, at + half, b);
}

// The same for caches of codes: a warp for each head of q, k and v.
__global__ void rope_store_codes(float* qkv, AttentionDims dims, StepView step, const float* cos,
                                 const float* sin, CacheView cache) {
  grid_start();
  grid_wait();
  const int half = dims.head_dim / 2, heads = dims.heads + 2 * dims.kv_heads;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int token = static_cast<int>(warp / heads), head = static_cast<int>(warp % heads);
  if (token >= step.tokens) return;
  const int position = step.positions[token];
  float* x = qkv + static_cast<int64_t>(token) * dims.qkv_cols() + head * dims.head_dim;
  if (head < dims.heads + dims.kv_heads) {
    const int64_t at = static_cast<int64_t>(position) * half;
    for (int i = lane; i < half; i += 32) {
      const float2 rotated = rotate(x[i], x[i + half], cos[at + i], sin[at + i]);
      x[i] = rotated.x;
      x[i + half] = rotated.y;
    }
    __syncwarp();
    if (cache.type == CacheType::kInt4) mix_row(x, dims.head_dim, head >= dims.heads);
  }
  if (head < dims.heads) return;
  const int block = step.tables[step.table_offsets[token] + position / 64];
  const int kv_head = (head - dims.heads) % dims.kv_heads;
  const int which = head < dims.heads + dims.kv_heads ? 0 : 1;
  uint8_t* page = static_cast<uint8_t*>(which == 0 ? cache.keys : cache.values) +
                  (static_cast<int64_t>(block) * dims.kv_heads + kv_head) *
                      page_bytes(cache.type, dims.head_dim);
  uint8_t* scales = page + 64 * row_bytes(cache.type, dims.head_dim);
  round_row(
      cache.type, x, dims.head_dim, which, position % 64,
      [&](int byte, uint32_t code) { page[byte] = static_cast<uint8_t>(code); },
      [&](int byte, uint32_t bits, int bytes) {
        if (bytes == 2) {
          *reinterpret_cast<uint16_t*>(scales + byte) = static_cast<uint16_t>(bits);
        } else {
          *reinterpret_cast<uint32_t*>(scales + byte) = bits;
        }
      });
}

__global__ void silu_mul_rows(const float* gate_up, int64_t count, int cols, float* out) {
  grid_start();
  grid_wait();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count) return;
  const float* gate = gate_up + index / cols * 2 * cols + index % cols;
  out[index] = silu_mul(gate[0], gate[cols]);
}

__global__ void gather_rows(const float* x, const int32_t* rows, int cols, float* out) {
  grid_start();
  grid_wait();
  const float* from = x + static_cast<int64_t>(rows[blockIdx.x]) * cols;
  for (int i = static_cast<int>(threadIdx.x); i < cols; i += kThreads) {
    out[static_cast<int64_t>(blockIdx.x) * cols + i] = from[i];
  }
}

__global__ void __launch_bounds__(512)
    read_words(const uint4* data, int64_t count, uint32_t* sums) {
  uint32_t sum = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * 512 * 4;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * 512 * 4 + threadIdx.x; at + 1536 < count;
       at += stride) {
    uint4 words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = __ldcs(data + at + i * 512);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += words[i].x + words[i].y + words[i].z + words[i].w;
  }
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (threadIdx.x % 32 == 0) atomicAdd(&sums[blockIdx.x], sum);
}

unsigned blocks_of(int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

}  // namespace

void launch_add_rms_norm(float* residual, const float* hidden, const float* weight, int tokens,
                         int cols, float eps, float* out, cudaStream_t stream) {
  launch(add_rms_norm, dim3(static_cast<unsigned>(tokens)), kNormThreads, 0, stream, residual,
         hidden, weight, cols, eps, out);
}

void launch_qk_norm(float* qkv, const AttentionDims& dims, const float* q_weight,
                    const float* k_weight, int tokens, float eps, cudaStream_t stream) {
  const int64_t warps = static_cast<int64_t>(tokens) * (dims.heads + dims.kv_heads);
  launch(qk_norm, dim3(blocks_of(warps * 32)), kThreads, 0, stream, qkv, dims, q_weight, k_weight,
         tokens, eps);
}

void launch_rope_store(float* qkv, const AttentionDims& dims, const StepView& step,
                       const float* cos, const float* sin, const CacheView& cache,
                       cudaStream_t stream) {
  if (is_coded(cache.type)) {
    const int64_t warps = static_cast<int64_t>(step.tokens) * (dims.heads + 2 * dims.kv_heads);
    return launch(rope_store_codes, dim3(blocks_of(warps * 32)), kThreads, 0, stream, qkv, dims,
                  step, cos, sin, cache);
  }
  launch(rope_store, dim3(blocks_of(static_cast<int64_t>(step.tokens) * dims.qkv_cols() / 2)),
         kThreads, 0, stream, qkv, dims, step, cos, sin, cache);
}

void launch_silu_mul(const float* gate_up, int tokens, int cols, float* out, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(tokens) * cols;
  launch(silu_mul_rows, dim3(blocks_of(count)), kThreads, 0, stream, gate_up, count, cols, out);
}

void launch_gather_rows(const float* x, const int32_t* rows, int count, int cols, float* out,
                        cudaStream_t stream) {
  launch(gather_rows, dim3(static_cast<unsigned>(count)), kThreads, 0, stream, x, rows, cols, out);
}

void launch_read(const void* data, int64_t bytes, uint32_t* sums, int processors,
                 cudaStream_t stream) {
  launch(read_words, dim3(static_cast<unsigned>(4 * processors)), 512, 0, stream,
         static_cast<const uint4*>(data), bytes / 16, sums);
}

}  // namespace lowbit::cuda
