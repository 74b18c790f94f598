// Canonical weights into tile order, rows of them back, and products with plain fp32 weights.
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"
#include "lowbit/tensor/packing.h"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;

__device__ uint32_t raw_code(const uint8_t* row, int64_t k, int bits) {
  if (bits == 16) return reinterpret_cast<const uint16_t*>(row)[k];
  return unpack(row, k, bits);
}

// A thread for each 4 bytes of the tiles.
__global__ void pack_codes(PackedMatrix m, const uint8_t* raw, int64_t row_bytes, int bits,
                           int shift, uint32_t* codes, int64_t words) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= words) return;
  const int part = static_cast<int>(index % 4), lane = static_cast<int>(index / 4 % 32);
  const int per_unit = lane_words(m.storage);
  const int word = static_cast<int>(index / 128 % per_unit);
  const int64_t unit_index = index / 128 / per_unit;
  const int tile = static_cast<int>(unit_index / m.units);
  // The inverse of unit_place.
  const int place = static_cast<int>(unit_index % m.units), length = m.units / kSegments;
  const int unit =
      m.units % kSegments == 0 ? place % kSegments * length + place / kSegments : place;
  const int row = tile * kTileRows + lane / 4 + part / 2 * 8;
  uint32_t value = 0;
  // The columns that may lie in this word are four of each step that the word holds.
  for (int step = 0; step < kUnitSteps && row < m.rows; ++step) {
    for (int element = 0; element < 4; ++element) {
      const int k = step * 16 + lane % 4 * 4 + element;
      const CodePlace at = place_of(m.storage, row % kTileRows, k);
      const int64_t column = static_cast<int64_t>(unit) * kUnitCols + k;
      if (at.word != word || at.part != part || column >= m.cols) continue;
      value |= (raw_code(raw + row * row_bytes, column, bits) + static_cast<uint32_t>(shift))
               << at.bit;
    }
  }
  codes[index] = value;
}

__device__ float scale_at(const PackedMatrix& m, const uint8_t* record, int index) {
  switch (m.scale_type) {
    case ScaleType::kF16:
      return half_to_float(reinterpret_cast<const uint16_t*>(record)[index]);
    case ScaleType::kBF16:
      return bf16_to_float(reinterpret_cast<const uint16_t*>(record)[index]);
    case ScaleType::kF32:
      break;
  }
  return reinterpret_cast<const float*>(record)[index];
}

__device__ float e4m3_value(uint32_t code) {
  const uint32_t half = (code & 0x80u) << 8 | (code & 0x7fu) << 7;
  return half_to_float(static_cast<uint16_t>(half)) * 256.f;
}

// Weight (row, k) as dequantize_row makes it: no multiplication is fused with an addition.
__device__ float weight_at(const PackedMatrix& m, int row, int k) {
  const int tile = row / kTileRows, unit = k / kUnitCols, r = row % kTileRows,
            within = k % kUnitCols;
  const CodePlace place = place_of(m.storage, r, within);
  const int64_t word =
      ((static_cast<int64_t>(tile) * m.units + unit_place(m.units, unit)) * lane_words(m.storage) +
       place.word) *
          32 +
      place.lane;
  const uint32_t bits =
      reinterpret_cast<const uint32_t*>(m.codes)[word * 4 + place.part] >> place.bit;
  if (m.storage == Storage::kF16) return half_to_float(static_cast<uint16_t>(bits));
  if (m.storage == Storage::kBF16) return bf16_to_float(static_cast<uint16_t>(bits));

  const uint8_t* record =
      m.scales +
      (static_cast<int64_t>(tile) * m.records + (unit >> m.record_shift)) * m.record_bytes;
  const int index = within / 16 / m.fold * kTileRows + r % 8 * 2 + r / 8;
  const float scale = scale_at(m, record, index);
  if (m.storage == Storage::kE4M3) return __fmul_rn(scale, e4m3_value(bits & 0xffu));
  if (m.storage == Storage::kTable4) return __fmul_rn(scale, m.table[bits & 15u]);
  const int code = static_cast<int>(bits & (m.storage == Storage::kInt4 ? 15u : 255u));
  const uint8_t* after = after_scales(m, record);
  switch (m.zero_type) {
    case ZeroType::kCenter:
      return __fmul_rn(scale, static_cast<float>(code - m.center));
    case ZeroType::kInt:
      return __fmul_rn(scale, static_cast<float>(code - after[index]));
    case ZeroType::kOffset:
      break;
  }
  const float offset = reinterpret_cast<const float*>(after)[index];
  return __fadd_rn(__fmul_rn(scale, static_cast<float>(code)), offset);
}

// One block per id.
__global__ void embed_packed(PackedMatrix m, int first_row, const int32_t* ids, float* out) {
  grid_start();
  grid_wait();
  const int row = ids[blockIdx.x] - first_row;
  if (row < 0 || row >= m.rows) return;
  for (int k = static_cast<int>(threadIdx.x); k < m.cols; k += kThreads) {
    const int to = m.input_order == nullptr ? k : m.input_order[k];
    out[static_cast<int64_t>(blockIdx.x) * m.cols + to] = weight_at(m, row, k);
  }
}

__global__ void embed_outliers(PackedMatrix outliers, const int32_t* columns, int first_row,
                               const int32_t* ids, int cols, float* out) {
  grid_start();
  grid_wait();
  const int row = ids[blockIdx.x] - first_row;
  if (row < 0 || row >= outliers.rows) return;
  for (int i = static_cast<int>(threadIdx.x); i < outliers.cols; i += kThreads) {
    out[static_cast<int64_t>(blockIdx.x) * cols + columns[i]] = weight_at(outliers, row, i);
  }
}

__global__ void embed_f32(const float* weight, int first_row, int rows, int cols,
                          const int32_t* ids, float* out) {
  grid_start();
  grid_wait();
  const int row = ids[blockIdx.x] - first_row;
  if (row < 0 || row >= rows) return;
  for (int k = static_cast<int>(threadIdx.x); k < cols; k += kThreads) {
    out[static_cast<int64_t>(blockIdx.x) * cols + k] = weight[static_cast<int64_t>(row) * cols + k];
  }
}

constexpr int kPlainTokens = 4;  // of a warp, which owns one row

__global__ void linear_f32(const float* weight, const float* bias, const float* x, int tokens,
                           int rows, int cols, float* y, int64_t y_stride) {
  grid_start();
  grid_wait();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) / 32;
  const int first = static_cast<int>(blockIdx.y) * kPlainTokens;
  if (row >= rows) return;
  const float* w = weight + static_cast<int64_t>(row) * cols;
  float sums[kPlainTokens] = {};
  for (int k = lane; k < cols; k += 32) {
    const float value = w[k];
    for (int i = 0; i < kPlainTokens; ++i) {
      const int token = min(first + i, tokens - 1);
      sums[i] = fmaf(value, x[static_cast<int64_t>(token) * cols + k], sums[i]);
    }
  }
  for (int i = 0; i < kPlainTokens; ++i) {
    for (int offset = 16; offset > 0; offset /= 2) {
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], offset);
    }
    if (lane == 0 && first + i < tokens) {
      y[(first + i) * y_stride + row] = sums[i] + (bias == nullptr ? 0.f : bias[row]);
    }
  }
}

unsigned blocks_of(int64_t count, int size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

}  // namespace

void launch_pack(const PackedMatrix& matrix, const uint8_t* raw, int64_t row_bytes, int bits,
                 int shift, uint4* codes, cudaStream_t stream) {
  const int64_t tiles = (matrix.rows + kTileRows - 1) / kTileRows;
  const int64_t words = tiles * matrix.units * lane_words(matrix.storage) * 128;
  launch(pack_codes, dim3(blocks_of(words, kThreads)), kThreads, 0, stream, matrix, raw, row_bytes,
         bits, shift, reinterpret_cast<uint32_t*>(codes), words);
}

void launch_embed(const PackedMatrix& matrix, int first_row, const int32_t* ids, int count,
                  float* out, cudaStream_t stream) {
  launch(embed_packed, dim3(static_cast<unsigned>(count)), kThreads, 0, stream, matrix, first_row,
         ids, out);
}

void launch_embed_outliers(const PackedMatrix& outliers, const int32_t* columns, int first_row,
                           const int32_t* ids, int count, int cols, float* out,
                           cudaStream_t stream) {
  launch(embed_outliers, dim3(static_cast<unsigned>(count)), kThreads, 0, stream, outliers, columns,
         first_row, ids, cols, out);
}

void launch_linear_f32(const float* weight, const float* bias, const float* x, int tokens, int rows,
                       int cols, float* y, int64_t y_stride, cudaStream_t stream) {
  launch(linear_f32, dim3(blocks_of(rows, kThreads / 32), blocks_of(tokens, kPlainTokens)),
         kThreads, 0, stream, weight, bias, x, tokens, rows, cols, y, y_stride);
}

void launch_embed_f32(const float* weight, int first_row, int rows, int cols, const int32_t* ids,
                      int count, float* out, cudaStream_t stream) {
  launch(embed_f32, dim3(static_cast<unsigned>(count)), kThreads, 0, stream, weight, first_row,
         rows, cols, ids, out);
}

}  // namespace lowbit::cuda
