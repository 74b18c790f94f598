// y = x * W^T for few tokens: weights stream once through shared memory into the tensor cores.
//
// Inputs    Every block rounds the tokens to 16 bits for itself.
// Work      One block per multiprocessor takes tiles of 16 rows in turn. Its 16 warps own a segment
//           of the columns each, in every tile, so that each reads one long run of bytes; their
//           partial sums meet in shared memory every few tiles and are added in order.
// Pipeline  A warp copies 1 KiB of codes (and the record of scales beside them) at a time, kAhead
//           ahead, asynchronously: 96 KiB in flight per multiprocessor, the first of them before
//           the inputs are ready. One block fills a multiprocessor: where two fit, some get two and
//           others none.
// Bound     Each byte of the weights is read once: bytes / HBM bandwidth.
#include <algorithm>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/linear_sums.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kWarps = kSegments;
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 8;
constexpr int kAhead = kStages - 2;  // two slots are being read
constexpr int kMostColumns = 8;
constexpr int kFillQuads = 4;  // that a thread loads at once
constexpr int kColumnPadding = 8;

__host__ __device__ int row_tiles(const PackedMatrix& m) {
  return (m.rows + kTileRows - 1) / kTileRows;
}

// A ring of kStages slots for each warp: an item and its record in each.
__host__ __device__ int slot_bytes(const PackedMatrix& m) { return kItemBytes + m.record_bytes; }
__host__ __device__ int ring_bytes(const PackedMatrix& m) {
  return kWarps * kStages * slot_bytes(m);
}

// What a product needs beside the ring: [columns of x][sums of their groups][partial sums,
// twice][table]
struct InputLayout {
  int x_stride, x, group_stride, groups, turns, sums, table;

  __host__ __device__ InputLayout(const PackedMatrix& m, int columns) {
    turns = columns == 1 ? 8 : columns == 2 ? 4 : 2;  // tiles between two barriers
    x_stride = m.units * kUnitCols + kColumnPadding;  // in elements
    x = columns * x_stride * 2;
    group_stride = (columns + 1) / 2 * 2;
    groups = is_integer(m.storage) ? m.units * (kUnitSteps / m.fold) * group_stride * 4 : 0;
    sums = 2 * turns * kWarps * kTileRows * columns * 4;
    table = m.storage == Storage::kTable4 ? 1024 : 0;
  }
  __host__ __device__ int bytes() const { return x + groups + sums + table; }
};

// The same in shared memory.
struct SharedInput {
  uint16_t* x;
  float *groups, *sums;
  uint32_t* table;

  __device__ SharedInput(const InputLayout& layout, uint8_t* memory)
      : x(reinterpret_cast<uint16_t*>(memory)),
        groups(reinterpret_cast<float*>(memory + layout.x)),
        sums(groups + layout.groups / 4),
        table(reinterpret_cast<uint32_t*>(sums + layout.sums / 4)) {}
};

// The units of a tile that a warp owns.
struct Segment {
  int first, units;
  __device__ Segment(int warp, int all_units)
      : first(warp * all_units / kSegments), units((warp + 1) * all_units / kSegments - first) {}
};

// Tiles of this block: every gridDim.x-th.
__device__ int block_tiles(const PackedMatrix& m) {
  const int tiles = row_tiles(m), first = static_cast<int>(blockIdx.x);
  const int stride = static_cast<int>(gridDim.x);
  return tiles > first ? (tiles - first + stride - 1) / stride : 0;
}

// A warp's stream of items: its segment of two tiles at a time, item by item in turn (of one tile
// if one is left). Few instructions an item: they are what limits 4-bit codes.
template <Storage kStorage, int kFold>
class Stream {
 public:
  static constexpr int kItems = lane_words(kStorage) / 2;  // of a unit

  __device__ Stream(const PackedMatrix& m, uint8_t* ring)
      : lane_(static_cast<int>(threadIdx.x) % 32),
        record_bytes_(m.record_bytes),
        slot_bytes_(slot_bytes(m)),
        record_shift_(m.record_shift),
        ring_(ring + static_cast<int>(threadIdx.x) / 32 * kStages * slot_bytes_) {
    const int warp = static_cast<int>(threadIdx.x) / 32, stride = static_cast<int>(gridDim.x);
    const Segment segment(warp, m.units);
    first_unit_ = unit_ = segment.first;
    end_unit_ = segment.first + segment.units;
    tiles_ = segment.units == 0 ? 0 : block_tiles(m);
    // Units of the segments alternate where all have as many (unit_place).
    const bool alternate = m.units % kSegments == 0;
    const int step = alternate ? kSegments : 1;
    unit_step_ = step * kUnitWords - (kItems - 1) * 64;
    other_tile_ = stride * m.units * kUnitWords;
    other_records_ = stride * m.records * record_bytes_;
    next_tiles_ = 2 * other_tile_ - segment.units * step * kUnitWords;
    const int64_t tile = blockIdx.x;
    codes_ = m.codes + (tile * m.units + (alternate ? warp : segment.first)) * kUnitWords + lane_;
    records_ = m.scales + tile * m.records * record_bytes_ + lane_ * 16;
    for (int i = 0; i < kAhead; ++i) fetch();
  }

  // Asks for the next item, if there is one, in the slot that has been free the longest.
  __device__ void fetch() {
    if (tiles_ > 0) {
      uint8_t* to = ring_ + free_ + lane_ * 16;
      copy16_async(to, codes_);
      copy16_async(to + 512, codes_ + 32);
      if constexpr (is_scaled(kStorage)) {
        const uint8_t* record = records_ + (unit_ >> record_shift_) * record_bytes_;
        if constexpr (kFold == kUnitSteps) {
          if (lane_ * 16 < record_bytes_) copy16_async(to + kItemBytes, record);
        } else {
          for (int at = 0; at + lane_ * 16 < record_bytes_; at += 512) {
            copy16_async(to + kItemBytes + at, record + at);
          }
        }
      }
      step();
    }
    copies_commit();
    advance(free_);
  }
  // The oldest item that was asked for.
  __device__ const uint8_t* next() {
    copies_wait<kAhead - 1>();
    __syncwarp();
    const uint8_t* slot = ring_ + ready_;
    advance(ready_);
    return slot;
  }

 private:
  static constexpr int kUnitWords = kItems * 64;

  __device__ void advance(int& slot) const {
    slot += slot_bytes_;
    if (slot == kStages * slot_bytes_) slot = 0;
  }
  __device__ void step() {
    if (tiles_ > 1) {
      second_ = !second_;
      codes_ += second_ ? other_tile_ : -other_tile_;
      records_ += second_ ? other_records_ : -other_records_;
      if (second_) return;
    }
    if constexpr (kItems > 1) {
      if (++item_ < kItems) {
        codes_ += 64;
        return;
      }
      item_ = 0;
    }
    codes_ += unit_step_;
    if (++unit_ < end_unit_) return;
    unit_ = first_unit_;
    codes_ += next_tiles_;
    records_ += 2 * other_records_;
    tiles_ -= 2;
  }

  int lane_, record_bytes_, slot_bytes_, record_shift_;
  uint8_t* ring_;
  const uint4* codes_;
  const uint8_t* records_;
  int unit_, first_unit_, end_unit_, unit_step_;
  int item_ = 0, tiles_;                         // tiles_: that are left
  bool second_ = false;                          // of two tiles
  int other_tile_, other_records_, next_tiles_;  // steps: in words, in bytes
  int free_ = 0, ready_ = 0;                     // bytes behind ring_
};

// Rounds four inputs of a column and stores them; the remainder goes into the next column.
template <Storage kStorage, int kFold>
__device__ void put_quad(const PackedMatrix& m, bool split, const InputLayout& layout, float4 v,
                         int k, uint16_t* column, float* sums) {
  const int fold = kFold == 0 ? m.fold : kFold;
  store_quad<kStorage>(fold, take_quad<kStorage>(v), k, column, sums, layout.group_stride);
  if (split) {
    store_quad<kStorage>(fold, take_quad<kStorage>(v), k, column + layout.x_stride, sums + 1,
                         layout.group_stride);
  }
}

// The scale of a token whose thread's largest input is `mine`; 1 if it can stay as it is.
template <Storage kStorage>
__device__ float scale_of_token(float mine, float* warps) {
  return kStorage == Storage::kBF16 ? 1.f : token_scale(largest_of_block(mine, warps));
}

__device__ float4 times(const float4& v, float factor) {
  return make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
}

// Fills one token's columns of x in shared memory. Loads come in batches: each waits for the
// memory, behind the weights that are already on their way. largest: of the thread's inputs.
template <Storage kStorage, int kFold>
__device__ void fill_token(const PackedMatrix& m, const LinearInput& in, const InputLayout& layout,
                           int token, float inverse, const SharedInput& to, float& largest) {
  const int thread = static_cast<int>(threadIdx.x), quads = m.units * (kUnitCols / 4);
  const float* from = in.x + static_cast<int64_t>(token) * m.cols;
  const int column = in.split ? 2 * token : token;
#pragma unroll 1
  for (int base = thread; base < quads; base += kFillQuads * kThreads) {
    float4 batch[kFillQuads];
#pragma unroll
    for (int i = 0; i < kFillQuads; ++i) {
      const int quad = base + i * kThreads;
      if (quad < quads) batch[i] = load_inputs(m, from, 4 * quad);
    }
#pragma unroll
    for (int i = 0; i < kFillQuads; ++i) {
      const int quad = base + i * kThreads;
      if (quad >= quads) break;  // whole warps
      largest = fmaxf(largest, largest_of(batch[i]));
      put_quad<kStorage, kFold>(m, in.split, layout, times(batch[i], inverse), 4 * quad,
                                to.x + column * layout.x_stride, to.groups + column);
    }
  }
}

// Fills all columns, and again those of tokens that must be scaled.
template <Storage kStorage, int kFold>
__device__ void fill_columns(const PackedMatrix& m, const LinearInput& in,
                             const InputLayout& layout, const SharedInput& to, float* scales,
                             float* warps) {
#pragma unroll 1
  for (int token = 0; token < in.tokens; ++token) {
    float mine = 0;
    fill_token<kStorage, kFold>(m, in, layout, token, 1, to, mine);
    const float scale = scale_of_token<kStorage>(mine, warps);
    if (scale != 1) fill_token<kStorage, kFold>(m, in, layout, token, 1.f / scale, to, mine);
    if (threadIdx.x == 0) scales[token] = scale;
    __syncthreads();
  }
}

// Adds the segments' sums in order and writes the rows of `count` tiles, of which the block's
// turn-th is the first.
__device__ void write_tiles(const PackedMatrix& m, const LinearInput& in, const float* sums,
                            const float* scales, int turn, int count, float* y, int64_t y_stride) {
  const int columns = in.columns(), tile_values = in.tokens * kTileRows;
  for (int i = static_cast<int>(threadIdx.x); i < count * tile_values; i += kThreads) {
    const int local = i / tile_values, token = i % tile_values / kTileRows, row = i % kTileRows;
    const int column = in.split ? 2 * token : token;
    const float* from = sums + (local * kWarps * columns + column) * kTileRows + row;
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
    const int tile = static_cast<int>(blockIdx.x) + (turn + local) * static_cast<int>(gridDim.x);
    const int at = tile * kTileRows + row;
    if (at >= m.rows) continue;
    const float bias = m.bias == nullptr ? 0.f : m.bias[at];
    y[token * y_stride + at] = total * scales[token] + bias;
  }
}

// A warp's part of a product.
template <Storage kStorage, int kFold, bool kUsual>
struct WarpProduct {
  const PackedMatrix& m;
  const InputLayout& layout;
  const SharedInput& shared;
  int warp, lane, columns, units, unit_groups;
  const uint16_t* lane_x;
  const float* lane_groups;

  __device__ WarpProduct(const PackedMatrix& matrix, const InputLayout& inputs,
                         const SharedInput& memory, int all_columns)
      : m(matrix),
        layout(inputs),
        shared(memory),
        warp(static_cast<int>(threadIdx.x) / 32),
        lane(static_cast<int>(threadIdx.x) % 32),
        columns(all_columns) {
    const Segment segment(warp, m.units);
    units = segment.units;
    unit_groups = kUnitSteps / (kFold == 0 ? m.fold : kFold) * layout.group_stride;
    lane_x = shared.x + min(lane / 4, columns - 1) * layout.x_stride + segment.first * kUnitCols +
             lane % 4 * 16;
    lane_groups =
        shared.groups + segment.first * unit_groups + min(lane % 4 * 2, layout.group_stride - 2);
  }

  // The warp's segment of the next kTiles tiles of the stream; its sums go to sums: [tile][warp]
  // [column][row].
  template <int kTiles>
  __device__ void multiply(Stream<kStorage, kFold>& stream, float* sums) const {
    constexpr int kItems = Stream<kStorage, kFold>::kItems;
    Sums<kStorage, kFold, kUsual, kTiles> mine;
    const uint16_t* x = lane_x;
    const float* groups = lane_groups;
#pragma unroll 1
    for (int unit = 0; unit < units; ++unit, x += kUnitCols, groups += unit_groups) {
#pragma unroll
      for (int item = 0; item < kItems; ++item) {
        const uint8_t *slots[kTiles], *records[kTiles];
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          slots[t] = stream.next();
          records[t] = slots[t] + kItemBytes;
          stream.fetch();
        }
        mine.add(m, slots, records, item * (kUnitSteps / kItems), x, groups, layout.group_stride,
                 shared.table, lane);
      }
    }
    const int pair = lane % 4 * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      float* to = sums + (t * kWarps + warp) * columns * kTileRows + lane / 4;
      for (int i = 0; i < 2 && pair + i < columns; ++i) {
        to[(pair + i) * kTileRows] = mine.segment[t][i];
        to[(pair + i) * kTileRows + 8] = mine.segment[t][2 + i];
      }
    }
  }
};

// The product of a block's tiles, whose codes come next in the stream, with the columns in shared
// memory.
template <Storage kStorage, int kFold, bool kUsual>
__device__ void multiply_tiles(const PackedMatrix& m, const LinearInput& in,
                               const InputLayout& layout, const SharedInput& shared,
                               const float* scales, Stream<kStorage, kFold>& stream, float* y,
                               int64_t y_stride) {
  const WarpProduct<kStorage, kFold, kUsual> product(m, layout, shared, in.columns());
  const int turns = block_tiles(m), tile_sums = kWarps * in.columns() * kTileRows;
  int waiting = 0, half = 0;
#pragma unroll 1
  for (int turn = 0; turn < turns; turn += 2) {
    float* sums = shared.sums + half * (layout.sums / 8);
    if (turn + 1 < turns) {
      product.template multiply<2>(stream, sums + waiting * tile_sums);
    } else {
      product.template multiply<1>(stream, sums + waiting * tile_sums);
    }
    waiting += min(2, turns - turn);
    if (waiting < layout.turns && turn + 2 < turns) continue;
    __syncthreads();
    write_tiles(m, in, sums, scales, min(turn + 2, turns) - waiting, waiting, y, y_stride);
    waiting = 0;
    half ^= 1;  // the other half is free: all have read it before this barrier
  }
}

template <Storage kStorage, int kFold, bool kUsual>
__global__ void __launch_bounds__(kThreads, 1)
    linear_stream(const PackedMatrix m, const LinearInput in, float* y, int64_t y_stride) {
  extern __shared__ __align__(16) uint8_t memory[];
  __shared__ float scales[kMostColumns], warps[kWarps];
  grid_start();
  const InputLayout layout(m, in.columns());
  const SharedInput shared(layout, memory + ring_bytes(m));
  Stream<kStorage, kFold> stream(m, memory);
  if constexpr (kStorage == Storage::kTable4) fill_table(m, shared.table);
  grid_wait();
  fill_columns<kStorage, kFold>(m, in, layout, shared, scales, warps);
  multiply_tiles<kStorage, kFold, kUsual>(m, in, layout, shared, scales, stream, y, y_stride);
}

template <Storage kStorage>
auto choose_kernel(const PackedMatrix& m) {
  if constexpr (is_scaled(kStorage)) {
    if (m.fold != kUnitSteps) return linear_stream<kStorage, 0, false>;
    if (is_usual(m)) return linear_stream<kStorage, kUnitSteps, true>;
  }
  return linear_stream<kStorage, kUnitSteps, false>;
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

int shared_of(const PackedMatrix& m, const LinearInput& in) {
  return ring_bytes(m) + InputLayout(m, in.columns()).bytes();
}

}  // namespace

bool stream_fits(const PackedMatrix& matrix, const LinearInput& input, int shared_bytes) {
  return input.columns() <= kMostColumns && shared_of(matrix, input) <= shared_bytes;
}

void launch_linear_stream(const PackedMatrix& matrix, const LinearInput& input, float* y,
                          int64_t y_stride, int processors, cudaStream_t stream) {
  launch(choose_kernel(matrix),
         dim3(static_cast<unsigned>(std::min(row_tiles(matrix), processors))), kThreads,
         static_cast<size_t>(shared_of(matrix, input)), stream, matrix, input, y, y_stride);
}

}  // namespace lowbit::cuda
