// How pages come to the kernel for many queries: stages of keys and of values in shared memory,
// halves swizzled as page_copies.cuh says. One warp asks for pages of halves; pages of codes are
// asked for as they are, and four warps widen them.
#pragma once

#include "lowbit/runtime/cuda/attention.cuh"
#include "lowbit/runtime/cuda/kv_codes.cuh"
#include "lowbit/runtime/cuda/page_copies.cuh"

namespace lowbit::cuda {

constexpr int kGroups = 2;  // warpgroups that compute

template <int kDim, CacheType kType>
struct TileMemory {
  static constexpr int kParts = kDim / 64;
  static constexpr int kPlane = kParts * kPartBytes;  // of a page of keys or values
  static constexpr int kStages = kDim > 64 ? 5 : 8;
  static constexpr int kRawStages = is_coded(kType) ? 2 : 0;
  static constexpr int kRawPage = is_coded(kType) ? page_bytes(kType, kDim) : 0;
  static constexpr int kBarriers = 4 * kStages + kRawStages;
  static constexpr int kBytes =
      2 * kStages * kPlane + 2 * kRawStages * kRawPage + 1024;  // to align
  // Arrivals that make a stage full; registers of a thread that fills, and of one that computes.
  static constexpr int kFillers = is_coded(kType) ? 128 : 1;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Tile {
  QueryBlock queries;
  int kv_head, heads, rows;
  int first_page, end_page;

  __device__ Tile(const AttentionLaunch& a, int index) {
    // Tiles of many pages first: those of few fill what is left at the end.
    queries = a.blocks[a.block_count - 1 - index / a.dims.kv_heads];
    kv_head = index % a.dims.kv_heads;
    heads = a.dims.heads / a.dims.kv_heads;
    rows = queries.count * heads;
    first_page = first_key(a.dims, queries.position) / kPageKeys;
    end_page = last_position() / kPageKeys + 1;
  }
  __device__ int last_position() const { return queries.position + queries.count - 1; }
  __device__ int position_of(int row) const {
    return queries.position + min(row / heads, queries.count - 1);
  }
};

// Stages of keys and of values, each with a barrier for "arrived" and one for "free".
template <int kDim, CacheType kType>
struct Stages {
  using M = TileMemory<kDim, kType>;
  uint32_t memory, barriers;

  __device__ uint32_t keys(int i) const { return memory + i % M::kStages * M::kPlane; }
  __device__ uint32_t values(int i) const {
    return memory + (M::kStages + i % M::kStages) * M::kPlane;
  }
  __device__ uint32_t parity(int i) const { return static_cast<uint32_t>(i / M::kStages % 2); }
  // which: 0 keys, 1 values
  __device__ uint32_t arrived(int which, int i) const {
    return barriers + 8 * (which * M::kStages + i % M::kStages);
  }
  __device__ uint32_t freed(int which, int i) const { return arrived(which, i) + 16 * M::kStages; }
  __device__ void wait_free(int which, int i) const {
    if (i >= M::kStages) barrier_wait(freed(which, i), parity(i) ^ 1);
  }
  // Pages of codes as they are.
  __device__ uint32_t raw(int which, int i) const {
    return memory + 2 * M::kStages * M::kPlane + (i % 2 * 2 + which) * M::kRawPage;
  }
  __device__ uint32_t raw_arrived(int i) const { return barriers + 8 * (4 * M::kStages + i % 2); }

  __device__ void initialize() const {
    for (int i = 0; i < M::kStages; ++i) {
      for (int which = 0; which < 2; ++which) {
        barrier_init(arrived(which, i), M::kFillers);
        barrier_init(freed(which, i), kGroups * 128);
      }
    }
    for (int i = 0; i < M::kRawStages; ++i) barrier_init(raw_arrived(i), 2);
    barriers_ready();
  }
};

// Asks for the pages of a tile; one warp.
template <int kDim>
__device__ void fill_stages(const AttentionLaunch& a, const Tile& tile,
                            const Stages<kDim, CacheType::kF16>& stages, const PageMaps& maps) {
  if (threadIdx.x >= 32) return;
  const uint64_t policy = read_often();
  int64_t blocks = 0;  // a lane's, of the next 32
  for (int page = tile.first_page, i = 0; page < tile.end_page; ++page, ++i) {
    if (i % 32 == 0) {
      const int lane = static_cast<int>(threadIdx.x) % 32;
      blocks = a.step.tables[tile.queries.table + min(page + lane, tile.end_page - 1)];
    }
    const int64_t block = __shfl_sync(0xffffffffu, blocks, i % 32);
    const int64_t place = block * a.dims.kv_heads + tile.kv_head;
    stages.wait_free(0, i);
    copy_page<kDim>(stages.keys(i), &maps.keys, place, stages.arrived(0, i), policy);
    stages.wait_free(1, i);
    copy_page<kDim>(stages.values(i), &maps.values, place, stages.arrived(1, i), policy);
  }
}

// Four warps that widen pages of codes. Each takes the words that attention_few's warp of the same
// number multiplies.
template <int kDim, CacheType kType>
class Widener {
 public:
  static constexpr int kSteps = kDim / 16, kTiles = kDim / 32;
  static constexpr int kChunks = lane_words(kType, kDim) / 4;
  static constexpr int kScales = kPageKeys * row_bytes(kType, kDim);
  static constexpr bool kFourBits = kType == CacheType::kInt4;

  __device__ Widener() {
    warp = static_cast<int>(threadIdx.x) / 32;
    lane = static_cast<int>(threadIdx.x) % 32;
  }

  // A row of the stage is a key; a lane has pairs of dimensions of a key.
  __device__ void keys(uint32_t raw, uint32_t stage) const {
    const uint8_t* page = pointer(raw);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const uint4 words = load_chunk(page, chunk);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int first = (4 * chunk + i) * (kFourBits ? 2 : 1);  // of the word's steps
        const int row = first / kSteps, step = first % kSteps;
        const int key = warp * 16 + row * 8 + lane / 4;
        const KvScales s = scales_of_key<kType>(page + kScales, key, step * 16 / kKvGroupDims);
        const uint32_t word = word_of(words, i), to = stage + key * 128 + lane % 4 * 4;
        if constexpr (kFourBits) {
          store_pair(to, step, 0, widen_nibbles<0>(word, s.scale[0], s.offset[0]));
          store_pair(to, step, 1, widen_nibbles<1>(word, s.scale[0], s.offset[0]));
          store_pair(to, step + 1, 0, widen_nibbles<2>(word, s.scale[0], s.offset[0]));
          store_pair(to, step + 1, 1, widen_nibbles<3>(word, s.scale[0], s.offset[0]));
        } else {
          uint32_t b[2];
          widen_codes<kType>(word, s, b);
          store_pair(to, step, 0, b[0]);
          store_pair(to, step, 1, b[1]);
        }
      }
    }
  }
  // A lane has pairs of keys of a dimension. Those that are not `written` become 0.
  __device__ void values(uint32_t raw, uint32_t stage, int written) const {
    if (written >= kPageKeys) return widen_values<true>(raw, stage, written);
    widen_values<false>(raw, stage, written);
  }

 private:
  static __device__ const uint8_t* pointer(uint32_t address) {
    return static_cast<const uint8_t*>(__cvta_shared_to_generic(address));
  }
  __device__ uint4 load_chunk(const uint8_t* page, int chunk) const {
    return *reinterpret_cast<const uint4*>(page + word_place(kType, kDim, warp, lane, 4 * chunk));
  }
  static __device__ uint32_t word_of(const uint4& words, int i) {
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
  }
  // Register `which` of a step: 16 bytes of dimensions further.
  __device__ void store_pair(uint32_t to, int step, int which, uint32_t halves) const {
    const uint32_t at =
        to + step / 4 * kPartBytes + ((step % 4 * 2 + which) ^ lane / 4) * 16;  // key % 8: lane / 4
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(halves) : "memory");
  }
  template <bool kWhole>
  __device__ void widen_values(uint32_t raw, uint32_t stage, int written) const {
    const uint8_t* page = pointer(raw);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const uint4 words = load_chunk(page, chunk);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int first = (4 * chunk + i) * (kFourBits ? 2 : 1);  // of the word's tiles
        const int step = first / kTiles, tile = first % kTiles;
        const int key = step * 16 + lane % 4 * 2;
        const KvScales s =
            scales_of_values<kType, kWhole>(page + kScales, key, tile * 32 / kKvGroupDims, written);
        const uint32_t word = word_of(words, i);
        if constexpr (kFourBits) {
          store_keys(stage, step, 0, tile, widen_nibbles<0>(word, s.scale[0], s.offset[0]));
          store_keys(stage, step, 1, tile, widen_nibbles<2>(word, s.scale[1], s.offset[1]));
          store_keys(stage, step, 0, tile + 1, widen_nibbles<1>(word, s.scale[0], s.offset[0]));
          store_keys(stage, step, 1, tile + 1, widen_nibbles<3>(word, s.scale[1], s.offset[1]));
        } else {
          uint32_t b[2];
          widen_codes<kType>(word, s, b);
          store_keys(stage, step, 0, tile, b[0]);
          store_keys(stage, step, 1, tile, b[1]);
        }
      }
    }
  }
  // Register `which` of 16 keys' values of a dimension of the warp's tile.
  __device__ void store_keys(uint32_t stage, int step, int which, int tile, uint32_t halves) const {
    const uint32_t row = stage + ((warp + 4 * tile) * 8 + lane / 4) * 128 + lane % 4 * 4;
    const uint32_t at = row + ((step * 2 + which) ^ lane / 4) * 16;  // dimension % 8: lane / 4
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(halves) : "memory");
  }

  int warp, lane;
};

// Asks for pages of codes and widens them; four warps.
template <int kDim, CacheType kType>
__device__ void fill_stages(const AttentionLaunch& a, const Tile& tile,
                            const Stages<kDim, kType>& stages, const PageMaps&) {
  constexpr int kBytes = page_bytes(kType, kDim);
  const int pages = tile.end_page - tile.first_page;
  const uint64_t policy = read_often();
  const auto ask = [&](int i) {  // one thread
    if (i >= pages) return;
    const int64_t page = page_of(a, tile.queries.table, tile.kv_head, tile.first_page + i);
    const auto* keys = static_cast<const uint8_t*>(a.cache.keys) + page * kBytes;
    const auto* values = static_cast<const uint8_t*>(a.cache.values) + page * kBytes;
    copy_codes(stages.raw(0, i), keys, kBytes, stages.raw_arrived(i), policy);
    copy_codes(stages.raw(1, i), values, kBytes, stages.raw_arrived(i), policy);
  };
  const Widener<kDim, kType> widener;
  if (threadIdx.x == 0) {
    ask(0);
    ask(1);
  }
#pragma unroll 1
  for (int i = 0; i < pages; ++i) {
    barrier_wait(stages.raw_arrived(i), static_cast<uint32_t>(i / 2 % 2));
    stages.wait_free(0, i);
    widener.keys(stages.raw(0, i), stages.keys(i));
    writes_to_async();
    barrier_arrive(stages.arrived(0, i));
    stages.wait_free(1, i);
    widener.values(stages.raw(1, i), stages.values(i),
                   i + 1 < pages ? kPageKeys : tile.last_position() % kPageKeys + 1);
    writes_to_async();
    barrier_arrive(stages.arrived(1, i));
    asm volatile("bar.sync 3, 128;" ::: "memory");  // all have read the raw pages
    if (threadIdx.x == 0) ask(i + 2);
  }
}

#endif

}  // namespace lowbit::cuda
