// y = x * W^T for some tens of tokens: the bits of linear_stream, with wgmma.
//
// Work      A cluster of two blocks takes 64 rows x kColumns columns of inputs at a time. Groups of
//           four warps own segments of the columns of the weight, stream them through their own
//           ring in shared memory, filled by a warp for each, and widen codes into the
//           registers that wgmma multiplies from. Then each block reads its share of the 16
//           segments' sums from both and adds them in order, while the next rows are on their way.
// Bound     Bytes of the weights / HBM bandwidth for 16 columns; from about 32 on also the inputs,
//           which every 64 rows read again from the L2 cache.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/wide.cuh"

#pragma nv_diag_suppress 177  // unused: for other architectures the kernels have no body

namespace lowbit::cuda {

namespace {

constexpr int kCluster = 2;
constexpr int kShare = kSegments / kCluster;    // segments of a block
constexpr int kTiles = kGroupRows / kTileRows;  // of 16 rows, each a warp's

// 64 rows by kColumns of inputs; kGroups of four warps in a block.
template <int kColumns_, int kGroups_, int kBuffers_>
struct SplitShape {
  static constexpr int kColumns = kColumns_, kGroups = kGroups_;
  static constexpr int kBuffers = kBuffers_;        // of sums to exchange
  static constexpr int kSerial = kShare / kGroups;  // segments of a group, one by one
  static constexpr int kThreads = (kGroups + 1) * 128;
  // Of threads that multiply, and of those that copy: together what all have at the launch.
  static constexpr int kRegisters = kGroups == 4 ? 104 : 216;
  static constexpr int kCopyRegisters = kGroups == 4 ? 64 : 72;
  static_assert((kGroups * kRegisters + kCopyRegisters) * 128 <=
                kThreads * (65536 / kThreads / 8 * 8));
  static constexpr int kSums = kGroupRows * kColumns;  // of a segment
  static constexpr int kBufferBytes = kShare * kSums * 4;
};

// Which rows and columns a cluster multiplies in turn.
template <typename Shape>
struct Works {
  int work, count, stride, column_tiles;

  __device__ Works(const PackedMatrix& m, int columns)
      : work(static_cast<int>(blockIdx.x) / kCluster),
        stride(static_cast<int>(gridDim.x) / kCluster),
        column_tiles((columns + Shape::kColumns - 1) / Shape::kColumns) {
    count = (m.rows + kGroupRows - 1) / kGroupRows * column_tiles;
  }
  __device__ bool done() const { return work >= count; }
  __device__ void next() { work += stride; }
  __device__ int first_tile() const { return work / column_tiles * kTiles; }
  __device__ int column() const { return work % column_tiles * Shape::kColumns; }
};

// The units of a group's segments for all its rows and columns, in order. Where all of its segments
// are empty, there are none.
template <typename Shape>
class Producer {
 public:
  using Copies = UnitCopies<kTiles, Shape::kColumns>;

  __device__ Producer(const PackedMatrix& m, const LinearInput& in, const WideInput& x,
                      const UnitLayout& layout, int first_segment)
      : m_(m),
        segment_(first_segment),
        end_((first_segment + Shape::kSerial) * m.units / kSegments),
        works_(m, in.columns()),
        walk_(m, first_segment),
        copies_(m, x, layout) {
    if (walk_.unit == end_) works_.work = works_.count;
    start();
  }
  __device__ bool done() const { return works_.done(); }
  __device__ const UnitWalk& walk() const { return walk_; }
  __device__ const Copies& copies() const { return copies_; }
  __device__ void next() {
    walk_.next();
    if (walk_.unit < end_) return;
    walk_ = UnitWalk(m_, segment_);
    works_.next();
    start();
  }

 private:
  __device__ void start() {
    if (!done()) copies_.start(works_.first_tile(), works_.column());
  }

  const PackedMatrix& m_;
  int segment_, end_;
  Works<Shape> works_;
  UnitWalk walk_;
  Copies copies_;
};

// One warp fills a group's ring of `stages` units, with barriers that say full and empty.
template <typename Shape>
__device__ void fill_ring(const PackedMatrix& m, const LinearInput& in, const WideInput& x,
                          const UnitLayout& layout, int group, uint8_t* memory, uint64_t* full,
                          uint64_t* empty, int stages) {
  const int segment = cluster_rank() * kShare + group * Shape::kSerial;
  using Units = Producer<Shape>;
  const auto fetch_codes = [&](const Units& units, int i) {
    uint8_t* stage = memory + i * layout.bytes;
    if (elected()) {
      barrier_expect(full + i, layout.bulk_bytes());
      units.copies().codes(units.walk(), stage, full + i);
    }
    __syncwarp();
    units.copies().records(units.walk(), stage);
  };
  const auto fetch_inputs = [&](const Units& units, int i) {
    uint8_t* stage = memory + i * layout.bytes;
    if (elected()) {
      copy_bulk(stage, units.copies().inputs(units.walk(), 0), Shape::kColumns * kColumnBytes,
                full + i);
    }
    __syncwarp();
    units.copies().sums(units.walk(), stage);
    barrier_arrive_copied(full + i);
  };
  {
    Units early(m, in, x, layout, segment);
#pragma unroll 1
    for (int i = 0; i < stages && !early.done(); ++i, early.next()) fetch_codes(early, i);
  }
  grid_wait();
  Units units(m, in, x, layout, segment);
#pragma unroll 1
  for (int i = 0; i < stages && !units.done(); ++i, units.next()) fetch_inputs(units, i);
#pragma unroll 1
  for (Slot slot{stages}; !units.done(); slot.next(), units.next()) {
    barrier_wait(empty + slot.index, slot.phase);
    fetch_codes(units, slot.index);
    fetch_inputs(units, slot.index);
  }
}

// Sums of all segments of a block: [segment][warp][8 columns][lane] float4.
template <typename Shape>
__device__ void put_sums(const Sums<Shape::kColumns>& segment, float* exchange) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32 % 4;
  auto* to = reinterpret_cast<float4*>(exchange) + thread % 32;
#pragma unroll
  for (int e = 0; e < Shape::kColumns / 8; ++e) {
    const float* s = segment + 4 * e;
    to[(warp * (Shape::kColumns / 8) + e) * 32] = make_float4(s[0], s[1], s[2], s[3]);
  }
}

// Adds the segments of this block's share in order and writes the outputs.
template <typename Shape>
__device__ void add_shares(const PackedMatrix& m, const LinearInput& in, const WideInput& x,
                           const float* exchange, int rank, int first_tile, int first_column,
                           float* y, int64_t y_stride) {
  constexpr int kEighths = Shape::kColumns / 8;
  constexpr int kPieces = kTiles * kEighths / kCluster;  // of 16 x 8 sums
  for (int i = static_cast<int>(threadIdx.x); i < kPieces * 32; i += Shape::kGroups * 128) {
    const int lane = i % 32, piece = rank * kPieces + i / 32;
    const int tile = piece / kEighths, e = piece % kEighths;
    const float* from = exchange + (piece * 32 + lane) * 4;
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int first = 0; first < kSegments; first += 8) {
      float4 parts[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int s = first + j;
        parts[j] = load_from(from + s % kShare * Shape::kSums, s / kShare);
      }
#pragma unroll
      for (const float4& p : parts) total.x += p.x, total.y += p.y, total.z += p.z, total.w += p.w;
    }
    const int row = (first_tile + tile) * kTileRows + lane / 4;
    const int column = first_column + e * 8 + lane % 4 * 2;
    write_pair(m, in, x.scales, row, column, total.x, total.y, y, y_stride);
    write_pair(m, in, x.scales, row + 8, column, total.z, total.w, y, y_stride);
  }
}

// Barriers of a cluster's blocks around the sums that they exchange: written, and (where there is
// no second buffer) read by all.
template <typename Shape>
struct Exchange {
  float* sums;
  uint64_t *written, *read;

  __device__ float* buffer(int round) const {
    return sums + round % Shape::kBuffers * (Shape::kBufferBytes / 4);
  }
  // By all threads that multiply.
  __device__ void publish(uint64_t* barrier) const {
    named_sync(1, Shape::kGroups * 128);
    if (threadIdx.x < kCluster) barrier_publish(barrier, static_cast<int>(threadIdx.x));
  }
};

template <Storage kStorage, int kFold, typename Shape>
__device__ void multiply_segments(const PackedMatrix& m, const LinearInput& in, const WideInput& x,
                                  const UnitLayout& layout, const uint8_t* memory, uint64_t* full,
                                  uint64_t* empty, const uint32_t* table,
                                  const Exchange<Shape>& exchange, int stages, float* y,
                                  int64_t y_stride) {
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4, rank = cluster_rank();
  const int first_segment = rank * kShare + group * Shape::kSerial;
  memory += group * stages * layout.bytes;
  full += group * stages;
  empty += group * stages;
  Slot slot{stages};
  int round = 0, last_tile = 0, last_column = 0;
  const auto add_last = [&] {
    barrier_wait_published(exchange.written, (round - 1) % 2);
    add_shares<Shape>(m, in, x, exchange.buffer(round - 1), rank, last_tile, last_column, y,
                      y_stride);
  };
  grid_wait();
  for (Works<Shape> works(m, in.columns()); !works.done(); works.next()) {
#pragma unroll 1
    for (int serial = 0; serial < Shape::kSerial; ++serial) {
      const int index = first_segment + serial;
      Sums<Shape::kColumns> segment, part;
      clear<Shape::kColumns>(segment);
#pragma unroll 1
      for (int unit = index * m.units / kSegments; unit < (index + 1) * m.units / kSegments;
           ++unit, slot.next()) {
        barrier_wait(full + slot.index, slot.phase);
        const uint8_t* stage = memory + slot.index * layout.bytes;
        const UnitView view = {stage + layout.codes + warp * layout.tile_bytes,
                               stage + layout.records + warp * layout.record_bytes, stage,
                               reinterpret_cast<const float*>(stage + layout.sums) + lane % 4 * 2,
                               Shape::kColumns};
        add_unit<kStorage, kFold, Shape::kColumns>(m, view, table, lane, Turns{}, part, segment);
        __syncwarp();
        if (lane == 0) barrier_arrive(empty + slot.index);
      }
      if (serial == 0 && round > 0) {
        if constexpr (Shape::kBuffers == 2) {
          add_last();  // which all have read when the next sums are published
        } else {
          barrier_wait_published(exchange.read, (round - 1) % 2);
        }
      }
      put_sums<Shape>(segment,
                      exchange.buffer(round) + (group * Shape::kSerial + serial) * Shape::kSums);
    }
    exchange.publish(exchange.written);
    last_tile = works.first_tile(), last_column = works.column();
    ++round;
    if constexpr (Shape::kBuffers == 1) {
      add_last();
      exchange.publish(exchange.read);
    }
  }
  if constexpr (Shape::kBuffers == 2) add_last();
}

template <Storage kStorage, int kFold, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    linear_split(const PackedMatrix m, const LinearInput in, const WideInput x,
                 const UnitLayout layout, int stages, float* y, int64_t y_stride) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint8_t memory[];
  grid_start();
  uint8_t* rest = memory + Shape::kGroups * stages * layout.bytes;
  auto* full = reinterpret_cast<uint64_t*>(rest + Shape::kBuffers * Shape::kBufferBytes);
  uint64_t* empty = full + Shape::kGroups * stages;
  const Exchange<Shape> exchange{reinterpret_cast<float*>(rest), empty + Shape::kGroups * stages,
                                 empty + Shape::kGroups * stages + 1};
  auto* table = reinterpret_cast<uint32_t*>(exchange.read + 1);
  if (threadIdx.x < Shape::kGroups * stages) {
    barrier_init(full + threadIdx.x, kUnitArrivals);
    barrier_init(empty + threadIdx.x, 4);
    if (threadIdx.x < 2) barrier_init(exchange.written + threadIdx.x, kCluster);
    barriers_ready();
  }
  if constexpr (kStorage == Storage::kTable4) fill_table(m, table);
  __syncthreads();
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x / 128 == Shape::kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Shape::kCopyRegisters));
    const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) % 128 / 32, 0);
    if (group < Shape::kGroups) {
      fill_ring<Shape>(m, in, x, layout, group, memory + group * stages * layout.bytes,
                       full + group * stages, empty + group * stages, stages);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Shape::kRegisters));
    multiply_segments<kStorage, kFold, Shape>(m, in, x, layout, memory, full, empty, table,
                                              exchange, stages, y, y_stride);
  }
  cluster_arrive();  // none may end before all have read its sums
  cluster_wait();
#endif
}

template <Storage kStorage, int kFold, typename Shape>
void launch_split(const PackedMatrix& m, const LinearInput& in, const WideInput& x, float* y,
                  int64_t y_stride, cudaStream_t stream) {
  const UnitLayout layout(m, x, kTiles, Shape::kColumns);
  constexpr int kFixed = Shape::kBuffers * Shape::kBufferBytes + 1024;
  const int table = kStorage == Storage::kTable4 ? 1024 : 0;
  const int stages = std::min(8, (kMostShared - kFixed - table) / (Shape::kGroups * layout.bytes));
  const int works = (m.rows + kGroupRows - 1) / kGroupRows *
                    ((in.columns() + Shape::kColumns - 1) / Shape::kColumns);
  const size_t shared =
      static_cast<size_t>(kFixed + table + stages * Shape::kGroups * layout.bytes);
  const auto kernel = linear_split<kStorage, kFold, Shape>;
  static const int most = most_clusters(kernel, Shape::kThreads, shared, kCluster);
  launch_cluster(kernel, dim3(static_cast<unsigned>(std::min(works, most) * kCluster)),
                 Shape::kThreads, shared, kCluster, stream, m, in, x, layout, stages, y, y_stride);
}

}  // namespace

void launch_linear_split(const PackedMatrix& matrix, const LinearInput& input,
                         const WideInput& wide, int columns, float* y, int64_t y_stride,
                         cudaStream_t stream) {
  with_kernel_of(matrix, [&](auto storage, auto fold) {
    constexpr Storage kStorage = storage.value;
    constexpr int kFold = fold.value;
    if (columns == 16) {
      launch_split<kStorage, kFold, SplitShape<16, 4, 2>>(matrix, input, wide, y, y_stride, stream);
    } else if (columns == 32) {
      launch_split<kStorage, kFold, SplitShape<32, 4, 1>>(matrix, input, wide, y, y_stride, stream);
    } else {
      launch_split<kStorage, kFold, SplitShape<64, 2, 1>>(matrix, input, wide, y, y_stride, stream);
    }
  });
}

}  // namespace lowbit::cuda
