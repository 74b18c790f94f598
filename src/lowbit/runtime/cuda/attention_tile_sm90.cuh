// The kernel of attention_tile, for pages of one type; what it does is said in
// attention_tile_sm90.cu.
#pragma once

#include "lowbit/runtime/cuda/attention_sm90.cuh"
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/tile_pages_sm90.cuh"

namespace lowbit::cuda {

constexpr int kGroupRows = 64;
constexpr int kBlockRows = kGroups * kGroupRows;
constexpr int kTileThreads = (kGroups + 1) * 128;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What a warpgroup computes: 64 rows of a tile.
template <int kDim, CacheType kType>
class Consumer {
 public:
  using M = TileMemory<kDim, kType>;
  static constexpr int kSums = kDim / 2;  // of a thread

  __device__ Consumer(const AttentionLaunch& launch, const Tile& t, const Stages<kDim, kType>& s)
      : a(launch), tile(t), stages(s) {
    const int thread = static_cast<int>(threadIdx.x);
    group = thread / 128 - 1;
    lane = thread % 32;
    row = group * kGroupRows + thread % 128 / 32 * 16 + lane / 4;
    for (int h = 0; h < 2; ++h) position[h] = tile.position_of(row + 8 * h);
  }

  __device__ void run() {
    load_queries();
#pragma unroll
    for (int i = 0; i < kSums; ++i) all[i] = sums[i] = 0;
    const int pages = tile.end_page - tile.first_page;
    begin_scores(0);
    products_wait<0>();
    barrier_arrive(stages.freed(0, 0));
    float factors[2];
    soften(0, true, factors);
    pack();
#pragma unroll 1
    for (int i = 0; i + 1 < pages; ++i) {
      const bool ends = (tile.first_page + i + 1) % kSpanPages == 0;
      begin_scores(i + 1);
      barrier_wait(stages.arrived(1, i), stages.parity(i));
      begin_values(i);
      const RowSoftmax before[2] = {span[0], span[1]};
      products_wait<1>();
      barrier_arrive(stages.freed(0, i + 1));
      soften(i + 1, ends, factors);
      products_wait<0>();
      barrier_arrive(stages.freed(1, i));
      if (ends) {
        end_span(before);
      } else {
#pragma unroll
        for (int k = 0; k < kSums; ++k) sums[k] = __fmul_rn(sums[k], factors[k / 2 % 2]);
      }
      pack();
    }
    barrier_wait(stages.arrived(1, pages - 1), stages.parity(pages - 1));
    if constexpr (!is_coded(kType)) clear_unwritten(stages.values(pages - 1));
    begin_values(pages - 1);
    products_wait<0>();
    end_span(span);
    write();
  }

 private:
  // The thread's part of the scaled queries.
  __device__ void load_queries() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int of_tile = row + 8 * h;
      const bool valid = of_tile < tile.rows;
      const float* from = a.qkv + offset_of(valid ? of_tile : 0, a.dims.qkv_cols());
#pragma unroll
      for (int g = 0; g < kDim / 8; ++g) {
        const float2 v = *reinterpret_cast<const float2*>(from + g * 8);
        const uint32_t halves =
            pack_halves(__fmul_rn(v.x, a.score_scale), __fmul_rn(v.y, a.score_scale));
        q[g / 2][g % 2 * 2 + h] = valid ? halves : 0;
      }
    }
  }
  // Of the thread's first value of a row, in rows of `columns` that begin with the query heads.
  __device__ int64_t offset_of(int of_tile, int columns) const {
    const int token = tile.queries.first + of_tile / tile.heads;
    const int head = tile.kv_head * tile.heads + of_tile % tile.heads;
    return static_cast<int64_t>(token) * columns + head * kDim + lane % 4 * 2;
  }
  // After writes to shared memory that products read.
  __device__ void group_sync() const {
    writes_to_async();
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
  }

  __device__ void begin_scores(int i) {
    barrier_wait(stages.arrived(0, i), stages.parity(i));
    const uint32_t keys = stages.keys(i);
    products_fence();
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      product_step(scores, q[step], describe(keys + step / 4 * kPartBytes + step % 4 * 32),
                   step > 0);
    }
    products_commit();
  }

  __device__ void begin_values(int i) {
    products_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if constexpr (is_coded(kType)) {
        add_product<true>(sums, weights[step], describe(stages.values(i) + step * 32));
      } else {
        add_product<false>(sums, weights[step],
                           describe(stages.values(i) + step * 16 * 128, kPartBytes));
      }
    }
    products_commit();
  }

  // Makes weights of scores. factors: of what was summed of the span before.
  __device__ void soften(int i, bool begins, float (&factors)[2]) {
    const int page = tile.first_page + i, first = page * kPageKeys;
    if (first + kPageKeys - 1 > tile.queries.position ||
        first < first_key(a.dims, tile.last_position())) {
      mask(first);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = fmaxf(scores[2 * h], scores[2 * h + 1]);
#pragma unroll
      for (int k = 1; k < 8; ++k) {
        largest = fmaxf(largest, fmaxf(scores[4 * k + 2 * h], scores[4 * k + 2 * h + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float before = begins ? -INFINITY : span[h].max;
      span[h].max = fmaxf(before, largest);
      const float reference = reference_of(span[h].max);
      factors[h] = exp2_of(before - reference);
      float pairs[8];
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        float& x = scores[4 * k + 2 * h];
        float& y = scores[4 * k + 2 * h + 1];
        x = exp2_of(x - reference);
        y = exp2_of(y - reference);
        pairs[k] = x + y;
      }
      span[h].sum = add_weights(begins ? 0.f : span[h].sum, factors[h],
                                make_float4(pairs[0] + pairs[1], pairs[2] + pairs[3],
                                            pairs[4] + pairs[5], pairs[6] + pairs[7]));
    }
  }
  __device__ void mask(int first) {
#pragma unroll
    for (int k = 0; k < 32; ++k) {
      const int key = first + k / 4 * 8 + lane % 4 * 2 + k % 2, at = position[k / 2 % 2];
      if (key > at || key < first_key(a.dims, at)) scores[k] = -INFINITY;
    }
  }
  __device__ void pack() {
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      weights[k / 4][k % 4] = pack_halves(scores[2 * k], scores[2 * k + 1]);
    }
  }
  // Values behind the last query may never have been written, and are multiplied by 0. Every group
  // clears them.
  __device__ void clear_unwritten(uint32_t values) const {
    const int written = tile.last_position() % kPageKeys + 1;
    if (written == kPageKeys) return;
    for (int i = written * 8 + static_cast<int>(threadIdx.x) % 128; i < kPageKeys * 8; i += 128) {
      for (int part = 0; part < M::kParts; ++part) {
        asm volatile(
            "st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(values + part * kPartBytes + i * 16),
            "r"(0)
            : "memory");
      }
    }
    group_sync();
  }

  __device__ void end_span(const RowSoftmax (&ended)[2]) {
    float2 w[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      w[h] = merge_spans(softmax[h], {ended[h].max, sum_of_row(ended[h].sum)});
    }
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      all[k] = merged_value(all[k], sums[k], w[k / 2 % 2]);
      sums[k] = 0;
    }
  }
  __device__ void write() const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int of_tile = row + 8 * h;
      if (of_tile >= tile.rows) continue;
      float* out = a.out + offset_of(of_tile, a.dims.heads * kDim);
#pragma unroll
      for (int k = 0; k < kDim / 8; ++k) {
        *reinterpret_cast<float2*>(out + 8 * k) =
            make_float2(__fdiv_rn(all[4 * k + 2 * h], softmax[h].sum),
                        __fdiv_rn(all[4 * k + 2 * h + 1], softmax[h].sum));
      }
    }
  }

  const AttentionLaunch& a;
  const Tile& tile;
  const Stages<kDim, kType>& stages;
  uint32_t q[kDim / 16][4];
  int group, lane, row;
  int position[2];
  float scores[32];  // of a page; then weights
  uint32_t weights[4][4];
  RowSoftmax span[2];  // of the span: `sum` is that of the thread's keys
  float sums[kSums];
  RowSoftmax softmax[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
  float all[kSums];
};

#endif

template <int kDim, CacheType kType>
__global__ void __launch_bounds__(kTileThreads, 1)
    attend_tile(const __grid_constant__ AttentionLaunch a, const __grid_constant__ PageMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using M = TileMemory<kDim, kType>;
  extern __shared__ uint8_t shared[];
  __shared__ __align__(8) uint64_t barriers[M::kBarriers];
  grid_start();
  const Tile tile(a, static_cast<int>(blockIdx.x));
  const Stages<kDim, kType> stages{(address_in_shared(shared) + 1023) / 1024 * 1024,
                                   address_in_shared(barriers)};
  if (threadIdx.x == 0) stages.initialize();
  __syncthreads();
  grid_wait();
  if (threadIdx.x < 128) {
    if constexpr (is_coded(kType)) {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    } else {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    }
    fill_stages(a, tile, stages, maps);
  } else {
    if constexpr (is_coded(kType)) {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    } else {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    }
    Consumer<kDim, kType> consumer(a, tile, stages);
    consumer.run();
  }
#endif
}

template <int kDim, CacheType kType>
void launch_tile(const AttentionLaunch& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(a.block_count * a.dims.kv_heads));
  launch(attend_tile<kDim, kType>, grid, kTileThreads, size_t{TileMemory<kDim, kType>::kBytes},
         stream, a, is_coded(kType) ? PageMaps{} : page_maps(a));
}
template <CacheType kType>
void launch_tile(const AttentionLaunch& a, cudaStream_t stream) {
  if (a.dims.head_dim == 64) return launch_tile<64, kType>(a, stream);
  launch_tile<128, kType>(a, stream);
}

}  // namespace lowbit::cuda
