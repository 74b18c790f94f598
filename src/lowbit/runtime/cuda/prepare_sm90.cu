// Inputs in 16 bits, in the order in which wgmma reads them.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/wide.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kHeld = 2;  // steps of 16 inputs that a thread keeps from the search for the largest

struct Step {
  float4 quads[4];
};
__device__ Step load_step(const PackedMatrix& m, const float* x, int step) {
  Step s;
#pragma unroll
  for (int i = 0; i < 4; ++i) s.quads[i] = load_inputs(m, x, step * 16 + 4 * i);
  return s;
}

__device__ uint32_t pair(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}

// Rounds a step of a column and stores it; what is lost stays in `s`. All lanes of a warp take
// part.
template <Storage kStorage>
__device__ void store_step(int fold, Step& s, int step, bool valid, int64_t column,
                           const WideInput& out) {
  Quad q[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) q[i] = take_quad<kStorage>(s.quads[i]);
  // Lane l of those that multiply wants inputs 4 * l to 4 * l + 3, as values 2 * l, 2 * l + 1, and
  // 8 + 2 * l, 9 + 2 * l.
  uint4 first, second;
  first = make_uint4(pair(q[0].values.x, q[0].values.y), pair(q[1].values.x, q[1].values.y),
                     pair(q[2].values.x, q[2].values.y), pair(q[3].values.x, q[3].values.y));
  second = make_uint4(pair(q[0].values.z, q[0].values.w), pair(q[1].values.z, q[1].values.w),
                      pair(q[2].values.z, q[2].values.w), pair(q[3].values.z, q[3].values.w));
  auto* to =
      reinterpret_cast<uint4*>(reinterpret_cast<uint8_t*>(out.values) +
                               (step / kUnitSteps * out.stride + column / 8 * 8) * kColumnBytes +
                               step % kUnitSteps / 4 * kHalfBytes + column % 8 * 128);
  const int swizzle = static_cast<int>(column % 8), at = step % 4 * 2;
  if (valid) {
    to[at ^ swizzle] = first;
    to[(at + 1) ^ swizzle] = second;
  }
  if constexpr (is_integer(kStorage)) {
    float sum = (q[0].sum + q[1].sum) + (q[2].sum + q[3].sum);
    for (int offset = 1; offset < fold; offset *= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    if (valid && step % fold == 0) out.sums[step / fold * out.stride + column] = sum;
  }
}

// One block per token; a multiple of 32 threads.
template <Storage kStorage>
__global__ void __launch_bounds__(512)
    prepare_wide(const PackedMatrix m, const LinearInput in, const WideInput out) {
  __shared__ float largest[16];
  grid_start();
  grid_wait();
  const int64_t token = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int steps = m.units * kUnitSteps;
  const float* x = in.x + token * m.cols;
  const int first = thread - thread % 32;  // of the warp, which stays together
  Step held[kHeld];
  float mine = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (first + i * threads >= steps) continue;
    held[i] = load_step(m, x, thread + i * threads);
    for (const float4& quad : held[i].quads) mine = fmaxf(mine, largest_of(quad));
  }
  float scale = 1;
  if constexpr (kStorage != Storage::kBF16) {
    for (int step = thread + kHeld * threads; step < steps; step += threads) {
      const Step s = load_step(m, x, step);
      for (const float4& quad : s.quads) mine = fmaxf(mine, largest_of(quad));
    }
    scale = token_scale(largest_of_block(mine, largest));
  }
  if (thread == 0) out.scales[token] = scale;
  const float inverse = 1.f / scale;
  const int64_t column = in.split ? 2 * token : token;
  const auto store = [&](Step s, int step) {
#pragma unroll
    for (float4& v : s.quads) {
      v = make_float4(v.x * inverse, v.y * inverse, v.z * inverse, v.w * inverse);
    }
    store_step<kStorage>(m.fold, s, step, step < steps, column, out);
    if (in.split) store_step<kStorage>(m.fold, s, step, step < steps, column + 1, out);
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (first + i * threads < steps) store(held[i], thread + i * threads);
  }
  for (int at = kHeld * threads; first + at < steps; at += threads) {
    store(load_step(m, x, thread + at), thread + at);
  }
}

template <Storage kStorage>
void launch_prepare(const PackedMatrix& m, const LinearInput& in, const WideInput& out,
                    cudaStream_t stream) {
  const int steps = m.units * kUnitSteps;
  const int threads = std::min(512, (steps + 31) / 32 * 32);
  launch(prepare_wide<kStorage>, dim3(static_cast<unsigned>(in.tokens)), threads, 0, stream, m, in,
         out);
}

}  // namespace

void launch_prepare_wide(const PackedMatrix& matrix, const LinearInput& input,
                         const WideInput& wide, cudaStream_t stream) {
  with_kernel_of(matrix, [&](auto storage, auto) {
    launch_prepare<storage.value>(matrix, input, wide, stream);
  });
}

}  // namespace lowbit::cuda
