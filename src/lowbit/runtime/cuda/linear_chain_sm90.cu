// Products of one token, one behind the other in one kernel: what a decoder block does between two
// attentions. Sums are linear_stream's, bit for bit; norms, SiLU and additions those of their own
// kernels.
//
// Work      One block a multiprocessor takes tiles of 16 rows (of gates, a tile and that of their
//           ups) in turn. Sixteen warps own a segment of the columns each; a warp copies, and one
//           adds the segments' sums in order, makes the output of them and tells the other blocks.
// Pipeline  Weights depend on nothing. So they come through one ring for all products, in the order
//           in which they are read, as far ahead as shared memory allows: while a product waits for
//           the last blocks of the one before it, its first weights arrive.
// Waiting   A block says that its rows of a product are in memory by counting up an arrival counter
//           and waits until all have. So all blocks must be on the device at a time: nothing else
//           may hold multiprocessors that waits for this kernel.
// Bound     Bytes of the weights / HBM bandwidth, and some 2 us from product to product, in which
//           the ring fills.
#include <algorithm>

#include "lowbit/runtime/cuda/elementwise.cuh"
#include "lowbit/runtime/cuda/hopper.cuh"
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/linear_sums.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kWarps = kSegments;  // that multiply
constexpr int kComputing = kWarps * 32;
constexpr int kThreads = kComputing + 64;
constexpr int kCodeBytes = kWarps * kItemBytes;  // of a stage
constexpr int kMostStages = 12, kFewestStages = 4;
constexpr int kTurnSlots = 4;  // turns whose sums wait to be added
constexpr int kTurnFloats = 2 * kWarps * kTileRows;
constexpr int kFillQuads = 8;  // that a thread loads at once
constexpr int kNormQuads = 4;  // that it normalizes
constexpr int kGroupStride = 2;
constexpr int kSharedSlack = 2048;  // for what is not dynamic

using Output = ChainLink::Output;

// Dynamic shared memory: [stages][16 KiB of codes, 16 records], inputs in 16 bits, sums of their
// groups, segments' sums.
struct ChainShape {
  int stages, stage_bytes, x_bytes, group_bytes;

  __host__ __device__ int ring_bytes() const { return stages * stage_bytes; }
  __host__ __device__ int bytes() const {
    return ring_bytes() + x_bytes + group_bytes + kTurnSlots * kTurnFloats * 4;
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct ChainShared {
  alignas(8) uint64_t full[kMostStages], empty[kMostStages];
  uint64_t sums_full[kTurnSlots], sums_empty[kTurnSlots];
  uint64_t inputs;  // of the next product are in memory
  float maxima[kWarps], squares[kWarps];
  float scale;  // of the token
};

// A place in a ring of `count`, and the parity of its round.
struct Place {
  int at = 0;
  int round = 0;

  __device__ void advance(int count) {
    if (++at < count) return;
    at = 0;
    round ^= 1;
  }
};

// Tiles that a block multiplies together. A block that has none takes a turn of none, so that none
// of its warps is a product ahead of another.
struct Turn {
  int tile[2];
  int count;
};
struct Turns {
  int tiles, stride, first, count;
  bool gates;

  __device__ explicit Turns(const ChainLink& link)
      : tiles((link.matrix.rows + kTileRows - 1) / kTileRows),
        stride(static_cast<int>(gridDim.x)),
        first(static_cast<int>(blockIdx.x)),
        gates(link.output == Output::kGate) {
    const int all = gates ? tiles / 2 : tiles;
    const int mine = all > first ? (all - first + stride - 1) / stride : 0;
    count = max(gates ? mine : (mine + 1) / 2, 1);
  }
  __device__ Turn operator[](int i) const {
    if (gates) {
      const int gate = first + i * stride;
      return {{gate, gate + tiles / 2}, gate < tiles / 2 ? 2 : 0};
    }
    const int tile = first + 2 * i * stride;
    return {{tile, tile + stride}, tile + stride < tiles ? 2 : tile < tiles ? 1 : 0};
  }
};

template <Storage kStorage>
constexpr int kItems = lane_words(kStorage) / 2;  // of a warp's share of a unit

// Asks for all weights of the chain, in the order in which they are multiplied. One warp.
template <Storage kStorage, int kFold>
__device__ void copy_weights(const ChainLaunch& chain, const ChainShape& shape, uint8_t* ring,
                             ChainShared& shared) {
  constexpr int kUnitBytes = kItems<kStorage> * kItemBytes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Place place;
  for (int l = 0; l < chain.count; ++l) {
    const PackedMatrix& m = chain.links[l].matrix;
    const Turns turns(chain.links[l]);
    const int length = m.units / kSegments, chunks = m.record_bytes / 16;
    for (int turn = 0; turn < turns.count; ++turn) {
      const Turn tiles = turns[turn];
      for (int step = 0; step < length * kItems<kStorage>; ++step) {
        const int unit = step / kItems<kStorage>, item = step % kItems<kStorage>;
        for (int t = 0; t < tiles.count; ++t) {
          uint64_t* full = &shared.full[place.at];
          uint8_t* to = ring + place.at * shape.stage_bytes;
          barrier_wait(&shared.empty[place.at], place.round ^ 1);
          const int64_t tile = tiles.tile[t];
          const auto* from = reinterpret_cast<const uint8_t*>(m.codes) +
                             (tile * m.units + unit * kSegments) * kUnitBytes + item * kItemBytes;
          if (elected()) {
            barrier_expect(full, kCodeBytes);
            if constexpr (kItems<kStorage> == 1) {
              copy_bulk(to, from, kCodeBytes, full);
            } else {
              for (int warp = 0; warp < kWarps; ++warp) {
                copy_bulk(to + warp * kItemBytes, from + warp * kUnitBytes, kItemBytes, full);
              }
            }
          }
          __syncwarp();
          if constexpr (is_scaled(kStorage)) {
            if (kFold != kUnitSteps || item == kItems<kStorage> - 1) {
              const uint8_t* records = m.scales + tile * m.records * m.record_bytes;
              for (int i = lane; i < kWarps * chunks; i += 32) {
                const int warp = i / chunks, record = (warp * length + unit) >> m.record_shift;
                copy16_async(to + kCodeBytes + i * 16,
                             records + record * m.record_bytes + i % chunks * 16);
              }
              barrier_arrive_copied(full);
            } else {
              barrier_arrive(full);
            }
          }
          place.advance(shape.stages);
        }
      }
    }
  }
}

// What a link's inputs become in shared memory.
struct SharedInput {
  uint16_t* x;
  float* groups;
};

__device__ inline void computing_sync() { named_sync(1, kComputing); }

template <Storage kStorage, int kFold>
__device__ void put_quad(const PackedMatrix& m, float4 v, float inverse, int quad,
                         const SharedInput& to) {
  v = make_float4(v.x * inverse, v.y * inverse, v.z * inverse, v.w * inverse);
  store_quad<kStorage>(kFold == 0 ? m.fold : kFold, take_quad<kStorage>(v), 4 * quad, to.x,
                       to.groups, kGroupStride);
}

__device__ inline float4 load_input(const float* x, int cols, int quad) {
  return 4 * quad < cols ? __ldcg(reinterpret_cast<const float4*>(x) + quad)
                         : make_float4(0, 0, 0, 0);
}

// Inputs in memory, rounded to 16 bits; returns the largest of the thread's.
template <Storage kStorage, int kFold>
__device__ float fill_plain(const ChainLink& link, float inverse, const SharedInput& to) {
  const PackedMatrix& m = link.matrix;
  const int thread = static_cast<int>(threadIdx.x), quads = m.units * (kUnitCols / 4);
  float largest = 0;
#pragma unroll 1
  for (int base = thread; base < quads; base += kFillQuads * kComputing) {
    float4 batch[kFillQuads];
#pragma unroll
    for (int i = 0; i < kFillQuads; ++i) {
      const int quad = base + i * kComputing;
      batch[i] = load_input(link.x, m.cols, quad);
    }
#pragma unroll
    for (int i = 0; i < kFillQuads; ++i) {
      const int quad = base + i * kComputing;
      if (quad >= quads) break;  // whole warps
      largest = fmaxf(largest, largest_of(batch[i]));
      put_quad<kStorage, kFold>(m, batch[i], inverse, quad, to);
    }
  }
  return largest;
}

// Inputs that are normalized on the way, as add_rms_norm does it: its threads are these.
struct NormInput {
  float4 weights[kNormQuads], values[kNormQuads];
  static_assert(kComputing == kNormThreads);

  static __device__ int quad_of(int i) { return static_cast<int>(threadIdx.x) + i * kComputing; }
  // What does not depend on other kernels.
  __device__ void load_weights(const ChainLink& link) {
#pragma unroll
    for (int i = 0; i < kNormQuads; ++i) {
      weights[i] = load_input(link.norm, link.matrix.cols, quad_of(i));
    }
  }
  __device__ void normalize_values(const ChainLink& link, float* warps) {
    const int cols = link.matrix.cols, lane = static_cast<int>(threadIdx.x) % 32;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kNormQuads; ++i) values[i] = load_input(link.x, cols, quad_of(i));
#pragma unroll
    for (int i = 0; i < kNormQuads; ++i) {
      if (4 * quad_of(i) < cols) squares = add_squares(values[i], squares);
    }
    squares = sum_of_warp(squares);
    if (lane == 0) warps[threadIdx.x / 32] = squares;
    computing_sync();
    squares = sum_of_warp(lane < kWarps ? warps[lane] : 0.f);
    const float scale = rms_scale(squares, cols, link.eps);
#pragma unroll
    for (int i = 0; i < kNormQuads; ++i) {
      values[i] = normalize(values[i], scale, weights[i]);
      if (blockIdx.x == 0 && 4 * quad_of(i) < cols) {
        reinterpret_cast<float4*>(link.normed)[quad_of(i)] = values[i];
      }
    }
  }
  template <Storage kStorage, int kFold>
  __device__ float fill(const PackedMatrix& m, float inverse, const SharedInput& to) const {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kNormQuads; ++i) {
      if (quad_of(i) >= m.units * (kUnitCols / 4)) break;  // whole warps
      largest = fmaxf(largest, largest_of(values[i]));
      put_quad<kStorage, kFold>(m, values[i], inverse, quad_of(i), to);
    }
    return largest;
  }
};

// Calls fill(inverse) so that the inputs are right for halves: again, if they must be scaled.
template <Storage kStorage, typename Fill>
__device__ void fill_scaled(const Fill& fill, ChainShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float scale = 1;
#pragma unroll 1
  for (bool again = false;; again = true) {
    float largest = fill(1.f / scale);
    if (kStorage == Storage::kBF16 || again) break;
    largest = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(largest)));
    if (lane == 0) shared.maxima[threadIdx.x / 32] = largest;
    computing_sync();
    largest = shared.maxima[lane % kWarps];
    scale = token_scale(__uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(largest))));
    if (scale == 1) break;
  }
  if (threadIdx.x == 0) shared.scale = scale;
  if (kStorage == Storage::kBF16 || scale != 1) computing_sync();
}

template <Storage kStorage, int kFold>
__device__ void fill_inputs(const ChainLaunch& chain, int l, const SharedInput& to,
                            ChainShared& shared) {
  const ChainLink& link = chain.links[l];
  const auto wait = [&] {
    if (l == 0) {
      grid_wait();
    } else {
      barrier_wait(&shared.inputs, (l - 1) & 1);
    }
  };
  if (link.norm != nullptr) {
    NormInput norm;
    norm.load_weights(link);
    wait();
    norm.normalize_values(link, shared.squares);
    fill_scaled<kStorage>(
        [&](float inverse) {
          return norm.template fill<kStorage, kFold>(link.matrix, inverse, to);
        },
        shared);
  } else {
    wait();
    fill_scaled<kStorage>(
        [&](float inverse) { return fill_plain<kStorage, kFold>(link, inverse, to); }, shared);
  }
}

// A warp's segment of a turn's tiles; the sums go to `sums`: [tile][warp][row].
template <Storage kStorage, int kFold, bool kUsual, int kTiles>
__device__ void multiply_turn(const PackedMatrix& m, const ChainShape& shape, const uint8_t* ring,
                              ChainShared& shared, Place& place, const SharedInput& input,
                              float* sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int length = m.units / kSegments;
  const int unit_groups = kUnitSteps / (kFold == 0 ? m.fold : kFold) * kGroupStride;
  const uint16_t* x = input.x + warp * length * kUnitCols + lane % 4 * 16;
  const float* groups = input.groups + warp * length * unit_groups;
  const int record = kCodeBytes + warp * m.record_bytes;
  Sums<kStorage, kFold, kUsual, kTiles> mine;
#pragma unroll 1
  for (int unit = 0; unit < length; ++unit, x += kUnitCols, groups += unit_groups) {
#pragma unroll
    for (int item = 0; item < kItems<kStorage>; ++item) {
      const uint8_t *slots[kTiles], *records[kTiles];
      uint64_t* empty[kTiles];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const uint8_t* stage = ring + place.at * shape.stage_bytes;
        slots[t] = stage + warp * kItemBytes;
        records[t] = stage + record;
        empty[t] = &shared.empty[place.at];
        barrier_wait(&shared.full[place.at], place.round);
        place.advance(shape.stages);
      }
      mine.add(m, slots, records, item * (kUnitSteps / kItems<kStorage>), x, groups, kGroupStride,
               nullptr, lane);
      __syncwarp();
      if (lane == 0) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) barrier_arrive(empty[t]);
      }
    }
  }
  if (lane % 4 == 0) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      float* to = sums + (t * kWarps + warp) * kTileRows + lane / 4;
      to[0] = mine.segment[t][0];
      to[8] = mine.segment[t][2];
    }
  }
}

// The warps that multiply.
template <Storage kStorage, int kFold, bool kUsual>
__device__ void multiply_links(const ChainLaunch& chain, const ChainShape& shape,
                               const uint8_t* ring, const SharedInput& input, float* sums,
                               ChainShared& shared) {
  Place place, slot;
#pragma unroll 1
  for (int l = 0; l < chain.count; ++l) {
    const ChainLink& link = chain.links[l];
    const Turns turns(link);
    fill_inputs<kStorage, kFold>(chain, l, input, shared);
#pragma unroll 1
    for (int turn = 0; turn < turns.count; ++turn) {
      float* to = sums + slot.at * kTurnFloats;
      barrier_wait(&shared.sums_empty[slot.at], slot.round ^ 1);
      const int count = turns[turn].count;
      if (count == 2) {
        multiply_turn<kStorage, kFold, kUsual, 2>(link.matrix, shape, ring, shared, place, input,
                                                  to);
      } else if (count == 1) {
        multiply_turn<kStorage, kFold, kUsual, 1>(link.matrix, shape, ring, shared, place, input,
                                                  to);
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(&shared.sums_full[slot.at]);
      slot.advance(kTurnSlots);
    }
  }
}

// Waits until all blocks have come here as often as this one. One thread, that comes after all that
// its block wrote.
__device__ inline void arrive_and_wait(uint64_t* counter) {
  constexpr int kMostPolls = 20'000'000;  // some seconds
  unsigned long long before, now;
  asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], 1;"
               : "=l"(before)
               : "l"(counter)
               : "memory");
  const unsigned long long all = (before / gridDim.x + 1) * gridDim.x;
  now = before + 1;
  for (int i = 0; now < all; ++i) {
    if (i == kMostPolls) __trap();
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(counter) : "memory");
  }
}

// Adds the segments' sums in order, writes outputs, and tells the warps that multiply when the
// inputs of the next product are there. One warp: a lane for each row of a turn.
__device__ void finish_links(const ChainLaunch& chain, const float* sums, ChainShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane % kTileRows;
  Place slot;
  grid_wait();
  for (int l = 0; l < chain.count; ++l) {
    const ChainLink& link = chain.links[l];
    const Turns turns(link);
    for (int turn = 0; turn < turns.count; ++turn) {
      const Turn tiles = turns[turn];
      const int at = (lane < kTileRows ? tiles.tile[0] : tiles.tile[1]) * kTileRows + row;
      const bool valid = lane / kTileRows < tiles.count && at < link.matrix.rows;
      const float bias = valid && link.matrix.bias != nullptr ? link.matrix.bias[at] : 0.f;
      const float old = valid && link.output == Output::kAdd ? __ldcg(link.y + at) : 0.f;
      barrier_wait(&shared.sums_full[slot.at], slot.round);
      const float* from =
          sums + slot.at * kTurnFloats + lane / kTileRows * kWarps * kTileRows + row;
      float parts[kWarps];
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) parts[warp] = from[warp * kTileRows];
      float total = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) total += parts[warp];
      const float value = fmaf(total, shared.scale, bias);
      __syncwarp();
      if (lane == 0) barrier_arrive(&shared.sums_empty[slot.at]);
      slot.advance(kTurnSlots);
      if (link.output == Output::kGate) {
        const float up = __shfl_down_sync(0xffffffffu, value, kTileRows);
        if (valid) link.products[at] = value;
        if (valid && lane < kTileRows) link.y[at] = silu_mul(value, up);
      } else if (valid) {
        link.y[at] = link.output == Output::kAdd ? __fadd_rn(old, value) : value;
      }
    }
    if (l + 1 == chain.count) break;
    __syncwarp();
    if (lane == 0) {
      arrive_and_wait(chain.arrivals + l);
      barrier_arrive(&shared.inputs);
    }
    __syncwarp();
  }
}

#endif

template <Storage kStorage, int kFold, bool kUsual>
__global__ void __launch_bounds__(kThreads, 1)
    linear_chain(const __grid_constant__ ChainLaunch chain, const ChainShape shape) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ ChainShared shared;
  grid_start();
  if (threadIdx.x == 0) {
    for (int i = 0; i < shape.stages; ++i) {
      barrier_init(&shared.full[i], is_scaled(kStorage) ? 33 : 1);
      barrier_init(&shared.empty[i], kWarps);
    }
    for (int i = 0; i < kTurnSlots; ++i) {
      barrier_init(&shared.sums_full[i], kWarps);
      barrier_init(&shared.sums_empty[i], 1);
    }
    barrier_init(&shared.inputs, 1);
    barriers_ready();
  }
  __syncthreads();
  uint8_t* behind_ring = memory + shape.ring_bytes();
  const SharedInput input{reinterpret_cast<uint16_t*>(behind_ring),
                          reinterpret_cast<float*>(behind_ring + shape.x_bytes)};
  float* sums = reinterpret_cast<float*>(behind_ring + shape.x_bytes + shape.group_bytes);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp < kWarps) {
    multiply_links<kStorage, kFold, kUsual>(chain, shape, memory, input, sums, shared);
  } else if (warp == kWarps) {
    copy_weights<kStorage, kFold>(chain, shape, memory, shared);
  } else {
    finish_links(chain, sums, shared);
  }
#endif
}

using Kernel = void (*)(const ChainLaunch, const ChainShape);

template <Storage kStorage>
Kernel choose_kernel(const PackedMatrix& m) {
  if constexpr (is_scaled(kStorage)) {
    if (m.fold != kUnitSteps) return linear_chain<kStorage, 0, false>;
    if (is_usual(m)) return linear_chain<kStorage, kUnitSteps, true>;
  }
  return linear_chain<kStorage, kUnitSteps, false>;
}

Kernel choose_kernel(const PackedMatrix& m) {
  switch (m.storage) {
    case Storage::kInt4:
      return choose_kernel<Storage::kInt4>(m);
    case Storage::kInt8:
      return choose_kernel<Storage::kInt8>(m);
    case Storage::kE4M3:
      return choose_kernel<Storage::kE4M3>(m);
    case Storage::kF16:
      return choose_kernel<Storage::kF16>(m);
    case Storage::kBF16:
      return choose_kernel<Storage::kBF16>(m);
    case Storage::kTable4:
      break;
  }
  return nullptr;
}

int rounded(int bytes) { return (bytes + 127) / 128 * 128; }

ChainShape shape_of(const ChainLaunch& chain, int shared_bytes) {
  ChainShape shape{0, kCodeBytes, 0, 0};
  for (int l = 0; l < chain.count; ++l) {
    const PackedMatrix& m = chain.links[l].matrix;
    shape.stage_bytes = std::max(shape.stage_bytes, rounded(kCodeBytes + kWarps * m.record_bytes));
    shape.x_bytes = std::max(shape.x_bytes, m.units * kUnitCols * 2);
    shape.group_bytes =
        std::max(shape.group_bytes, rounded(m.units * (kUnitSteps / m.fold) * kGroupStride * 4));
  }
  const int rest = shared_bytes - kSharedSlack - shape.bytes();
  shape.stages = std::clamp(rest / shape.stage_bytes, 0, kMostStages);
  return shape;
}

}  // namespace

bool chain_fits(const ChainLink& link, int shared_bytes) {
  const PackedMatrix& m = link.matrix;
  if (m.codes == nullptr || choose_kernel(m) == nullptr || m.input_order != nullptr) return false;
  if (m.units % kSegments != 0 || m.cols % 4 != 0) return false;
  if (link.norm != nullptr && m.cols > kNormQuads * kComputing * 4) return false;
  if (link.output == Output::kGate && m.rows % (2 * kTileRows) != 0) return false;
  ChainLaunch alone;
  alone.links[alone.count++] = link;
  return shape_of(alone, shared_bytes).stages >= kFewestStages;
}

bool chains(const PackedMatrix& a, const PackedMatrix& b) {
  return choose_kernel(a) == choose_kernel(b);
}

void launch_linear_chain(const ChainLaunch& chain, int processors, int shared_bytes,
                         cudaStream_t stream) {
  const ChainShape shape = shape_of(chain, shared_bytes);
  launch(choose_kernel(chain.links[0].matrix), dim3(static_cast<unsigned>(processors)), kThreads,
         static_cast<size_t>(shape.bytes()), stream, chain, shape);
}

}  // namespace lowbit::cuda
