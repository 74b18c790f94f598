// y = x * W^T for few tokens: weights stream once through shared memory into the tensor cores.
//
// Work      One block per multiprocessor takes tiles of 16 rows in turn. Its 16 warps own a segment
//           of the columns each, in every tile, so that each reads one long run of bytes; their
//           partial sums meet in shared memory and are added in order.
// Pipeline  A warp copies 1 KiB of codes (and the record of scales beside them) at a time, kStages
//           ahead, asynchronously: 64 KiB in flight per multiprocessor hide the latency of HBM. The
//           first are asked for before the kernel that makes the inputs has finished.
// Bound     Each byte of the weight is read once: PackedMatrix bytes / HBM bandwidth.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kWarps = kSegments;
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 4;
constexpr int kMostColumns = 8;
constexpr int kItemBytes = 1024;  // two words for each lane
constexpr int kColumnPadding = 8;

// Shared memory: [ring][columns of x][partial sums, twice][table]
struct SharedLayout {
  int slot, ring, x_stride, x, sums, table;

  __host__ __device__ SharedLayout(const PackedMatrix& m, int columns) {
    slot = kItemBytes + m.record_bytes;
    ring = kWarps * kStages * slot;
    x_stride = m.units * kUnitCols + kColumnPadding;  // in elements
    x = columns * x_stride * 2;
    sums = 2 * kWarps * kTileRows * columns * 4;
    table = m.storage == Storage::kTable4 ? 1024 : 0;
  }
  __host__ __device__ int bytes() const { return ring + x + sums + table; }
};

// A warp's place in its stream of items: its segment of one tile after another.
template <Storage kStorage>
struct Cursor {
  static constexpr int kItems = lane_words(kStorage) / 2;  // of a unit

  const PackedMatrix& m;
  int first, per_tile;  // unit and items of the segment
  int tile, item = 0;

  __device__ Cursor(const PackedMatrix& matrix, int warp)
      : m(matrix), first(warp * matrix.units / kSegments), tile(static_cast<int>(blockIdx.x)) {
    per_tile = ((warp + 1) * matrix.units / kSegments - first) * kItems;
  }
  __device__ bool done() const { return per_tile == 0 || tile * kTileRows >= m.rows; }
  __device__ void fetch(uint8_t* slot, int lane) {
    const int64_t unit = static_cast<int64_t>(tile) * m.units + first;
    const uint4* codes = m.codes + unit * (kItems * 64) + item * 64 + lane;
    copy16_async(slot + lane * 16, codes);
    copy16_async(slot + 512 + lane * 16, codes + 32);
    if constexpr (is_scaled(kStorage)) {
      const int record = tile * m.records + ((first + item / kItems) >> m.record_shift);
      const uint8_t* from = m.scales + static_cast<int64_t>(record) * m.record_bytes;
      for (int at = lane * 16; at < m.record_bytes; at += 512) {
        copy16_async(slot + kItemBytes + at, from + at);
      }
    }
    if (++item == per_tile) item = 0, tile += static_cast<int>(gridDim.x);
  }
};

// Fills the columns of x; returns whether a value is too large for a half.
template <bool kBrain>
__device__ bool fill_columns(const PackedMatrix& m, const LinearInput& in, const float* scales,
                             uint16_t* x, int stride) {
  bool large = false;
  const int quads = m.units * (kUnitCols / 4);
  for (int token = 0; token < in.tokens; ++token) {
    const float inverse = scales == nullptr ? 1.f : 1.f / scales[token];
    for (int i = static_cast<int>(threadIdx.x); i < quads; i += kThreads) {
      const float4 v = load_inputs(m, in.x + static_cast<int64_t>(token) * m.cols, 4 * i);
      large |= largest_of(v) >= kHalfLimit;
      uint16_t* at = x + (in.split ? 2 * token : token) * stride + column_place(4 * i);
      store_inputs<kBrain>(v, inverse, in.split, at, stride);
    }
  }
  return large;
}

// As fill_columns, with large tokens scaled; scales: [tokens] in shared memory.
template <bool kBrain>
__device__ void fill_shared(const PackedMatrix& m, const LinearInput& in, float* scales,
                            uint16_t* x, int stride) {
  if (threadIdx.x < kMostColumns) scales[threadIdx.x] = 1;
  const bool large = fill_columns<kBrain>(m, in, nullptr, x, stride);
  if (__syncthreads_or(!kBrain && large) == 0) return;
  __shared__ unsigned largest[kMostColumns];
  if (threadIdx.x < kMostColumns) largest[threadIdx.x] = 0;
  __syncthreads();
  for (int token = 0; token < in.tokens; ++token) {
    for (int k = static_cast<int>(threadIdx.x); k < m.cols; k += kThreads) {
      const float value = fabsf(in.x[static_cast<int64_t>(token) * m.cols + k]);
      atomicMax(&largest[token], __float_as_uint(value));
    }
  }
  __syncthreads();
  if (threadIdx.x < in.tokens) scales[threadIdx.x] = token_scale(__uint_as_float(largest[threadIdx.x]));
  __syncthreads();
  fill_columns<kBrain>(m, in, scales, x, stride);
  __syncthreads();
}

// The sums that a warp carries through its segment of a tile.
template <Storage kStorage, bool kOffset, int kFold>
struct Sums {
  float segment[4] = {}, part[4] = {}, ones[4] = {};
  ZeroPairs zero;

  // One item of a unit: `steps` of 16 columns from `step` on. x: the lane's column at the unit.
  __device__ void add(const PackedMatrix& m, const uint8_t* slot, int first_step, const uint16_t* x,
                      const uint32_t* table, int lane) {
    constexpr int kSteps = kUnitSteps * 2 / lane_words(kStorage);
    constexpr int kWordSteps = kSteps / 2;
    const uint8_t* record = slot + kItemBytes;
    const int fold = kFold == 0 ? m.fold : kFold;
    uint4 b;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int step = first_step + i;
      if (i % 2 == 0) {
        b = *reinterpret_cast<const uint4*>(x + step / 4 * 64 + step % 4 / 2 * 8);
      }
      if constexpr (is_integer(kStorage)) {
        if (step % fold == 0) zero = group_zeros(m, record, step / fold, lane / 4);
      }
      const uint4 words =
          *reinterpret_cast<const uint4*>(slot + i / kWordSteps * 512 + lane * 16);
      uint32_t a[4];
      widen<kStorage>(words, step, zero, table, a);
      const uint32_t b0 = i % 2 == 0 ? b.x : b.z, b1 = i % 2 == 0 ? b.y : b.w;
      if constexpr (!is_scaled(kStorage)) {
        multiply<kStorage>(segment, a, b0, b1);
      } else {
        multiply<kStorage>(part, a, b0, b1);
        if constexpr (kOffset) {
          const uint32_t all_ones[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
          multiply<kStorage>(ones, all_ones, b0, b1);
        }
        if ((step + 1) % fold == 0) {
          fold_group<kOffset>(m, record, step / fold, lane / 4, part, ones, segment);
          for (int j = 0; j < 4; ++j) part[j] = ones[j] = 0;
        }
      }
    }
  }
};

// Adds the segments' sums in order and writes the tile's rows.
__device__ void write_tile(const PackedMatrix& m, const LinearInput& in, const float* sums,
                           const float* scales, int tile, float* y, int64_t y_stride) {
  const int columns = in.columns();
  for (int i = static_cast<int>(threadIdx.x); i < in.tokens * kTileRows; i += kThreads) {
    const int token = i / kTileRows, row = i % kTileRows;
    const int column = in.split ? 2 * token : token;
    const float* from = sums + column * kTileRows + row;
    float total = 0, rest = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      total += from[warp * columns * kTileRows];
      if (in.split) rest += from[(warp * columns + 1) * kTileRows];
    }
    if (in.split) total = fmaf(rest, 1.f / kSplitFactor, total);
    const int at = tile * kTileRows + row;
    if (at >= m.rows) continue;
    const float bias = m.bias == nullptr ? 0.f : m.bias[at];
    y[token * y_stride + at] = total * scales[token] + bias;
  }
}

template <Storage kStorage, bool kOffset, int kFold>
__global__ void __launch_bounds__(kThreads, 1)
    linear_stream(const PackedMatrix m, const LinearInput in, float* y, int64_t y_stride) {
  constexpr bool kBrain = kStorage == Storage::kBF16;
  extern __shared__ __align__(16) uint8_t memory[];
  __shared__ float scales[kMostColumns];
  grid_start();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int columns = in.columns();
  const SharedLayout layout(m, columns);
  uint8_t* ring = memory + warp * kStages * layout.slot;
  auto* x = reinterpret_cast<uint16_t*>(memory + layout.ring);
  auto* sums = reinterpret_cast<float*>(memory + layout.ring + layout.x);
  auto* table = reinterpret_cast<uint32_t*>(memory + layout.ring + layout.x + layout.sums);

  Cursor<kStorage> cursor(m, warp);
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (!cursor.done()) cursor.fetch(ring + stage * layout.slot, lane);
    copies_commit();
  }
  if constexpr (kStorage == Storage::kTable4) fill_table(m, table);
  grid_wait();
  fill_shared<kBrain>(m, in, scales, x, layout.x_stride);

  const int column = min(lane / 4, columns - 1);
  const uint16_t* lane_x =
      x + column * layout.x_stride + cursor.first * kUnitCols + lane % 4 * 16;
  int stage = 0, free_stage = kStages - 1;
  int turn = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile * kTileRows < m.rows;
       tile += static_cast<int>(gridDim.x), ++turn) {
    Sums<kStorage, kOffset, kFold> mine;
    if constexpr (is_integer(kStorage)) mine.zero = zero_pairs(m.center, m.center);
    for (int item = 0; item < cursor.per_tile; ++item) {
      copies_wait<kStages - 2>();
      __syncwarp();
      if (!cursor.done()) cursor.fetch(ring + free_stage * layout.slot, lane);
      copies_commit();
      constexpr int kItems = Cursor<kStorage>::kItems;
      mine.add(m, ring + stage * layout.slot, item % kItems * (kUnitSteps / kItems),
               lane_x + item / kItems * kUnitCols, table, lane);
      free_stage = stage;
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    float* turn_sums = sums + turn % 2 * (kWarps * kTileRows * columns);
    float* to = turn_sums + warp * columns * kTileRows + lane / 4;
    const int pair = lane % 4 * 2;
    for (int i = 0; i < 2 && pair + i < columns; ++i) {
      to[(pair + i) * kTileRows] = mine.segment[i];
      to[(pair + i) * kTileRows + 8] = mine.segment[2 + i];
    }
    __syncthreads();
    write_tile(m, in, turn_sums, scales, tile, y, y_stride);
  }
}

template <Storage kStorage>
auto choose_kernel(const PackedMatrix& m) {
  if constexpr (!is_scaled(kStorage)) return linear_stream<kStorage, false, 8>;
  if constexpr (is_integer(kStorage)) {
    if (m.zero_type == ZeroType::kOffset) return linear_stream<kStorage, true, 0>;
  }
  if constexpr (kStorage != Storage::kTable4) {
    if (m.fold == kUnitSteps) return linear_stream<kStorage, false, kUnitSteps>;
  }
  return linear_stream<kStorage, false, 0>;
}

auto choose_kernel(const PackedMatrix& m) {
  switch (m.storage) {
    case Storage::kInt4:
      return choose_kernel<Storage::kInt4>(m);
    case Storage::kInt8:
      return choose_kernel<Storage::kInt8>(m);
    case Storage::kTable4:
      return choose_kernel<Storage::kTable4>(m);
    case Storage::kE4M3:
      return choose_kernel<Storage::kE4M3>(m);
    case Storage::kF16:
      return choose_kernel<Storage::kF16>(m);
    case Storage::kBF16:
      break;
  }
  return choose_kernel<Storage::kBF16>(m);
}

}  // namespace

bool stream_fits(const PackedMatrix& matrix, const LinearInput& input, int shared_bytes) {
  return input.columns() <= kMostColumns &&
         SharedLayout(matrix, input.columns()).bytes() <= shared_bytes;
}

void launch_linear_stream(const PackedMatrix& matrix, const LinearInput& input, float* y,
                          int64_t y_stride, int processors, cudaStream_t stream) {
  const int tiles = (matrix.rows + kTileRows - 1) / kTileRows;
  launch(choose_kernel(matrix), dim3(static_cast<unsigned>(std::min(tiles, processors))), kThreads,
         static_cast<size_t>(SharedLayout(matrix, input.columns()).bytes()), stream, matrix, input,
         y, y_stride);
}

}  // namespace lowbit::cuda
