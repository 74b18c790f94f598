// How the kernel for few queries reads pages: a ring of stages in shared memory that bulk copies
// fill, and the products of its four warps. Each scores 16 of a page's keys and sums every fourth
// tile of 8 of the values' dimensions. Pages of halves are swizzled as page_copies.cuh says; those
// of codes lie as kv_pages.h says, and become halves in registers.
#pragma once

#include "lowbit/runtime/cuda/attention.cuh"
#include "lowbit/runtime/cuda/kv_codes.cuh"
#include "lowbit/runtime/cuda/page_copies.cuh"

namespace lowbit::cuda {

// Where a page is in the ring, and the parity of its barriers.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
};

// Stages for pages of keys and of values.
template <int kDim, CacheType kType>
struct Ring {
  static constexpr int kParts = kDim / 64;
  static constexpr int kPlane = is_coded(kType) ? page_bytes(kType, kDim) : kParts * kPartBytes;
  static constexpr int kMostStages = 12;
  uint32_t memory, barriers;
  int stages;

  // which: 0 keys, 1 values
  __device__ uint32_t plane(int which, const Place& at) const {
    return memory + (at.stage * 2 + which) * kPlane;
  }
  __device__ uint32_t arrived(int which, const Place& at) const {
    return barriers + 8 * (which * kMostStages + at.stage);
  }
  __device__ uint32_t freed(int which, const Place& at) const { return arrived(2 + which, at); }
  __device__ Place next(const Place& at) const {
    if (at.stage + 1 < stages) return {at.stage + 1, at.parity};
    return {0, at.parity ^ 1};
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kComputing = 128;  // threads; those behind them copy

// The threads that compute wait for each other.
__device__ inline void computing_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kComputing) : "memory");
}
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline const uint8_t* in_shared(uint32_t address) {
  return static_cast<const uint8_t*>(__cvta_shared_to_generic(address));
}

// The products of a warp with pages of halves.
template <int kDim, CacheType kType>
struct PageProducts {
  using R = Ring<kDim, kType>;
  static constexpr int kSteps = kDim / 16;  // of 16 dimensions
  static constexpr int kTiles = kDim / 32;  // of 8 dimensions, of a warp
  int warp, lane;

  // Byte at which a value of a key of a page stands.
  static __device__ int place_in_page(int key, int d) {
    return d / 64 * kPartBytes + key * 128 + (d % 64 / 8 ^ key % 8) * 16 + d % 8 * 2;
  }
  // Scores of the warp's keys of two pages: scores[page][8 keys].
  __device__ void score(const uint32_t (&planes)[2], const uint32_t (&q)[kSteps][4],
                        float (&scores)[2][2][4]) const {
    const int key = warp * 16 + lane % 8 + lane / 16 * 8, chunk = lane / 8 % 2 ^ lane % 8;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t place = key * 128 + step / 4 * kPartBytes + (step % 4 * 2 ^ chunk) * 16;
      uint32_t b[2][4];
      load_matrices(b[0], planes[0] + place);
      load_matrices(b[1], planes[1] + place);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        multiply_halves(scores[n][0], q[step], b[n][0], b[n][1]);
        multiply_halves(scores[n][1], q[step], b[n][2], b[n][3]);
      }
    }
  }
  // Adds the weighted values of a page. weights: where the lane reads those of the page.
  __device__ void add_values(uint32_t plane, uint32_t weights, float (&sums)[kTiles][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t p[2][4], b[kTiles][4];
      load_matrices(p[0], weights + half * 64);
      load_matrices(p[1], weights + half * 64 + 32);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        load_transposed(b[i], plane + place_in_page(half * 32 + lane, (warp + 4 * i) * 8));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          multiply_halves(sums[i], p[step], b[i][2 * step], b[i][2 * step + 1]);
        }
      }
    }
  }
  // The same with queries as the products' columns: scores[page], of all of the warp's keys; and
  // sums of pairs of tiles.
  __device__ void score_columns(const uint32_t (&planes)[2], const uint32_t (&q)[kSteps][2],
                                float (&scores)[2][4]) const {
    const int key = warp * 16 + lane % 8 + lane / 16 * 8, chunk = lane / 8 % 2 ^ lane % 8;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t place = key * 128 + step / 4 * kPartBytes + (step % 4 * 2 ^ chunk) * 16;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        uint32_t b[4];
        load_matrices(b, planes[n] + place);
        multiply_halves(scores[n], {b[0], b[2], b[1], b[3]}, q[step][0], q[step][1]);
      }
    }
  }
  __device__ void add_value_columns(uint32_t plane, uint32_t weights,
                                    float (&sums)[kTiles / 2][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t p[4], b[kTiles][4];
      load_matrices(p, weights + half * 64);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        load_transposed(b[i], plane + place_in_page(half * 32 + lane, (warp + 4 * i) * 8));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
#pragma unroll
        for (int i = 0; i < kTiles; i += 2) {
          multiply_halves(
              sums[i / 2],
              {b[i][2 * step], b[i + 1][2 * step], b[i][2 * step + 1], b[i + 1][2 * step + 1]},
              p[2 * step], p[2 * step + 1]);
        }
      }
    }
  }
  // Values behind the last query may never have been written, and are multiplied by 0: makes them
  // finite.
  static __device__ void clear_unwritten(int written, uint32_t plane) {
    for (int i = written * 8 + static_cast<int>(threadIdx.x); i < kPageKeys * 8; i += kComputing) {
      for (int part = 0; part < R::kParts; ++part) {
        asm volatile(
            "st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(plane + part * kPartBytes + i * 16),
            "r"(0)
            : "memory");
      }
    }
  }
};

// The same with pages of codes.
template <int kDim, CacheType kType>
requires(is_coded(kType)) struct PageProducts<kDim, kType> {
  static constexpr int kSteps = kDim / 16, kTiles = kDim / 32;
  static constexpr int kWords = lane_words(kType, kDim);
  static constexpr int kScales = kPageKeys * row_bytes(kType, kDim);
  static constexpr bool kFourBits = kType == CacheType::kInt4;
  static constexpr int kWordSteps = kFourBits ? 2 : 1;  // of keys
  int warp, lane;

  // 16 bytes of the lane's codes.
  __device__ uint4 load_chunk(const uint8_t* page, int chunk) const {
    return *reinterpret_cast<const uint4*>(page + word_place(kType, kDim, warp, lane, 4 * chunk));
  }
  static __device__ uint32_t word_of(const uint4& chunk, int word) {
    return word % 4 == 0 ? chunk.x : word % 4 == 1 ? chunk.y : word % 4 == 2 ? chunk.z : chunk.w;
  }

  // Calls use(page, step, operands of keys 0 to 7, of keys 8 to 15) for each 16 dimensions.
  template <typename Use>
  __device__ void for_keys(const uint32_t (&planes)[2], const Use& use) const {
    const uint8_t* const pages[2] = {in_shared(planes[0]), in_shared(planes[1])};
    uint4 chunks[2][2];
    KvScales scales[2][2];
#pragma unroll
    for (int step = 0; step < kSteps; step += kWordSteps) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        uint32_t b[kWordSteps][2][2];
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const int word = (row * kSteps + step) / kWordSteps;
          if (step == 0 || word % 4 == 0) chunks[n][row] = load_chunk(pages[n], word / 4);
          if (step == 0 || (kFourBits && step % 4 == 0)) {
            scales[n][row] = scales_of_key<kType>(
                pages[n] + kScales, warp * 16 + row * 8 + lane / 4, step * 16 / kKvGroupDims);
          }
          const uint32_t codes = word_of(chunks[n][row], word);
          const KvScales& s = scales[n][row];
          if constexpr (kFourBits) {
            b[0][row][0] = widen_nibbles<0>(codes, s.scale[0], s.offset[0]);
            b[0][row][1] = widen_nibbles<1>(codes, s.scale[0], s.offset[0]);
            b[1][row][0] = widen_nibbles<2>(codes, s.scale[0], s.offset[0]);
            b[1][row][1] = widen_nibbles<3>(codes, s.scale[0], s.offset[0]);
          } else {
            widen_codes<kType>(codes, s, b[0][row]);
          }
        }
#pragma unroll
        for (int i = 0; i < kWordSteps; ++i) use(n, step + i, b[i][0], b[i][1]);
      }
    }
  }
  // Calls use(step, tile, operands of it, of the next tile) for each 16 keys and two tiles.
  template <typename Use>
  __device__ void for_values(uint32_t plane, const Use& use) const {
    const uint8_t* page = in_shared(plane);
    uint4 chunk;
#pragma unroll
    for (int step = 0; step < kPageKeys / 16; ++step) {
      KvScales s;
#pragma unroll
      for (int i = 0; i < kTiles; i += 2) {
        if (i == 0 || kFourBits) {
          s = scales_of_values<kType, true>(page + kScales, step * 16 + lane % 4 * 2,
                                            i * 32 / kKvGroupDims, kPageKeys);
        }
        uint32_t b[2][2];
        if constexpr (kFourBits) {
          const int word = (step * kTiles + i) / 2;
          if (word % 4 == 0) chunk = load_chunk(page, word / 4);
          const uint32_t codes = word_of(chunk, word);
          b[0][0] = widen_nibbles<0>(codes, s.scale[0], s.offset[0]);
          b[1][0] = widen_nibbles<1>(codes, s.scale[0], s.offset[0]);
          b[0][1] = widen_nibbles<2>(codes, s.scale[1], s.offset[1]);
          b[1][1] = widen_nibbles<3>(codes, s.scale[1], s.offset[1]);
        } else {
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            const int word = step * kTiles + i + k;
            if (word % 4 == 0) chunk = load_chunk(page, word / 4);
            widen_codes<kType>(word_of(chunk, word), s, b[k]);
          }
        }
        use(step, i, b[0], b[1]);
      }
    }
  }

  __device__ void score(const uint32_t (&planes)[2], const uint32_t (&q)[kSteps][4],
                        float (&scores)[2][2][4]) const {
    for_keys(planes, [&](int n, int step, const uint32_t(&low)[2], const uint32_t(&high)[2]) {
      multiply_halves(scores[n][0], q[step], low[0], low[1]);
      multiply_halves(scores[n][1], q[step], high[0], high[1]);
    });
  }
  __device__ void score_columns(const uint32_t (&planes)[2], const uint32_t (&q)[kSteps][2],
                                float (&scores)[2][4]) const {
    for_keys(planes, [&](int n, int step, const uint32_t(&low)[2], const uint32_t(&high)[2]) {
      multiply_halves(scores[n], {low[0], high[0], low[1], high[1]}, q[step][0], q[step][1]);
    });
  }
  __device__ void add_values(uint32_t plane, uint32_t weights, float (&sums)[kTiles][4]) const {
    uint32_t p[4];
    for_values(plane, [&](int step, int i, const uint32_t(&b)[2], const uint32_t(&next)[2]) {
      if (i == 0) load_matrices(p, weights + step * 32);
      multiply_halves(sums[i], p, b[0], b[1]);
      multiply_halves(sums[i + 1], p, next[0], next[1]);
    });
  }
  __device__ void add_value_columns(uint32_t plane, uint32_t weights,
                                    float (&sums)[kTiles / 2][4]) const {
    uint32_t p[4];
    for_values(plane, [&](int step, int i, const uint32_t(&b)[2], const uint32_t(&next)[2]) {
      if (i == 0 && step % 2 == 0) load_matrices(p, weights + step * 32);
      multiply_halves(sums[i / 2], {b[0], next[0], b[1], next[1]}, p[step % 2 * 2],
                      p[step % 2 * 2 + 1]);
    });
  }
  // Scales of 0 suffice: no code is a NaN.
  static __device__ void clear_unwritten(int written, uint32_t plane) {
    constexpr int kBytes = kType == CacheType::kInt4 ? 4 : scale_bytes(kType, kDim);
    constexpr int kGroups = kType == CacheType::kInt4 ? kv_groups(kDim) : 1;
    const int key = written + static_cast<int>(threadIdx.x);
    if (key >= kPageKeys) return;
    for (int group = 0; group < kGroups; ++group) {
      const uint32_t at = plane + kScales + scale_place(kType, key, group);
      if constexpr (kBytes == 2) {
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(at), "h"(uint16_t{0}) : "memory");
      } else {
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(0) : "memory");
      }
    }
  }
};

#endif

}  // namespace lowbit::cuda
