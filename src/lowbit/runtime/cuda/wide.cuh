// What the kernels of linear_split_sm90 and linear_wide_sm90 share: the arrangement of inputs for
// wgmma, and the products of 64 rows of weights with a unit of 128 columns of them.
#pragma once

#include <type_traits>

#include "lowbit/runtime/cuda/hopper.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

constexpr int kGroupRows = 64;  // of four warps together
constexpr int kMostShared = 227 * 1024;
constexpr int kColumnBytes = kUnitCols * 2;  // of a column of inputs in a unit
constexpr int kHalfBytes = 1024;  // eight columns of half a unit; the second half follows

// A unit of codes and scales of `tiles` x 16 rows, and of `columns` columns of inputs, in shared
// memory: [inputs][codes][records][sums of the inputs' groups].
struct UnitLayout {
  int codes, records, sums, bytes;
  int group_count, tile_bytes, record_bytes;
  int tile_stride,
      inputs_stride;  // in device memory, from tile to tile and from unit to unit: bytes
  int sums_stride;    // from unit to unit, in floats

  UnitLayout(const PackedMatrix& m, const WideInput& x, int tiles, int columns)
      : codes(columns * kColumnBytes),
        group_count(is_integer(m.storage) ? kUnitSteps / m.fold : 0),
        tile_bytes(lane_words(m.storage) * 512),
        record_bytes(m.record_bytes) {
    records = codes + tiles * tile_bytes;
    sums = records + tiles * record_bytes;
    bytes = (sums + group_count * columns * 4 + 1023) / 1024 * 1024;
    tile_stride = m.units * tile_bytes;
    inputs_stride = static_cast<int>(x.stride) * kColumnBytes;
    sums_stride = group_count * static_cast<int>(x.stride);
  }
  // That bulk copies bring: inputs and codes.
  __device__ int bulk_bytes() const { return records; }
};

// The units of a matrix in order, and where each lies (unit_place) without divisions.
struct UnitWalk {
  int unit, place;

  __device__ UnitWalk(const PackedMatrix& m, int segment)
      : unit(segment * m.units / kSegments),
        place(unit),
        segment_(segment),
        length_(m.units % kSegments == 0 ? m.units / kSegments : 0),
        left_(length_) {
    if (length_ > 0) place = segment;
  }
  __device__ void next() {
    ++unit;
    if (length_ == 0) {
      ++place;
    } else if (--left_ > 0) {
      place += kSegments;
    } else {
      left_ = length_;
      place = ++segment_;
    }
  }

 private:
  int segment_, length_, left_;
};

// Copies what belongs to a unit, in as few instructions as possible: one warp must keep up with
// four that multiply. By all lanes of a warp; those that copy for themselves arrive at the unit's
// barrier with barrier_arrive_copied.
template <int kTiles, int kColumns>
class UnitCopies {
 public:
  __device__ UnitCopies(const PackedMatrix& m, const WideInput& x, const UnitLayout& layout)
      : m_(m), x_(x), layout_(layout), lane_(static_cast<int>(threadIdx.x) % 32) {}

  // The rows and columns from now on.
  __device__ void start(int first_tile, int column) {
    first_tile_ = first_tile;
    last_ = (m_.rows + kTileRows - 1) / kTileRows - 1 - first_tile;
    codes_ = reinterpret_cast<const uint8_t*>(m_.codes) +
             static_cast<int64_t>(first_tile) * m_.units * layout_.tile_bytes;
    inputs_ = reinterpret_cast<const uint8_t*>(x_.values) + column * kColumnBytes;
    record_ = record_from(lane_);
    sums_ = x_.sums + lane_ / kSumParts * x_.stride + column + lane_ % kSumParts * 4;
  }
  // By the elected lane. Tiles behind the last are the last again.
  __device__ void codes(const UnitWalk& walk, uint8_t* stage, uint64_t* full) const {
    const uint8_t* from = codes_ + static_cast<int64_t>(walk.place) * layout_.tile_bytes;
    uint8_t* to = stage + layout_.codes;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      copy_bulk(to, from, layout_.tile_bytes, full);
      to += layout_.tile_bytes;
      if (i < last_) from += layout_.tile_stride;
    }
  }
  __device__ void records(const UnitWalk& walk, uint8_t* stage) const {
    const int parts = kTiles * layout_.record_bytes / 16, record = walk.unit >> m_.record_shift;
    uint8_t* to = stage + layout_.records;
    if (lane_ < parts) {
      copy16_async(to + lane_ * 16, record_ + static_cast<int64_t>(record) * layout_.record_bytes);
    }
#pragma unroll 1
    for (int i = lane_ + 32; i < parts; i += 32) {
      copy16_async(to + i * 16,
                   record_from(i) + static_cast<int64_t>(record) * layout_.record_bytes);
    }
  }
  __device__ void sums(const UnitWalk& walk, uint8_t* stage) const {
    const float* from = sums_ + static_cast<int64_t>(walk.unit) * layout_.sums_stride;
    uint8_t* to = stage + layout_.sums + lane_ * 16;
#pragma unroll 1
    for (int i = lane_; i < layout_.group_count * kSumParts; i += 32) {
      copy16_async(to, from);
      to += 512;
      from += 32 / kSumParts * x_.stride;
    }
  }
  // The column'th of the unit's inputs.
  __device__ const uint8_t* inputs(const UnitWalk& walk, int column) const {
    return inputs_ + static_cast<int64_t>(walk.unit) * layout_.inputs_stride +
           column * kColumnBytes;
  }

 private:
  static constexpr int kSumParts = kColumns / 4;  // of 16 bytes, of a group
  static_assert(kSumParts <= 32);

  // 16 bytes of the first record of a tile.
  __device__ const uint8_t* record_from(int i) const {
    const int parts = max(1, layout_.record_bytes / 16), tile = i / parts;
    return m_.scales +
           static_cast<int64_t>(first_tile_ + min(tile, last_)) * m_.records *
               layout_.record_bytes +
           i % parts * 16;
  }

  const PackedMatrix& m_;
  const WideInput& x_;
  const UnitLayout& layout_;
  int lane_, last_ = 0, first_tile_ = 0;
  const uint8_t *codes_ = nullptr, *inputs_ = nullptr, *record_ = nullptr;
  const float* sums_ = nullptr;
};
constexpr int kUnitArrivals = 33;  // at the barrier of a unit: its bulk copies and 32 lanes

struct Slot {
  int stages, index = 0, phase = 0;
  __device__ void next() {
    if (++index == stages) index = 0, phase ^= 1;
  }
};

// The factors of a lane's two rows: scale, and what the sum of inputs is multiplied by.
struct RowFactors {
  float scale0, scale8, offset0, offset8;
};
template <Storage kStorage>
__device__ inline RowFactors row_factors(const PackedMatrix& m, const uint8_t* record, int index) {
  const float2 scale = scale_pair<false>(m, record, index);
  const float factor = widening_factor<kStorage>(m);
  RowFactors f{scale.x * factor, scale.y * factor, 0, 0};
  if constexpr (is_integer(kStorage)) {
    if (m.zero_type == ZeroType::kCenter) {
      const float center = static_cast<float>(m.center);
      f.offset0 = -scale.x * center, f.offset8 = -scale.y * center;
    } else if (m.zero_type == ZeroType::kInt) {
      const uint8_t* zeros = after_scales(m, record) + 2 * index;
      f.offset0 = -scale.x * static_cast<float>(zeros[0]);
      f.offset8 = -scale.y * static_cast<float>(zeros[1]);
    } else {
      const float2 offset = reinterpret_cast<const float2*>(after_scales(m, record))[index];
      f.offset0 = offset.x, f.offset8 = offset.y;
    }
  }
  return f;
}

// Sums of 64 rows x kColumns, in four warps as wgmma leaves them: value 4 * e + i of a lane is row
// lane / 4 (+ 8 from i = 2 on) of the warp's 16, column 8 * e + 2 * (lane % 4) + i % 2.
template <int kColumns>
using Sums = float[kColumns / 2];

template <int kColumns>
__device__ inline void clear(Sums<kColumns>& sums) {
#pragma unroll
  for (float& value : sums) value = 0;
}

// Adds a group's sums of products to those of the segment, as fold_group does. groups: of the
// group's inputs, at the lane's first column.
template <Storage kStorage, int kColumns>
__device__ inline void fold_sums(const RowFactors& f, const float* groups,
                                 const Sums<kColumns>& part, Sums<kColumns>& segment) {
#pragma unroll
  for (int e = 0; e < kColumns / 8; ++e) {
    float* s = segment + 4 * e;
    const float* p = part + 4 * e;
    s[0] = fmaf(f.scale0, p[0], s[0]);
    s[1] = fmaf(f.scale0, p[1], s[1]);
    s[2] = fmaf(f.scale8, p[2], s[2]);
    s[3] = fmaf(f.scale8, p[3], s[3]);
    if constexpr (is_integer(kStorage)) {
      const float2 inputs = *reinterpret_cast<const float2*>(groups + e * 8);
      s[0] = fmaf(f.offset0, inputs.x, s[0]);
      s[1] = fmaf(f.offset0, inputs.y, s[1]);
      s[2] = fmaf(f.offset8, inputs.x, s[2]);
      s[3] = fmaf(f.offset8, inputs.y, s[3]);
    }
  }
}

// Two groups of four warps take turns: one multiplies while the other folds.
struct Turns {
  int mine = 0, other = 0;  // barriers; 0: no turns
  __device__ void wait() const {
    if (mine != 0) named_sync(mine, 256);
  }
  __device__ void pass() const {
    if (other != 0) named_arrive(other, 256);
  }
};

// A unit in shared memory as a group of four warps sees it. codes, record: of the warp's tile. x:
// the inputs. groups: at the lane's first column,
// `group_stride` floats from group to group.
struct UnitView {
  const uint8_t *codes, *record, *x;
  const float* groups;
  int group_stride;
};

// Adds a unit's products to the sums of the segment. part: scratch. kFold: m.fold, or 0.
template <Storage kStorage, int kFold, int kColumns>
__device__ inline void add_unit(const PackedMatrix& m, const UnitView& view, const uint32_t* table,
                                int lane, const Turns& turns, Sums<kColumns>& part,
                                Sums<kColumns>& segment) {
  using Product = Wgmma<kStorage == Storage::kBF16, kColumns>;
  constexpr bool kWhole = !is_scaled(kStorage) || kFold == kUnitSteps;
  constexpr int kBatch = !kWhole ? 1 : kColumns == 32 || kColumns >= 128 ? 2 : 4;
  constexpr int kWordSteps = kUnitSteps / lane_words(kStorage);
  const int fold = kFold == 0 ? m.fold : kFold;
  const uint64_t inputs = swizzled_matrix(view.x);
  uint32_t a[2][kBatch][4];
  uint4 words;
#pragma unroll
  for (int batch = 0; batch < kUnitSteps / kBatch; ++batch) {
    if (batch >= 2) wgmma_wait<1>();  // the registers are free
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int step = batch * kBatch + i;
      if (step % kWordSteps == 0) {
        words = *reinterpret_cast<const uint4*>(view.codes + step / kWordSteps * 512 + lane * 16);
      }
      widen<kStorage>(words, step, table, a[batch % 2][i]);
    }
    if (batch == 0) turns.wait();
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int step = batch * kBatch + i;
      const uint64_t b = inputs + step / 4 * (kHalfBytes / 16) + 2 * (step % 4);
      if constexpr (!is_scaled(kStorage)) {
        Product::multiply(segment, a[batch % 2][i], b, true);
      } else {
        Product::multiply(part, a[batch % 2][i], b, step % fold != 0);
      }
    }
    wgmma_commit();
    if constexpr (!kWhole) {
      if ((batch + 1) % fold == 0) {
        const int group = batch / fold;
        const RowFactors factors =
            row_factors<kStorage>(m, view.record, group * (kTileRows / 2) + lane / 4);
        wgmma_wait<0>();
        fold_sums<kStorage, kColumns>(factors, view.groups + group * view.group_stride, part,
                                      segment);
      }
    }
  }
  turns.pass();
  if constexpr (is_scaled(kStorage) && kWhole) {
    const RowFactors factors = row_factors<kStorage>(m, view.record, lane / 4);
    wgmma_wait<0>();
    fold_sums<kStorage, kColumns>(factors, view.groups, part, segment);
  } else {
    wgmma_wait<0>();
  }
}

// Writes what a lane has of one row and the columns `column` and column + 1, that is of two tokens
// or one token's values and remainders.
__device__ inline void write_pair(const PackedMatrix& m, const LinearInput& in,
                                  const float* row_scales, int row, int column, float first,
                                  float second, float* y, int64_t y_stride) {
  if (row >= m.rows) return;
  const float bias = m.bias == nullptr ? 0.f : m.bias[row];
  if (in.split) {
    const int token = column / 2;
    if (token >= in.tokens) return;
    y[token * y_stride + row] =
        fmaf(fmaf(second, 1.f / kSplitFactor, first), row_scales[token], bias);
    return;
  }
  if (column < in.tokens) y[column * y_stride + row] = fmaf(first, row_scales[column], bias);
  if (column + 1 < in.tokens) {
    y[(column + 1) * y_stride + row] = fmaf(second, row_scales[column + 1], bias);
  }
}

// Calls use(storage, fold) with the constants that kernels for such weights are compiled for.
template <typename Use>
void with_kernel_of(const PackedMatrix& m, const Use& use) {
  const auto scaled = [&]<Storage kStorage>(std::integral_constant<Storage, kStorage> storage) {
    if (m.fold == kUnitSteps) {
      use(storage, std::integral_constant<int, kUnitSteps>());
    } else {
      use(storage, std::integral_constant<int, 0>());
    }
  };
  switch (m.storage) {
    case Storage::kInt4:
      return scaled(std::integral_constant<Storage, Storage::kInt4>());
    case Storage::kInt8:
      return scaled(std::integral_constant<Storage, Storage::kInt8>());
    case Storage::kTable4:
      return scaled(std::integral_constant<Storage, Storage::kTable4>());
    case Storage::kE4M3:
      return scaled(std::integral_constant<Storage, Storage::kE4M3>());
    case Storage::kF16:
      return use(std::integral_constant<Storage, Storage::kF16>(),
                 std::integral_constant<int, kUnitSteps>());
    case Storage::kBF16:
      return use(std::integral_constant<Storage, Storage::kBF16>(),
                 std::integral_constant<int, kUnitSteps>());
  }
}

}  // namespace lowbit::cuda
