// y = x * W^T for many tokens on devices without wgmma: the same sums in the same order as
// linear_stream, bit for bit.
//
// Work      A block owns 128 rows x 64 columns of inputs and walks the weight in units of 128
//           columns, three units ahead in shared memory; each of its 8 warps widens the codes of 32
//           rows and multiplies them with 32 columns.
// Numerics  Sums of a group, of a segment and of the segments are kept apart, as linear_stream
//           makes them. A first kernel rounds the inputs to 16 bits.
// Bound     2 * rows * cols * columns operations on mma.sync, about 60 % of the wgmma peak.
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 3;
constexpr int kBlockTiles = 8;  // of 16 rows
constexpr int kBlockColumns = 64;
constexpr int kWarpTiles = 2;
constexpr int kWarpEighths = 4;  // of 8 columns
constexpr int kColumnBytes = kUnitCols * 2 + 16;
constexpr int kPrepareThreads = 256;

// One block per token.
template <Storage kStorage>
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_inputs(const PackedMatrix m, const LinearInput in, PreparedInput out,
                   int64_t sum_stride) {
  __shared__ float largest[kPrepareThreads / 32];
  grid_start();
  grid_wait();
  const int64_t token = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const float* x = in.x + token * m.cols;
  float scale = 1;
  if constexpr (kStorage != Storage::kBF16) {
    float mine = 0;
    for (int k = thread; k < m.cols; k += kPrepareThreads) mine = fmaxf(mine, fabsf(x[k]));
    scale = token_scale(largest_of_block(mine, largest));
  }
  if (thread == 0) out.scales[token] = scale;
  const float inverse = 1.f / scale;
  const int64_t stride = static_cast<int64_t>(m.units) * kUnitCols;
  const int64_t column = in.split ? 2 * token : token;
  for (int k = thread * 4; k < stride; k += kPrepareThreads * 4) {
    float4 v = load_inputs(m, x, k);
    v = make_float4(v.x * inverse, v.y * inverse, v.z * inverse, v.w * inverse);
    uint16_t* to = out.values + column * stride;
    store_quad<kStorage>(m.fold, take_quad<kStorage>(v), k, to, out.sums + column, sum_stride);
    if (in.split) {
      store_quad<kStorage>(m.fold, take_quad<kStorage>(v), k, to + stride, out.sums + column + 1,
                           sum_stride);
    }
  }
}

// Of a unit in shared memory: [codes of 8 tiles][their records][columns][sums of their groups]
struct StageLayout {
  int codes, record, x, groups, bytes;

  __host__ __device__ explicit StageLayout(const PackedMatrix& m)
      : codes(kBlockTiles * lane_words(m.storage) * 512), record(m.record_bytes) {
    x = codes + kBlockTiles * record;
    groups = x + kBlockColumns * kColumnBytes;
    bytes = groups + (is_integer(m.storage) ? kUnitSteps / m.fold * kBlockColumns * 4 : 0);
  }
};

// Copies unit `unit` of the block's rows and columns.
template <Storage kStorage>
__device__ void fetch_unit(const PackedMatrix& m, const StageLayout& layout,
                           const PreparedInput& in, int columns, int64_t sum_stride, int unit,
                           uint8_t* stage) {
  constexpr int kTileBytes = lane_words(kStorage) * 512;
  const int tiles = (m.rows + kTileRows - 1) / kTileRows;
  const int first_tile = static_cast<int>(blockIdx.x) * kBlockTiles;
  const auto* codes = reinterpret_cast<const uint8_t*>(m.codes);
  for (int at = static_cast<int>(threadIdx.x) * 16; at < layout.codes; at += kThreads * 16) {
    const int tile = min(first_tile + at / kTileBytes, tiles - 1);
    const int64_t place = static_cast<int64_t>(tile) * m.units + unit_place(m.units, unit);
    copy16_async(stage + at, codes + place * kTileBytes + at % kTileBytes);
  }
  for (int i = 0; is_scaled(kStorage) && i < kBlockTiles; ++i) {
    const int tile = min(first_tile + i, tiles - 1);
    const uint8_t* from =
        m.scales +
        (static_cast<int64_t>(tile) * m.records + (unit >> m.record_shift)) * m.record_bytes;
    for (int at = static_cast<int>(threadIdx.x) * 16; at < layout.record; at += kThreads * 16) {
      copy16_async(stage + layout.codes + i * layout.record + at, from + at);
    }
  }
  const int first_column = static_cast<int>(blockIdx.y) * kBlockColumns;
  for (int i = static_cast<int>(threadIdx.x); i < kBlockColumns * 16; i += kThreads) {
    const int64_t column = min(first_column + i / 16, columns - 1);
    copy16_async(stage + layout.x + i / 16 * kColumnBytes + i % 16 * 16,
                 in.values + (column * m.units + unit) * kUnitCols + i % 16 * 8);
  }
  if constexpr (is_integer(kStorage)) {
    const int groups = kUnitSteps / m.fold;
    for (int i = static_cast<int>(threadIdx.x); i < groups * 16; i += kThreads) {
      copy16_async(stage + layout.groups + i * 16,
                   in.sums + (unit * groups + i / 16) * sum_stride + first_column + i % 16 * 4);
    }
  }
}

template <Storage kStorage>
struct TileSums {
  float total[kWarpTiles][kWarpEighths][4] = {};
  float segment[kWarpTiles][kWarpEighths][4] = {};
  float part[kWarpTiles][kWarpEighths][4] = {};

  // codes, records: of the warp's first tile. x, groups: at the lane's first column.
  __device__ void add_unit(const PackedMatrix& m, const uint8_t* codes, const uint8_t* records,
                           const uint8_t* x, const float* groups, const uint32_t* table, int lane) {
    constexpr int kWordSteps = kUnitSteps / lane_words(kStorage);
    uint4 b[kWarpEighths];
#pragma unroll
    for (int step = 0; step < kUnitSteps; ++step) {
      if (step % 2 == 0) {
        for (int e = 0; e < kWarpEighths; ++e) {
          b[e] = *reinterpret_cast<const uint4*>(x + e * 8 * kColumnBytes + step / 4 * 128 +
                                                 step % 4 / 2 * 16);
        }
      }
#pragma unroll
      for (int i = 0; i < kWarpTiles; ++i) {
        const uint4 words = *reinterpret_cast<const uint4*>(
            codes + (i * lane_words(kStorage) + step / kWordSteps) * 512 + lane * 16);
        uint32_t a[4];
        widen<kStorage>(words, step, table, a);
        for (int e = 0; e < kWarpEighths; ++e) {
          multiply<kStorage>(is_scaled(kStorage) ? part[i][e] : segment[i][e], a,
                             step % 2 == 0 ? b[e].x : b[e].z, step % 2 == 0 ? b[e].y : b[e].w);
        }
      }
      if (is_scaled(kStorage) && (step + 1) % m.fold == 0) {
        fold(m, records, groups, step / m.fold, lane);
      }
    }
  }

  __device__ void fold(const PackedMatrix& m, const uint8_t* records, const float* groups,
                       int group, int lane) {
    for (int e = 0; e < kWarpEighths; ++e) {
      float2 inputs = {};
      if constexpr (is_integer(kStorage)) {
        inputs = *reinterpret_cast<const float2*>(groups + group * kBlockColumns + e * 8);
      }
      for (int i = 0; i < kWarpTiles; ++i) {
        fold_group<kStorage>(m, records + i * m.record_bytes, group, lane / 4, part[i][e], inputs,
                             segment[i][e]);
        for (int j = 0; j < 4; ++j) part[i][e][j] = 0;
      }
    }
  }

  __device__ void end_segment() {
    for (int i = 0; i < kWarpTiles; ++i) {
      for (int e = 0; e < kWarpEighths; ++e) {
        for (int j = 0; j < 4; ++j) {
          total[i][e][j] += segment[i][e][j];
          segment[i][e][j] = 0;
        }
      }
    }
  }
};

// first_row, first_column: of the lane's first value.
template <Storage kStorage>
__device__ void write_sums(const PackedMatrix& m, const LinearInput& in, const float* row_scales,
                           const TileSums<kStorage>& sums, int first_row, int first_column,
                           float* y, int64_t y_stride) {
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) {
#pragma unroll
    for (int e = 0; e < kWarpEighths; ++e) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + i * kTileRows + half * 8, column = first_column + e * 8;
        if (row >= m.rows) continue;
        const float bias = m.bias == nullptr ? 0.f : m.bias[row];
        const float first = sums.total[i][e][2 * half], second = sums.total[i][e][2 * half + 1];
        if (in.split) {
          const int token = column / 2;
          if (token >= in.tokens) continue;
          const float value = fmaf(second, 1.f / kSplitFactor, first);
          y[token * y_stride + row] = value * row_scales[token] + bias;
        } else {
          if (column < in.tokens) y[column * y_stride + row] = first * row_scales[column] + bias;
          if (column + 1 < in.tokens) {
            y[(column + 1) * y_stride + row] = second * row_scales[column + 1] + bias;
          }
        }
      }
    }
  }
}

template <Storage kStorage>
__global__ void __launch_bounds__(kThreads, 1)
    linear_tile(const PackedMatrix m, const LinearInput in, const PreparedInput prepared,
                int64_t sum_stride, float* y, int64_t y_stride) {
  extern __shared__ __align__(16) uint8_t memory[];
  const StageLayout layout(m);
  grid_start();
  auto* table = reinterpret_cast<uint32_t*>(memory + kStages * layout.bytes);
  if constexpr (kStorage == Storage::kTable4) fill_table(m, table);
  grid_wait();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row_warp = warp / 2, column_warp = warp % 2, columns = in.columns();
  for (int unit = 0; unit < kStages - 1; ++unit) {
    if (unit < m.units) {
      fetch_unit<kStorage>(m, layout, prepared, columns, sum_stride, unit,
                           memory + unit * layout.bytes);
    }
    copies_commit();
  }
  TileSums<kStorage> sums;
  int segment = 0;
  for (int unit = 0; unit < m.units; ++unit) {
    copies_wait<kStages - 2>();
    __syncthreads();
    const int next = unit + kStages - 1;
    if (next < m.units) {
      fetch_unit<kStorage>(m, layout, prepared, columns, sum_stride, next,
                           memory + next % kStages * layout.bytes);
    }
    copies_commit();
    const uint8_t* stage = memory + unit % kStages * layout.bytes;
    const uint8_t* records = stage + layout.codes + row_warp * kWarpTiles * layout.record;
    const int first_column = column_warp * kWarpEighths * 8;
    const uint8_t* x = stage + layout.x + (first_column + lane / 4) * kColumnBytes + lane % 4 * 32;
    const float* groups =
        reinterpret_cast<const float*>(stage + layout.groups) + first_column + lane % 4 * 2;
    sums.add_unit(m, stage + row_warp * kWarpTiles * lane_words(kStorage) * 512, records, x, groups,
                  table, lane);
    while (segment < kSegments && (segment + 1) * m.units / kSegments <= unit + 1) {
      sums.end_segment();
      ++segment;
    }
  }
  write_sums<kStorage>(
      m, in, prepared.scales, sums,
      (static_cast<int>(blockIdx.x) * kBlockTiles + row_warp * kWarpTiles) * kTileRows + lane / 4,
      static_cast<int>(blockIdx.y) * kBlockColumns + column_warp * kWarpEighths * 8 + lane % 4 * 2,
      y, y_stride);
}

template <Storage kStorage>
void launch_both(const PackedMatrix& m, const LinearInput& in, const PreparedInput& prepared,
                 float* y, int64_t y_stride, cudaStream_t stream) {
  const auto blocks = [](int count, int size) {
    return static_cast<unsigned>((count + size - 1) / size);
  };
  const int64_t sum_stride = blocks(in.columns(), kBlockColumns) * kBlockColumns;
  launch(prepare_inputs<kStorage>, dim3(static_cast<unsigned>(in.tokens)), kPrepareThreads, 0,
         stream, m, in, prepared, sum_stride);
  const dim3 grid(blocks(m.rows, kBlockTiles * kTileRows), blocks(in.columns(), kBlockColumns));
  const size_t shared = static_cast<size_t>(kStages * StageLayout(m).bytes +
                                            (kStorage == Storage::kTable4 ? 1024 : 0));
  launch(linear_tile<kStorage>, grid, kThreads, shared, stream, m, in, prepared, sum_stride, y,
         y_stride);
}

}  // namespace

void launch_linear_tile(const PackedMatrix& matrix, const LinearInput& input,
                        const PreparedInput& prepared, float* y, int64_t y_stride,
                        cudaStream_t stream) {
  switch (matrix.storage) {
    case Storage::kInt4:
      return launch_both<Storage::kInt4>(matrix, input, prepared, y, y_stride, stream);
    case Storage::kInt8:
      return launch_both<Storage::kInt8>(matrix, input, prepared, y, y_stride, stream);
    case Storage::kTable4:
      return launch_both<Storage::kTable4>(matrix, input, prepared, y, y_stride, stream);
    case Storage::kE4M3:
      return launch_both<Storage::kE4M3>(matrix, input, prepared, y, y_stride, stream);
    case Storage::kF16:
      return launch_both<Storage::kF16>(matrix, input, prepared, y, y_stride, stream);
    case Storage::kBF16:
      return launch_both<Storage::kBF16>(matrix, input, prepared, y, y_stride, stream);
  }
}

}  // namespace lowbit::cuda
