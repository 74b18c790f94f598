// y = x * W^T for many tokens: the bits of linear_stream, with wgmma.
//
// Work      A block takes 128 rows x 128 columns of inputs (or 64 x 128) at a time, and all columns
//           of the weight. Two warps copy units into a ring in shared memory; two groups of four
//           warps widen codes into the registers that wgmma multiplies from, by turns: one
//           multiplies while the other adds up. Two blocks in a cluster have the same inputs and
//           other rows: each copies half of the inputs to both.
// Numerics  Sums of a group, of a segment and of the segments are kept apart, as linear_stream
//           makes them.
// Bound     2 * rows * cols * columns operations / the tensor cores' peak.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/wide.cuh"

#pragma nv_diag_suppress 177  // unused: for other architectures the kernels have no body

namespace lowbit::cuda {

namespace {

// kRowGroups x kColumnGroups groups of four warps, of 64 rows x kColumns columns each.
template <int kRowGroups_, int kColumnGroups_, int kColumns_>
struct WideShape {
  static constexpr int kRowGroups = kRowGroups_, kColumnGroups = kColumnGroups_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kGroups = kRowGroups * kColumnGroups;
  static constexpr int kThreads = (kGroups + 1) * 128;
  static constexpr int kTiles = kRowGroups * 4;
  static constexpr int kBlockColumns = kColumnGroups * kColumns;
};
constexpr int kCluster = 2;
constexpr int kColumnGroup = 8;  // tiles of columns that share rows in the L2 cache
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

// The tiles that a cluster takes: column tiles in groups, of which each walks all rows.
template <typename Shape>
struct Walk {
  int work, works, stride, row_clusters, column_tiles, rank;

  __device__ Walk(const PackedMatrix& m, int columns)
      : work(static_cast<int>(blockIdx.x) / kCluster),
        stride(static_cast<int>(gridDim.x) / kCluster),
        row_clusters((m.rows + Shape::kTiles * kTileRows * kCluster - 1) /
                     (Shape::kTiles * kTileRows * kCluster)),
        column_tiles((columns + Shape::kBlockColumns - 1) / Shape::kBlockColumns),
        rank(cluster_rank()) {
    works = row_clusters * column_tiles;
  }
  __device__ bool done() const { return work >= works; }
  __device__ void next() { work += stride; }
  // Of the block, in tiles of 16 rows and in columns.
  __device__ void place(int& tile, int& column) const {
    const int group = work / (kColumnGroup * row_clusters);
    const int wide = min(kColumnGroup, column_tiles - group * kColumnGroup);
    const int within = work - group * kColumnGroup * row_clusters;
    tile = (within / wide * kCluster + rank) * Shape::kTiles;
    column = (group * kColumnGroup + within % wide) * Shape::kBlockColumns;
  }
};

// Two warps: one copies the codes, one the rest, of the inputs a half to both blocks.
template <typename Shape>
__device__ void produce(const PackedMatrix& m, const LinearInput& in, const WideInput& x,
                        const UnitLayout& layout, uint8_t* memory, uint64_t* full, uint64_t* empty,
                        int stages, bool codes) {
  constexpr int kHalf = Shape::kBlockColumns / kCluster;
  UnitCopies<Shape::kTiles, Shape::kBlockColumns> copies(m, x, layout);
  Slot slot{stages};
  if (!codes) grid_wait();
  for (Walk<Shape> walk(m, in.columns()); !walk.done(); walk.next()) {
    int first_tile, column;
    walk.place(first_tile, column);
    copies.start(first_tile, column);
    UnitWalk units(m, 0);
#pragma unroll 1
    for (; units.unit < m.units; units.next(), slot.next()) {
      uint8_t* stage = memory + slot.index * layout.bytes;
      uint64_t* barrier = full + slot.index;
      barrier_wait(empty + slot.index, slot.phase ^ 1);
      if (codes) {
        if (elected()) copies.codes(units, stage, barrier);
        __syncwarp();
        continue;
      }
      if (elected()) {
        barrier_expect(barrier, layout.bulk_bytes());
        copy_bulk_to(stage + walk.rank * kHalf * kColumnBytes,
                     copies.inputs(units, walk.rank * kHalf), kHalf * kColumnBytes, barrier,
                     (1 << kCluster) - 1);
      }
      __syncwarp();
      copies.records(units, stage);
      copies.sums(units, stage);
      barrier_arrive_copied(barrier);
    }
  }
}

template <Storage kStorage, int kFold, typename Shape>
__device__ void consume(const PackedMatrix& m, const LinearInput& in, const WideInput& x,
                        const UnitLayout& layout, const uint8_t* memory, uint64_t* full,
                        uint64_t* empty, const uint32_t* table, int stages, float* y,
                        int64_t y_stride) {
  constexpr int kColumns = Shape::kColumns;
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  const int place = group / Shape::kColumnGroups * 4 + static_cast<int>(threadIdx.x) / 32 % 4;
  const int group_column = group % Shape::kColumnGroups * kColumns;
  // Only where a unit ends with work for the other units of the multiprocessor.
  constexpr bool kTurns = is_scaled(kStorage) && kFold == kUnitSteps && Shape::kGroups == 2;
  const Turns turns = kTurns ? Turns{1 + group, 2 - group} : Turns{};
  if (kTurns && group == 1) turns.pass();
  Slot slot{stages};
  grid_wait();
  for (Walk<Shape> walk(m, in.columns()); !walk.done(); walk.next()) {
    Sums<kColumns> total, segment, part;
    clear<kColumns>(total);
    clear<kColumns>(segment);
    int ended = 0;
#pragma unroll 1
    for (int unit = 0; unit < m.units; ++unit, slot.next()) {
      barrier_wait(full + slot.index, slot.phase);
      const uint8_t* stage = memory + slot.index * layout.bytes;
      const UnitView view = {
          stage + layout.codes + place * layout.tile_bytes,
          stage + layout.records + place * layout.record_bytes, stage + group_column * kColumnBytes,
          reinterpret_cast<const float*>(stage + layout.sums) + group_column + lane % 4 * 2,
          Shape::kBlockColumns};
      add_unit<kStorage, kFold, kColumns>(m, view, table, lane, turns, part, segment);
      __syncwarp();
      if (lane < kCluster) barrier_arrive(empty + slot.index, lane);
      if ((ended + 1) * m.units / kSegments <= unit + 1) {
        while (ended < kSegments && (ended + 1) * m.units / kSegments <= unit + 1) ++ended;
#pragma unroll
        for (int i = 0; i < kColumns / 2; ++i) {
          total[i] += segment[i];
          segment[i] = 0;
        }
      }
    }
    int first_tile, column;
    walk.place(first_tile, column);
    const int row = (first_tile + place) * kTileRows + lane / 4;
    column += group_column + lane % 4 * 2;
#pragma unroll
    for (int e = 0; e < kColumns / 8; ++e) {
      const float* t = total + 4 * e;
      write_pair(m, in, x.scales, row, column + 8 * e, t[0], t[1], y, y_stride);
      write_pair(m, in, x.scales, row + 8, column + 8 * e, t[2], t[3], y, y_stride);
    }
  }
  if (kTurns && group == 0) turns.wait();  // the last pass
}

template <Storage kStorage, int kFold, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    linear_wide(const PackedMatrix m, const LinearInput in, const WideInput x,
                const UnitLayout layout, int stages, float* y, int64_t y_stride) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint8_t memory[];
  grid_start();
  auto* full = reinterpret_cast<uint64_t*>(memory + stages * layout.bytes);
  uint64_t* empty = full + stages;
  auto* table = reinterpret_cast<uint32_t*>(empty + stages);
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      barrier_init(full + i, kUnitArrivals);
      barrier_init(empty + i, Shape::kGroups * 4 * kCluster);
    }
    barriers_ready();
  }
  if constexpr (kStorage == Storage::kTable4) fill_table(m, table);
  __syncthreads();
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x / 128 == Shape::kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) % 128 / 32, 0);
    if (warp < 2) produce<Shape>(m, in, x, layout, memory, full, empty, stages, warp == 1);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<kStorage, kFold, Shape>(m, in, x, layout, memory, full, empty, table, stages, y,
                                    y_stride);
  }
  cluster_arrive();  // none may end while the other may still write to it
  cluster_wait();
#endif
}

template <Storage kStorage, int kFold, typename Shape>
void launch_wide(const PackedMatrix& m, const LinearInput& in, const WideInput& x, float* y,
                 int64_t y_stride, int processors, cudaStream_t stream) {
  const UnitLayout layout(m, x, Shape::kTiles, Shape::kBlockColumns);
  const int fixed = 256 + (kStorage == Storage::kTable4 ? 1024 : 0);
  const int stages = std::min(8, (kMostShared - fixed) / layout.bytes);
  constexpr int kRows = Shape::kTiles * kTileRows * kCluster;
  const int works = (m.rows + kRows - 1) / kRows *
                    ((in.columns() + Shape::kBlockColumns - 1) / Shape::kBlockColumns);
  launch_cluster(linear_wide<kStorage, kFold, Shape>,
                 dim3(static_cast<unsigned>(std::min(works, processors / kCluster) * kCluster)),
                 Shape::kThreads, static_cast<size_t>(fixed + stages * layout.bytes), kCluster,
                 stream, m, in, x, layout, stages, y, y_stride);
}

template <Storage kStorage, int kFold>
void launch_shape(const PackedMatrix& m, const LinearInput& in, const WideInput& x, int rows,
                  float* y, int64_t y_stride, int processors, cudaStream_t stream) {
  if (rows == 128) {
    launch_wide<kStorage, kFold, WideShape<2, 1, 128>>(m, in, x, y, y_stride, processors, stream);
  } else {
    launch_wide<kStorage, kFold, WideShape<1, 2, 64>>(m, in, x, y, y_stride, processors, stream);
  }
}

}  // namespace

void launch_linear_wide(const PackedMatrix& matrix, const LinearInput& input, const WideInput& wide,
                        int rows, float* y, int64_t y_stride, int processors, cudaStream_t stream) {
  with_kernel_of(matrix, [&](auto storage, auto fold) {
    launch_shape<storage.value, fold.value>(matrix, input, wide, rows, y, y_stride, processors,
                                            stream);
  });
}

}  // namespace lowbit::cuda
