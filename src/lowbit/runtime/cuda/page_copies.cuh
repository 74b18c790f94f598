// How pages of the cache come into shared memory: a page of keys or values as parts of 64 keys x 64
// dimensions, which are swizzled: of rows of 128 bytes, chunk c of row r lies at chunk c ^ (r % 8).
// By bulk tensor copies, of sm_90.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cuda/page_maps.h"

namespace lowbit::cuda {

constexpr int kPartBytes = 64 * 128;

__device__ inline uint32_t address_in_shared(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Barriers in shared memory.
__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the last barrier_init; the threads must meet before they use them.
__device__ inline void barriers_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(barrier)
               : "memory");
}
__device__ inline bool barrier_passed(uint32_t barrier, uint32_t parity) {
  uint32_t passed;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(passed)
      : "r"(barrier), "r"(parity)
      : "memory");
  return passed != 0;
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  while (!barrier_passed(barrier, parity)) {
  }
}

// What threads wrote to shared memory comes before later bulk copies and warpgroup products.
__device__ inline void writes_to_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// For the second cache: what is read once goes first; what is read again stays as long as other
// data.
__device__ inline uint64_t read_once() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline uint64_t read_often() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_unchanged.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Copies a page of keys or values, arriving at a barrier of one; all lanes of a warp. page: which
// of the layer's [blocks][kv_heads].
template <int kDim>
__device__ inline void copy_page(uint32_t to, const CUtensorMap* map, int64_t page,
                                 uint32_t barrier, uint64_t policy) {
  constexpr int kParts = (kDim + 63) / 64;
  if (threadIdx.x % 32 != 0) return;
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
               "r"(kParts * kPartBytes)
               : "memory");
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to + part * kPartBytes),
        "l"(map), "r"(part * 64), "r"(static_cast<int>(page) * 64), "r"(barrier), "l"(policy)
        : "memory");
  }
}

// True in one lane of a warp of which all take part.
__device__ inline bool elected() {
  uint32_t chosen;
  asm volatile("{.reg .pred one;\nelect.sync _|one, 0xffffffff;\nselp.b32 %0, 1, 0, one;}"
               : "=r"(chosen));
  return chosen != 0;
}
// Copies a page of codes, as it is; one thread. bytes: a multiple of 16.
__device__ inline void copy_codes(uint32_t to, const void* from, int bytes, uint32_t barrier,
                                  uint64_t policy) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

}  // namespace lowbit::cuda
