// The kernels of attention_few, for pages of one type; what they do is said in
// attention_few_sm90.cu.
#pragma once

#include <algorithm>
#include <type_traits>

#include "lowbit/runtime/cuda/decode_worker_sm90.cuh"
#include "lowbit/runtime/cuda/few_worker_sm90.cuh"
#include "lowbit/runtime/cuda/launch.cuh"

namespace lowbit::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Asks for a page of keys (which: 0) or values, by all lanes of a warp. page: which of the layer's.
template <int kDim, CacheType kType>
__device__ void ask_for(const AttentionLaunch& a, const PageMaps& maps,
                        const Ring<kDim, kType>& ring, int which, const Place& at, int64_t page,
                        uint64_t policy) {
  const uint32_t to = ring.plane(which, at), barrier = ring.arrived(which, at);
  if constexpr (is_coded(kType)) {
    constexpr int kBytes = Ring<kDim, kType>::kPlane;
    const void* from = which == 0 ? a.cache.keys : a.cache.values;
    if (elected())
      copy_codes(to, static_cast<const uint8_t*>(from) + page * kBytes, kBytes, barrier, policy);
  } else {
    copy_page<kDim>(to, which == 0 ? &maps.keys : &maps.values, page, barrier, policy);
  }
}

// Asks for the pages of a run, as soon as they are in place; one warp.
template <int kDim, CacheType kType>
__device__ void copy_pages(const AttentionLaunch& a, const Units& units,
                           const Ring<kDim, kType>& ring, Cursor c, const PageMaps& maps,
                           bool rotates) {
  // Parts of many query heads read the same pages.
  const uint64_t policy = units.pairs > a.dims.kv_heads ? read_often() : read_once();
  bool waited = false;
  Place at{0, 1};  // stages are free at first
  for (; !c.done(); c.next(units, 1), at = ring.next(at)) {
    const bool early = rotates || (c.page + 1) * kPageKeys <= c.queries.cached;
    if (!early && !waited) {
      grid_wait();
      waited = true;
    }
    const int kv_head = c.pair / (units.pairs / a.dims.kv_heads);
    const int64_t page = page_of(a, c.queries.table, kv_head, c.page);
    for (int which = 0; which < 2; ++which) {
      barrier_wait(ring.freed(which, at), at.parity);
      ask_for(a, maps, ring, which, at, page, policy);
    }
  }
  if (!waited) grid_wait();
}

#endif

// What a kernel is compiled for. Rows: of queries, of a unit.
enum class FewRows { kDecode8, kDecode16, kChunk16 };
template <int kHeadDim, CacheType kPages, FewRows kUnit>
struct FewKind {
  static constexpr int kDim = kHeadDim;
  static constexpr CacheType kType = kPages;
  static constexpr bool kNarrow = kUnit == FewRows::kDecode8;
  static constexpr bool kRotates = kUnit != FewRows::kChunk16;
  // Blocks that share a multiprocessor: while one waits, others compute.
  static constexpr int kBlocks = is_coded(kType) || kNarrow ? 2 : 1;
  static constexpr int kPlane = Ring<kDim, kType>::kPlane;
  static constexpr int kKept = (kNarrow ? 7 : 13) * 1024;  // beside the ring, and to align it
  static constexpr int kMostStages = std::min(12, (227 * 1024 / kBlocks - kKept) / (2 * kPlane));
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <typename Kind>
using WorkerOf = std::conditional_t<Kind::kNarrow, DecodeWorker<Kind::kDim, Kind::kType>,
                                    Worker<Kind::kDim, Kind::kRotates, Kind::kType>>;
#endif

// Grid: as many blocks as there are units or, at most, as run at a time.
template <typename Kind>
__global__ void __launch_bounds__(kUnitThreads, Kind::kBlocks)
    attend_few(const __grid_constant__ AttentionLaunch a, const __grid_constant__ PageMaps maps,
               int stages) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using R = Ring<Kind::kDim, Kind::kType>;
  using Work = WorkerOf<Kind>;
  extern __shared__ uint8_t memory[];
  __shared__ __align__(8) uint64_t barriers[4 * R::kMostStages];
  __shared__ typename Work::Shared shared;
  grid_start();
  // The batch is in place before the first kernel of the step starts, as are earlier keys.
  const Units units(a);
  const int64_t all = units.all(), runs = gridDim.x, run = blockIdx.x;
  const int begin = static_cast<int>(run * all / runs);
  const int end = static_cast<int>((run + 1) * all / runs);
  if (begin >= end) return grid_wait();
  const R ring{(address_in_shared(memory) + 1023) / 1024 * 1024, address_in_shared(barriers),
               stages};
  if (threadIdx.x == kComputing) {
    for (int i = 0; i < stages; ++i) {
      for (int which = 0; which < 2; ++which) {
        barrier_init(ring.arrived(which, {i}), 1);
        barrier_init(ring.freed(which, {i}), kComputing / 32);
      }
    }
    barriers_ready();
  }
  Cursor c;
  c.start(units, begin, end);
  __syncthreads();
  if (threadIdx.x >= kComputing) {
    return copy_pages(a, units, ring, c, maps, Kind::kRotates);
  }
  grid_wait();
  Work work(a, units, ring, shared);
  int count = 0;  // units of the row so far
  bool new_row = true, new_span = true;
  Place at;
  while (!c.done()) {
    if (new_row) {
      work.begin_row(c);
      count = 0;
    }
    if (new_span) work.begin_span();
    const int pages = min(2, c.end_page - c.page);
    const Place places[2] = {at, ring.next(at)};
    work.add_pages(c, pages, places);
    at = pages == 2 ? ring.next(places[1]) : places[1];
    const Cursor here = c;
    new_span = c.next(units, pages);
    new_row = new_span && (c.done() || c.block != here.block || c.pair != here.pair);
    if (new_span) {
      ++count;
      work.end_span(here);
    }
    if (new_row) work.end_row(here, count);
  }
#endif
}

template <typename Kind>
void launch_few(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  const int64_t blocks = int64_t{Kind::kBlocks} * processors;
  // Blocks of one unit need no more stages than that has pages, and leave room for the next kernel.
  const int stages = units <= blocks ? std::min(kSpanPages, Kind::kMostStages) : Kind::kMostStages;
  const size_t bytes = static_cast<size_t>(stages) * 2 * Kind::kPlane + 1024;  // to align
  launch(attend_few<Kind>, dim3(static_cast<unsigned>(std::min<int64_t>(units, blocks))),
         kUnitThreads, bytes, stream, a, is_coded(Kind::kType) ? PageMaps{} : page_maps(a), stages);
}
template <int kDim, CacheType kType>
void launch_few(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  if (!a.rotates()) {
    return launch_few<FewKind<kDim, kType, FewRows::kChunk16>>(a, units, processors, stream);
  }
  // Halves keep one block busy with its bytes, unless there is but a unit for each of two.
  const bool narrow = is_coded(kType) || units <= 2 * processors;
  if (narrow && row_heads(a.dims) <= kNarrowRows) {
    return launch_few<FewKind<kDim, kType, FewRows::kDecode8>>(a, units, processors, stream);
  }
  launch_few<FewKind<kDim, kType, FewRows::kDecode16>>(a, units, processors, stream);
}
template <CacheType kType>
void launch_few(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream) {
  if (a.dims.head_dim == 64) return launch_few<64, kType>(a, units, processors, stream);
  launch_few<128, kType>(a, units, processors, stream);
}

}  // namespace lowbit::cuda
