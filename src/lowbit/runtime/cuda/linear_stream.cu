// y = x * W^T for few tokens: weights stream once through shared memory into the tensor cores.
//
// Inputs    Every block divides a token by a power of two, rounds it to 16 bits and keeps it.
// Work      One block per multiprocessor takes tiles of 16 rows in turn. Its 16 warps own a segment
//           of the columns each, in every tile, so that each reads one long run of bytes; their
//           partial sums meet in shared memory every few tiles and are added in order.
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
constexpr int kStages = 5;
constexpr int kMostColumns = 8;
constexpr int kFillQuads = 8;  // that a thread loads at once
constexpr int kItemBytes = 1024;  // two words for each lane
constexpr int kColumnPadding = 8;

// Shared memory: [ring][columns of x][sums of their groups][partial sums, twice][table]
struct SharedLayout {
  int slot, ring, x_stride, x, group_stride, groups, turns, sums, table;

  __host__ __device__ SharedLayout(const PackedMatrix& m, int columns) {
    turns = columns <= 2 ? 4 : 1;  // tiles between two barriers
    slot = kItemBytes + m.record_bytes;
    ring = kWarps * kStages * slot;
    x_stride = m.units * kUnitCols + kColumnPadding;  // in elements
    x = columns * x_stride * 2;
    group_stride = (columns + 1) / 2 * 2;
    groups = is_integer(m.storage) ? m.units * (kUnitSteps / m.fold) * group_stride * 4 : 0;
    sums = 2 * turns * kWarps * kTileRows * columns * 4;
    table = m.storage == Storage::kTable4 ? 1024 : 0;
  }
  __host__ __device__ int bytes() const { return ring + x + groups + sums + table; }
};

// A warp's stream of items: its segment of one tile after another.
template <Storage kStorage>
class Stream {
 public:
  static constexpr int kItems = lane_words(kStorage) / 2;  // of a unit

  __device__ Stream(const PackedMatrix& m, int warp, int lane, uint8_t* ring, int slot_bytes)
      : m_(m), lane_(lane), slot_bytes_(slot_bytes), ring_(ring), free_(ring), ready_(ring) {
    first_ = warp * m.units / kSegments;
    units_ = (warp + 1) * m.units / kSegments - first_;
    const int tiles = (m.rows + kTileRows - 1) / kTileRows;
    const int first_tile = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);
    left_ = (tiles - first_tile + stride - 1) / stride * units_ * kItems;
    const bool alternate = m.units % kSegments == 0;
    constexpr int kUnitWords = kItems * 64;
    const int64_t place = static_cast<int64_t>(first_tile) * m.units + (alternate ? warp : first_);
    codes_ = m.codes + place * kUnitWords + lane;
    unit_step_ = (alternate ? kSegments : 1) * kUnitWords - (kItems - 1) * 64;
    tile_step_ = (static_cast<int64_t>(stride) * m.units -
                  static_cast<int64_t>(units_ - 1) * (alternate ? kSegments : 1)) *
                     kUnitWords -
                 (kItems - 1) * 64;
    records_ = m.scales + static_cast<int64_t>(first_tile) * m.records * m.record_bytes;
    record_step_ = static_cast<int64_t>(stride) * m.records * m.record_bytes;
  }
  __device__ int tile_items() const { return units_ * kItems; }
  __device__ int first_unit() const { return first_; }

  // Asks for the next item, if there is one, in the slot that has been free the longest.
  __device__ void fetch() {
    if (left_ > 0) {
      --left_;
      copy16_async(free_ + lane_ * 16, codes_);
      copy16_async(free_ + 512 + lane_ * 16, codes_ + 32);
      if constexpr (is_scaled(kStorage)) fetch_record();
      if (++item_ < kItems) {
        codes_ += 64;
      } else {
        item_ = 0;
        if (++unit_ < units_) {
          codes_ += unit_step_;
        } else {
          unit_ = 0;
          codes_ += tile_step_;
          records_ += record_step_;
        }
      }
    }
    copies_commit();
    advance(free_);
  }
  // The oldest item that was asked for.
  __device__ const uint8_t* next() {
    copies_wait<kStages - 2>();
    __syncwarp();
    const uint8_t* slot = ready_;
    advance(ready_);
    return slot;
  }

 private:
  __device__ void fetch_record() {
    const uint8_t* from = records_ + ((first_ + unit_) >> m_.record_shift) * m_.record_bytes;
    for (int at = lane_ * 16; at < m_.record_bytes; at += 512) {
      copy16_async(free_ + kItemBytes + at, from + at);
    }
  }
  __device__ void advance(uint8_t*& slot) const {
    slot += slot_bytes_;
    if (slot == ring_ + kStages * slot_bytes_) slot = ring_;
  }

  const PackedMatrix& m_;
  int lane_, slot_bytes_, first_, units_, left_, item_ = 0, unit_ = 0;
  int unit_step_;
  int64_t tile_step_, record_step_;
  const uint4* codes_;
  const uint8_t* records_;
  uint8_t *ring_, *free_, *ready_;
};

// Fills the columns of x in shared memory. Loads come in batches: each waits for the memory, behind
// the weights that are already on their way.
template <Storage kStorage>
__device__ void fill_columns(const PackedMatrix& m, const LinearInput& in,
                             const SharedLayout& layout, float* scales, uint16_t* x,
                             float* groups) {
  __shared__ float largest[kMostColumns][kWarps];
  const int thread = static_cast<int>(threadIdx.x), quads = m.units * (kUnitCols / 4);
  for (int token = 0; token < in.tokens; ++token) {
    const float* from = in.x + static_cast<int64_t>(token) * m.cols;
    float4 batch[kFillQuads];
    const auto load = [&](int base) {
#pragma unroll
      for (int i = 0; i < kFillQuads; ++i) {
        const int quad = base + i * kThreads + thread;
        batch[i] = quad < quads ? load_inputs(m, from, 4 * quad) : make_float4(0, 0, 0, 0);
      }
    };
    float scale = 1;
    if constexpr (kStorage != Storage::kBF16) {
      float mine = 0;
      for (int base = 0; base < quads; base += kFillQuads * kThreads) {
        load(base);
#pragma unroll
        for (int i = 0; i < kFillQuads; ++i) mine = fmaxf(mine, largest_of(batch[i]));
      }
      scale = token_scale(largest_of_block(mine, largest[token]));
    }
    if (thread == 0) scales[token] = scale;
    const float inverse = 1.f / scale;
    const int column = in.split ? 2 * token : token;
    for (int base = 0; base < quads; base += kFillQuads * kThreads) {
      if (kStorage == Storage::kBF16 || quads > kFillQuads * kThreads) load(base);
#pragma unroll
      for (int i = 0; i < kFillQuads; ++i) {
        const int quad = base + i * kThreads + thread;
        if (quad >= quads) continue;
        float4 v = batch[i];
        v = make_float4(v.x * inverse, v.y * inverse, v.z * inverse, v.w * inverse);
        uint16_t* to = x + column * layout.x_stride;
        store_quad<kStorage>(m, take_quad<kStorage>(v), 4 * quad, to, groups + column,
                             layout.group_stride);
        if (in.split) {
          store_quad<kStorage>(m, take_quad<kStorage>(v), 4 * quad, to + layout.x_stride,
                               groups + column + 1, layout.group_stride);
        }
      }
    }
  }
  __syncthreads();
}

// The sums that a warp carries through its segment of a tile.
template <Storage kStorage, int kFold>
struct Sums {
  float segment[4] = {}, part[4] = {};

  // One item: its steps of 16 columns, from `first_step` of their unit on. x: the lane's column at
  // the unit; groups: sums of the lane's columns there.
  __device__ void add(const PackedMatrix& m, const uint8_t* slot, int first_step, const uint16_t* x,
                      const float* groups, int group_stride, const uint32_t* table, int lane) {
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
      const uint4 words =
          *reinterpret_cast<const uint4*>(slot + i / kWordSteps * 512 + lane * 16);
      uint32_t a[4];
      widen<kStorage>(words, kSteps == kUnitSteps ? i : step, table, a);
      const uint32_t b0 = i % 2 == 0 ? b.x : b.z, b1 = i % 2 == 0 ? b.y : b.w;
      if constexpr (!is_scaled(kStorage)) {
        multiply<kStorage>(segment, a, b0, b1);
      } else {
        multiply<kStorage>(part, a, b0, b1);
        if ((step + 1) % fold == 0) {
          float2 inputs = {};
          if constexpr (is_integer(kStorage)) {
            inputs = *reinterpret_cast<const float2*>(groups + step / fold * group_stride);
          }
          fold_group<kStorage>(m, record, step / fold, lane / 4, part, inputs, segment);
          for (float& value : part) value = 0;
        }
      }
    }
  }
};

// Adds the segments' sums in order and writes the rows of `turns` tiles, of which `tile` is the
// first.
__device__ void write_tiles(const PackedMatrix& m, const LinearInput& in, const float* sums,
                            const float* scales, int tile, int turns, float* y, int64_t y_stride) {
  const int columns = in.columns(), tile_values = in.tokens * kTileRows;
  for (int i = static_cast<int>(threadIdx.x); i < turns * tile_values; i += kThreads) {
    const int turn = i / tile_values, token = i % tile_values / kTileRows, row = i % kTileRows;
    const int column = in.split ? 2 * token : token;
    const float* from = sums + (turn * kWarps * columns + column) * kTileRows + row;
    float parts[kWarps], rests[kWarps];
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      parts[warp] = from[warp * columns * kTileRows];
      rests[warp] = in.split ? from[(warp * columns + 1) * kTileRows] : 0.f;
    }
    float total = 0, rest = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) total += parts[warp], rest += rests[warp];
    if (in.split) total = fmaf(rest, 1.f / kSplitFactor, total);
    const int at = (tile + turn * static_cast<int>(gridDim.x)) * kTileRows + row;
    if (at >= m.rows) continue;
    const float bias = m.bias == nullptr ? 0.f : m.bias[at];
    y[token * y_stride + at] = total * scales[token] + bias;
  }
}

template <Storage kStorage, int kFold>
__global__ void __launch_bounds__(kThreads, 1)
    linear_stream(const PackedMatrix m, const LinearInput in, float* y, int64_t y_stride) {
  extern __shared__ __align__(16) uint8_t memory[];
  __shared__ float scales[kMostColumns];
  grid_start();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int columns = in.columns();
  const SharedLayout layout(m, columns);
  auto* x = reinterpret_cast<uint16_t*>(memory + layout.ring);
  auto* groups = reinterpret_cast<float*>(memory + layout.ring + layout.x);
  float* sums = groups + layout.groups / 4;
  auto* table = reinterpret_cast<uint32_t*>(sums + layout.sums / 4);

  Stream<kStorage> stream(m, warp, lane, memory + warp * kStages * layout.slot, layout.slot);
  for (int stage = 0; stage < kStages - 1; ++stage) stream.fetch();
  if constexpr (kStorage == Storage::kTable4) fill_table(m, table);
  grid_wait();
  fill_columns<kStorage>(m, in, layout, scales, x, groups);

  const uint16_t* lane_x = x + min(lane / 4, columns - 1) * layout.x_stride +
                           stream.first_unit() * kUnitCols + lane % 4 * 16;
  const int unit_groups = kUnitSteps / (kFold == 0 ? m.fold : kFold) * layout.group_stride;
  const float* lane_groups =
      groups + stream.first_unit() * unit_groups + min(lane % 4 * 2, layout.group_stride - 2);
  constexpr int kItems = Stream<kStorage>::kItems;
  const int tile_items = stream.tile_items(), stride = static_cast<int>(gridDim.x);
  int turn = 0, half = 0;
  float* turn_sums = sums;
  for (int tile = static_cast<int>(blockIdx.x); tile * kTileRows < m.rows; tile += stride) {
    Sums<kStorage, kFold> mine;
    for (int item = 0; item < tile_items; ++item) {
      const uint8_t* slot = stream.next();
      stream.fetch();
      mine.add(m, slot, item % kItems * (kUnitSteps / kItems), lane_x + item / kItems * kUnitCols,
               lane_groups + item / kItems * unit_groups, layout.group_stride, table, lane);
    }
    float* to = turn_sums + (turn * kWarps + warp) * columns * kTileRows + lane / 4;
    const int pair = lane % 4 * 2;
    for (int i = 0; i < 2 && pair + i < columns; ++i) {
      to[(pair + i) * kTileRows] = mine.segment[i];
      to[(pair + i) * kTileRows + 8] = mine.segment[2 + i];
    }
    ++turn;
    if (turn < layout.turns && (tile + stride) * kTileRows < m.rows) continue;
    __syncthreads();
    write_tiles(m, in, turn_sums, scales, tile - (turn - 1) * stride, turn, y, y_stride);
    turn = 0;
    half ^= 1;  // the other half is free: all have read it before this barrier
    turn_sums = sums + half * (layout.sums / 8);
  }
}

template <Storage kStorage>
auto choose_kernel(const PackedMatrix& m) {
  if constexpr (is_scaled(kStorage)) {
    if (m.fold != kUnitSteps) return linear_stream<kStorage, 0>;
  }
  return linear_stream<kStorage, kUnitSteps>;
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
