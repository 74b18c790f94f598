#include "lowbit/runtime/cpu/pack_groups.h"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "lowbit/tensor/dtype.h"

namespace lowbit::cpu {

namespace {

using Member = std::vector<float> QTensor::*;

constexpr int64_t kSuperCols = 256;  // columns that share a super
constexpr int64_t kMostSupers = 16;  // groups in them

// First entry of a row in a QTensor's array of groups.
int64_t first_entry(const Rows::Row& row) {
  const QTensor& weight = row.part.weight;
  return row.index / weight.scheme.group_rows * weight.groups();
}

// Calls body(row, lane, first value of row's tile) for every row that exists, tiles in parallel.
template <typename Body>
void each_row(const Rows& rows, Packer& packer, const Body& body) {
  constexpr int64_t kTiles = 16;
  const int64_t tiles = round_up(rows.count(), kTileRows) / kTileRows;
  packer.pool.parallel_for((tiles + kTiles - 1) / kTiles, [&](int64_t index, int) {
    const int64_t last = std::min(rows.count(), (index + 1) * kTiles * kTileRows);
    for (int64_t row = index * kTiles * kTileRows; row < last; ++row) body(row);
  });
}

// Memory for [tiles][groups][8] of T; what no row fills is zero.
template <typename T>
Tensor allocate(const PackedMatrix& matrix, int64_t groups, Packer& packer) {
  const int64_t count = tiles_of(matrix) * groups * kTileRows;
  Tensor tensor = packer.arena.allocate(count * static_cast<int64_t>(sizeof(T)));
  // Only the lanes behind the last row and, with split blocks, a last half without columns.
  std::fill_n(tensor.as<T>() + count - groups * kTileRows, groups * kTileRows, T{});
  return tensor;
}

// values[lane 0] of every group of a row; kTileRows apart.
template <typename T, typename From>
Tensor pack(const Rows& rows, const PackedMatrix& matrix, Packer& packer, const From& from) {
  Tensor packed = allocate<T>(matrix, matrix.groups, packer);
  each_row(rows, packer, [&](int64_t row) {
    const Rows::Row source = rows[row];
    const int64_t first = first_entry(source), stored = source.part.weight.groups();
    T* out = packed.as<T>() + row / kTileRows * matrix.groups * kTileRows + row % kTileRows;
    for (int64_t group = 0; group < matrix.groups; ++group) {
      out[group * kTileRows] =
          group < stored ? static_cast<T>(from(source.part.weight, first + group)) : T{};
    }
  });
  return packed;
}

bool all_halves(std::span<const LinearWeight> parts, Member member) {
  return std::all_of(parts.begin(), parts.end(), [&](const LinearWeight& part) {
    const std::vector<float>& values = part.weight.*member;
    return std::all_of(values.begin(), values.end(), is_half);
  });
}

// Whether all groups of every 256 columns are multiples of one float.
bool all_multiples(std::span<const LinearWeight> parts, Member member) {
  const QTensor& first = parts[0].weight;
  const int64_t size = first.scheme.group_size, supers = kSuperCols / std::max<int64_t>(size, 1);
  if (size * supers != kSuperCols || supers < 2 || supers > kMostSupers) return false;
  if (first.cols % kSuperCols != 0) return false;
  return std::all_of(parts.begin(), parts.end(), [&](const LinearWeight& part) {
    const std::vector<float>& values = part.weight.*member;
    int8_t multiples[kMostSupers];
    float factor;
    for (size_t at = 0; at < values.size(); at += static_cast<size_t>(supers)) {
      const std::span<const float> some(values.data() + at, static_cast<size_t>(supers));
      if (!find_common_factor(some, factor, multiples)) return false;
    }
    return true;
  });
}

struct Packed {
  GroupValues view;
  Tensor values, supers;
};

Packed pack_multiples(const Rows& rows, const PackedMatrix& matrix, Member member, Packer& packer) {
  const int64_t size = rows[0].part.weight.scheme.group_size, supers = kSuperCols / size;
  const int64_t blocks = matrix.groups / supers;
  Packed packed;
  packed.values = allocate<int8_t>(matrix, matrix.groups, packer);
  packed.supers = allocate<float>(matrix, blocks, packer);
  each_row(rows, packer, [&](int64_t row) {
    const Rows::Row source = rows[row];
    const float* values = (source.part.weight.*member).data() + first_entry(source);
    const int64_t tile = row / kTileRows, lane = row % kTileRows;
    for (int64_t block = 0; block < blocks; ++block) {
      int8_t multiples[kMostSupers];
      float factor = 0;
      const std::span<const float> some(values + block * supers, static_cast<size_t>(supers));
      find_common_factor(some, factor, multiples);
      packed.supers.as<float>()[(tile * blocks + block) * kTileRows + lane] = factor;
      for (int64_t i = 0; i < supers; ++i) {
        const int64_t group = tile * matrix.groups + block * supers + i;
        packed.values.as<int8_t>()[group * kTileRows + lane] = multiples[i];
      }
    }
  });
  packed.view = {GroupValues::Form::kMultiples,
                 supers == 8    ? 3
                 : supers == 16 ? 4
                 : supers == 4  ? 2
                                : 1,
                 packed.values.data, packed.supers.as<float>()};
  return packed;
}

Packed pack_floats(const Rows& rows, const PackedMatrix& matrix, Member member, Packer& packer) {
  Packed packed;
  if (all_halves(rows.parts(), member)) {
    packed.values = pack<uint16_t>(rows, matrix, packer, [&](const QTensor& weight, int64_t at) {
      return f32_to_f16((weight.*member)[at]);
    });
    packed.view.form = GroupValues::Form::kF16;
  } else if (all_multiples(rows.parts(), member)) {
    return pack_multiples(rows, matrix, member, packer);
  } else {
    packed.values = pack<float>(rows, matrix, packer, [&](const QTensor& weight, int64_t at) {
      return (weight.*member)[at];
    });
  }
  packed.view.values = packed.values.data;
  return packed;
}

}  // namespace

bool is_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), exponent = bits >> 23 & 0xff;
  if (exponent - 113u < 30u) return (bits & 0x1fff) == 0;  // a normal half, or none
  return f16_to_f32(f32_to_f16(value)) == value;
}

bool find_common_factor(std::span<const float> values, float& factor, int8_t* multiples) {
  // Each value is integer * 2^exponent with an integer below 2^24.
  constexpr int kMantissa = 24;
  int lowest = INT32_MAX;
  for (const float value : values) {
    if (value == 0) continue;
    int exponent;
    std::frexp(value, &exponent);
    lowest = std::min(lowest, exponent - kMantissa);
  }
  factor = 0;
  std::fill_n(multiples, values.size(), int8_t{0});
  if (lowest == INT32_MAX) return true;
  int64_t divisor = 0;
  for (const float value : values) {
    const double whole = std::ldexp(static_cast<double>(value), -lowest);
    if (std::fabs(whole) >= 0x1p32) return false;  // beyond 128 times the smallest
    divisor = std::gcd(divisor, static_cast<int64_t>(whole));
  }
  int64_t most = 0;
  for (const float value : values) {
    most = std::max(most, static_cast<int64_t>(std::ldexp(static_cast<double>(value), -lowest)));
  }
  if (most / divisor > 127) divisor = -divisor;  // +128 is no int8, -128 is
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t multiple =
        static_cast<int64_t>(std::ldexp(static_cast<double>(values[i]), -lowest)) / divisor;
    if (multiple < -128 || multiple > 127) return false;
    multiples[i] = static_cast<int8_t>(multiple);
  }
  factor = static_cast<float>(std::ldexp(static_cast<double>(divisor), lowest));
  for (size_t i = 0; i < values.size(); ++i) {
    if (static_cast<float>(multiples[i]) * factor != values[i]) return false;
  }
  return true;
}

void pack_groups(const Rows& rows, PackedWeight& packed, Packer& packer) {
  PackedMatrix& matrix = packed.matrix;
  Packed scales = pack_floats(rows, matrix, &QTensor::scales, packer);
  packed.scales = std::move(scales.values);
  packed.scale_supers = std::move(scales.supers);
  matrix.scales = scales.view;
  if (matrix.affine == Affine::kOffsets) {
    Packed offsets = pack_floats(rows, matrix, &QTensor::offsets, packer);
    packed.offsets = std::move(offsets.values);
    packed.offset_supers = std::move(offsets.supers);
    matrix.offsets = offsets.view;
  }
  if (matrix.affine == Affine::kZeros) {
    packed.zeros = pack<uint8_t>(
        rows, matrix, packer, [](const QTensor& weight, int64_t at) { return weight.zeros[at]; });
    matrix.zeros = packed.zeros.as<uint8_t>();
  }
}

}  // namespace lowbit::cpu
