// How the kernels for few queries put the newest key and value of a sequence into its last page.
#pragma once

#include "lowbit/runtime/cuda/elementwise.cuh"
#include "lowbit/runtime/cuda/few_pages_sm90.cuh"

namespace lowbit::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <typename T>
__device__ void store_shared(uint32_t address, T value) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}

// The newest key, rotated, and value, which a block whose kRotates puts into the page and the
// cache.
template <int kDim, CacheType kType>
class Newest {
 public:
  static constexpr int kHalf = kDim / 2;

  // A pair for each of the first threads; token: its row of q, k and v.
  __device__ void load(const AttentionLaunch& a, const float* token, int kv_head, int position,
                       float (&)[2][kDim]) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= kHalf) return;
    const int64_t at = static_cast<int64_t>(position) * kHalf + thread;
    const float* from = token + (a.dims.heads + kv_head) * kDim + thread;
    const float* v = from + a.dims.kv_heads * kDim;
    const float2 rotated = rotate(from[0], from[kHalf], a.cos[at], a.sin[at]);
    key = pack_halves(rotated.x, rotated.y);
    value = pack_halves(v[0], v[kHalf]);
  }
  // keys, values: the page in shared memory. to[2]: in the cache, or null.
  __device__ void put(int row, uint32_t keys, uint32_t values, void* const (&to)[2],
                      float (&)[2][kDim]) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= kHalf) return;
    put_pair(key, row, keys, to[0]);
    put_pair(value, row, values, to[1]);
  }

 private:
  __device__ void put_pair(uint32_t pair, int row, uint32_t plane, void* to) const {
    using Products = PageProducts<kDim, kType>;
    const int thread = static_cast<int>(threadIdx.x);
    const auto first = static_cast<uint16_t>(pair), second = static_cast<uint16_t>(pair >> 16);
    store_shared(plane + Products::place_in_page(row, thread), first);
    store_shared(plane + Products::place_in_page(row, thread + kHalf), second);
    if (to == nullptr) return;
    auto* halves = static_cast<uint16_t*>(to) + row * kDim + thread;
    halves[0] = first;
    halves[kHalf] = second;
  }

  uint32_t key, value;
};

// In few bits: a warp rounds the key, another the value.
template <int kDim, CacheType kType>
requires(is_coded(kType)) class Newest<kDim, kType> {
 public:
  static constexpr int kHalf = kDim / 2;

  __device__ void load(const AttentionLaunch& a, const float* token, int kv_head, int position,
                       float (&shared)[2][kDim]) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kHalf) {
      const int64_t at = static_cast<int64_t>(position) * kHalf + thread;
      const float* from = token + (a.dims.heads + kv_head) * kDim + thread;
      const float* v = from + a.dims.kv_heads * kDim;
      const float2 rotated = rotate(from[0], from[kHalf], a.cos[at], a.sin[at]);
      shared[0][thread] = rotated.x;
      shared[0][thread + kHalf] = rotated.y;
      shared[1][thread] = v[0];
      shared[1][thread + kHalf] = v[kHalf];
    }
    computing_sync();
  }
  __device__ void put(int row, uint32_t keys, uint32_t values, void* const (&to)[2],
                      float (&shared)[2][kDim]) const {
    const int which = static_cast<int>(threadIdx.x) / 32;
    if (which >= 2) return;
    if (which == 0 && kType == CacheType::kInt4) mix_in_memory<kDim / 32>(shared[0], true);
    const uint32_t plane = which == 0 ? keys : values;
    auto* page = static_cast<uint8_t*>(which == 0 ? to[0] : to[1]);
    round_row(
        kType, shared[which], kDim, which, row,
        [&](int byte, uint32_t code) {
          asm volatile("st.shared.u8 [%0], %1;" ::"r"(plane + byte), "r"(code) : "memory");
          if (page != nullptr) page[byte] = static_cast<uint8_t>(code);
        },
        [&](int byte, uint32_t bits, int bytes) {
          const int at = kPageKeys * row_bytes(kType, kDim) + byte;
          if (bytes == 2) {
            store_shared(plane + at, static_cast<uint16_t>(bits));
            if (page != nullptr)
              *reinterpret_cast<uint16_t*>(page + at) = static_cast<uint16_t>(bits);
          } else {
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(plane + at), "r"(bits) : "memory");
            if (page != nullptr) *reinterpret_cast<uint32_t*>(page + at) = bits;
          }
        });
  }
};

#endif

}  // namespace lowbit::cuda
