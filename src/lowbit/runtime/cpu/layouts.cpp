#include "lowbit/runtime/cpu/layouts.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit::cpu {

namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t tiles_of(const PackedMatrix& matrix) {
  return round_up(matrix.rows, kTileRows) / kTileRows;
}

// The rows of some weights, one after another.
class Rows {
 public:
  explicit Rows(std::span<const LinearWeight> parts) : parts_(parts) {
    for (const LinearWeight& part : parts) {
      first_.push_back(count_);
      count_ += part.weight.rows;
    }
  }
  struct Row {
    const LinearWeight& part;
    int64_t index;
  };
  int64_t count() const { return count_; }
  Row operator[](int64_t row) const {
    const auto part = std::upper_bound(first_.begin(), first_.end(), row) - first_.begin() - 1;
    return {parts_[part], row - first_[part]};
  }

 private:
  std::span<const LinearWeight> parts_;
  std::vector<int64_t> first_;
  int64_t count_ = 0;
};

void pack_bias(std::span<const LinearWeight> parts, PackedWeight& packed) {
  const auto has_bias = [](const LinearWeight& part) { return !part.bias.empty(); };
  if (std::none_of(parts.begin(), parts.end(), has_bias)) return;
  packed.bias = allocate_host(1, tiles_of(packed.matrix) * kTileRows);
  float* out = packed.bias.as<float>();
  std::fill_n(out, packed.bias.size(), 0.f);
  for (const LinearWeight& part : parts) {
    std::copy(part.bias.begin(), part.bias.end(), out);
    out += part.weight.rows;
  }
  packed.matrix.bias = packed.bias.as<float>();
}

// Dense.

bool is_half(float value) { return f16_to_f32(f32_to_f16(value)) == value; }

bool supports_f16(const QTensor& weight) {
  if (weight.scheme.dense()) return weight.scheme.code == Code::kF16;
  std::vector<float> row(weight.cols);
  for (int64_t i = 0; i < weight.rows; ++i) {
    dequantize_row(weight, i, row.data());
    if (!std::all_of(row.begin(), row.end(), is_half)) return false;
  }
  return true;
}

bool supports_bf16(const QTensor& weight) { return weight.scheme.code == Code::kBF16; }

bool supports_any(const QTensor&) { return true; }

// Writes one row's elements 8 apart.
template <typename T>
void spread_row(const Rows::Row& row, Code code, std::vector<float>& values, T* out) {
  const QTensor& weight = row.part.weight;
  if (weight.scheme.code == code && weight.input_order.empty()) {
    const uint8_t* from = weight.codes.data + row.index * weight.row_bytes();
    for (int64_t k = 0; k < weight.cols; ++k)
      std::memcpy(out + k * 8, from + k * sizeof(T), sizeof(T));
    return;
  }
  dequantize_row(weight, row.index, values.data());
  for (int64_t k = 0; k < weight.cols; ++k) {
    if constexpr (sizeof(T) == 4) {
      out[k * 8] = values[k];
    } else {
      out[k * 8] = code == Code::kF16 ? f32_to_f16(values[k]) : f32_to_bf16(values[k]);
    }
  }
}

template <Code kCode, Storage kStorage, typename T>
PackedWeight pack_dense(std::span<const LinearWeight> parts, Packer& packer) {
  const Rows rows(parts);
  PackedWeight packed;
  PackedMatrix& matrix = packed.matrix;
  matrix.storage = kStorage;
  matrix.rows = rows.count();
  matrix.cols = parts[0].weight.cols;
  matrix.blocks = round_up(matrix.cols, kBlockCols) / kBlockCols;
  const int64_t tile_size = matrix.cols * kTileRows;
  packed.codes =
      packer.arena.allocate(tiles_of(matrix) * tile_size * static_cast<int64_t>(sizeof(T)));
  matrix.codes = packed.codes.as<uint8_t>();
  packer.pool.parallel_for(tiles_of(matrix), [&](int64_t tile, int) {
    std::vector<float> values(matrix.cols);
    T* out = packed.codes.as<T>() + tile * tile_size;
    std::fill_n(out, tile_size, T{});
    for (int64_t lane = 0; lane < std::min<int64_t>(8, matrix.rows - tile * 8); ++lane) {
      spread_row(rows[tile * 8 + lane], kCode, values, out + lane);
    }
  });
  pack_bias(parts, packed);
  return packed;
}

// Quantized.

bool groups_fit(const QTensor& weight) {
  const int64_t size = weight.scheme.group_size;
  return size >= weight.cols || size == 16 || size % kBlockCols == 0;
}

bool supports_q4(const QTensor& weight) {
  if (weight.scheme.dense() || !groups_fit(weight)) return false;
  return weight.scheme.code == Code::kIq4Nl ||
         (weight.scheme.code == Code::kInt && weight.scheme.bits <= 4);
}

bool supports_q8(const QTensor& weight) {
  return weight.scheme.code == Code::kInt && groups_fit(weight);
}

// Codes of a row as bytes.
void unpack_row(const QTensor& weight, int64_t row, uint8_t* out) {
  const uint8_t* codes = weight.codes.data + row * weight.row_bytes();
  const int bits = weight.scheme.bits;
  int64_t k = 0;
  if (bits == 8) {
    std::memcpy(out, codes, static_cast<size_t>(weight.cols));
    return;
  }
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  for (; k + 8 <= weight.cols; k += 8, codes += bits) {
    uint64_t word = 0;
    std::memcpy(&word, codes, static_cast<size_t>(bits));
    for (int i = 0; i < 8; ++i) out[k + i] = static_cast<uint8_t>((word >> (i * bits)) & mask);
  }
  for (int i = 0; k < weight.cols; ++k, ++i) out[k] = static_cast<uint8_t>(unpack(codes, i, bits));
}

uint32_t load_quad(const uint8_t* codes) {
  uint32_t quad;
  std::memcpy(&quad, codes, 4);
  return quad;
}

// One row's bytes into its lane of a tile.
void interleave(const PackedMatrix& matrix, const uint8_t* codes, int64_t lane, uint8_t* tile) {
  const int64_t quads = matrix.blocks * 8;
  uint8_t* out = tile + lane * 4;
  if (matrix.storage == Storage::kS8) {
    for (int64_t quad = 0; quad < quads; ++quad) {
      std::memcpy(out + quad * 32, codes + quad * 4, 4);
    }
    return;
  }
  for (int64_t quad = 0; quad < quads; quad += 2) {
    const uint32_t both = load_quad(codes + quad * 4) | load_quad(codes + quad * 4 + 4) << 4;
    std::memcpy(out + quad * 16, &both, 4);
  }
}

void pack_codes(const Rows& rows, PackedWeight& packed, Packer& packer) {
  PackedMatrix& matrix = packed.matrix;
  const int64_t tile_bytes = matrix.blocks * (matrix.storage == Storage::kS8 ? 256 : 128);
  packed.codes = packer.arena.allocate(tiles_of(matrix) * tile_bytes);
  matrix.codes = packed.codes.as<uint8_t>();
  constexpr int64_t kTiles = 16;  // per turn of a thread
  packer.pool.parallel_for((tiles_of(matrix) + kTiles - 1) / kTiles, [&](int64_t index, int) {
    std::vector<uint8_t> codes(matrix.blocks * kBlockCols);
    for (int64_t row = index * kTiles * 8; row < (index + 1) * kTiles * 8; ++row) {
      if (row >= tiles_of(matrix) * 8) break;
      std::fill(codes.begin(), codes.end(), uint8_t{0});
      if (row < matrix.rows) {
        const Rows::Row source = rows[row];
        unpack_row(source.part.weight, source.index, codes.data());
        if (matrix.storage == Storage::kS8) {
          const int center = 1 << (source.part.weight.scheme.bits - 1);
          for (int64_t k = 0; k < matrix.cols; ++k)
            codes[k] = static_cast<uint8_t>(codes[k] - center);
        }
      }
      interleave(matrix, codes.data(), row % 8, packed.codes.as<uint8_t>() + row / 8 * tile_bytes);
    }
  });
}

// values[entry] of every row into [tiles][groups][8], zero where there is none.
template <typename T, typename From>
Tensor pack_groups(const Rows& rows, const PackedMatrix& matrix, Packer& packer, const From& from) {
  Tensor packed =
      packer.arena.allocate(tiles_of(matrix) * matrix.groups * 8 * static_cast<int64_t>(sizeof(T)));
  T* out = packed.as<T>();
  std::fill_n(out, tiles_of(matrix) * matrix.groups * 8, T{});
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const Rows::Row source = rows[row];
    const QTensor& weight = source.part.weight;
    const int64_t first = source.index / weight.scheme.group_rows * weight.groups();
    for (int64_t group = 0; group < weight.groups(); ++group) {
      out[(row / 8 * matrix.groups + group) * 8 + row % 8] = from(weight, first + group);
    }
  }
  return packed;
}

// fp16 if every value is exactly one.
bool all_halves(std::span<const LinearWeight> parts) {
  return std::all_of(parts.begin(), parts.end(), [](const LinearWeight& part) {
    const QTensor& weight = part.weight;
    return std::all_of(weight.scales.begin(), weight.scales.end(), is_half) &&
           std::all_of(weight.offsets.begin(), weight.offsets.end(), is_half);
  });
}

void pack_scales(std::span<const LinearWeight> parts, const Rows& rows, PackedWeight& packed,
                 Packer& packer) {
  PackedMatrix& matrix = packed.matrix;
  const auto pack_floats = [&](std::vector<float> QTensor::*values) {
    if (matrix.half_scales) {
      return pack_groups<uint16_t>(rows, matrix, packer, [&](const QTensor& weight, int64_t entry) {
        return f32_to_f16((weight.*values)[entry]);
      });
    }
    return pack_groups<float>(rows, matrix, packer, [&](const QTensor& weight, int64_t entry) {
      return (weight.*values)[entry];
    });
  };
  matrix.half_scales = all_halves(parts);
  packed.scales = pack_floats(&QTensor::scales);
  matrix.scales = packed.scales.data;
  if (matrix.affine == Affine::kOffsets) packed.shifts = pack_floats(&QTensor::offsets);
  if (matrix.affine == Affine::kZeros) {
    packed.shifts = pack_groups<uint8_t>(
        rows, matrix, packer,
        [](const QTensor& weight, int64_t entry) { return weight.zeros[entry]; });
  }
  matrix.shifts = packed.shifts.data;
}

PackedWeight pack_quantized(std::span<const LinearWeight> parts, Packer& packer, Storage storage) {
  const Rows rows(parts);
  const QTensor& weight = parts[0].weight;
  const QuantScheme& scheme = weight.scheme;
  const int center = scheme.code == Code::kInt ? 1 << (scheme.bits - 1) : 0;
  const int stored_center = storage == Storage::kS8 ? center : 0;
  PackedWeight packed;
  PackedMatrix& matrix = packed.matrix;
  matrix.storage = storage;
  matrix.affine = scheme.zero == Zero::kNone  ? Affine::kNone
                  : scheme.zero == Zero::kInt ? Affine::kZeros
                                              : Affine::kOffsets;
  matrix.base = stored_center - (scheme.zero == Zero::kNone ? center : 0);
  matrix.magnitude = center;
  matrix.rows = rows.count();
  matrix.cols = weight.cols;
  matrix.blocks = round_up(weight.cols, kBlockCols) / kBlockCols;
  matrix.split_blocks = scheme.group_size == 16 && weight.cols > 16;
  matrix.groups = matrix.split_blocks ? matrix.blocks * 2 : weight.groups();
  matrix.group_blocks =
      scheme.group_size >= weight.cols ? matrix.blocks : scheme.group_size / kBlockCols;
  packed.input_order = weight.input_order;
  pack_codes(rows, packed, packer);
  pack_scales(parts, rows, packed, packer);
  pack_bias(parts, packed);
  return packed;
}

PackedWeight pack_q4(std::span<const LinearWeight> parts, Packer& packer) {
  const bool table = parts[0].weight.scheme.code == Code::kIq4Nl;
  return pack_quantized(parts, packer, table ? Storage::kIq4 : Storage::kU4);
}

PackedWeight pack_q8(std::span<const LinearWeight> parts, Packer& packer) {
  return pack_quantized(parts, packer, Storage::kS8);
}

// First match wins.
constexpr Layout kLayouts[] = {
    {"q4", supports_q4, pack_q4},
    {"q8", supports_q8, pack_q8},
    {"f16", supports_f16, pack_dense<Code::kF16, Storage::kF16, uint16_t>},
    {"bf16", supports_bf16, pack_dense<Code::kBF16, Storage::kBF16, uint16_t>},
    {"f32", supports_any, pack_dense<Code::kF32, Storage::kF32, float>},
};

}  // namespace

int64_t PackedWeight::bytes() const { return codes.bytes() + scales.bytes() + shifts.bytes(); }

const Layout& choose_layout(const LinearWeight& weight, const std::string& forced) {
  std::string names;
  for (const Layout& layout : kLayouts) {
    names += concat(names.empty() ? "" : ", ", layout.name);
    if (!forced.empty() && forced != layout.name) continue;
    if (layout.supports(weight.weight)) return layout;
    LOWBIT_CHECK_KIND(forced.empty(), ErrorKind::kUnsupported, "layout \"", forced,
                      "\" (LOWBIT_LINEAR) cannot hold ", weight.name, ", which is ",
                      name_of(weight.weight.scheme));
  }
  fail(ErrorKind::kUnsupported, "there is no layout \"", forced,
       "\" (LOWBIT_LINEAR); there are: ", names);
}

}  // namespace lowbit::cpu
