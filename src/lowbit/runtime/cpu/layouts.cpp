#include "lowbit/runtime/cpu/layouts.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cpu/code_tables.h"
#include "lowbit/runtime/cpu/pack_groups.h"
#include "lowbit/runtime/cpu/rows.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit::cpu {

namespace {

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

bool supports_f16(const QTensor& weight) {
  if (weight.scheme.dense()) return weight.scheme.code == Code::kF16;
  if (weight.scheme.code == Code::kAdditive) return false;  // sums of halves times a half
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

bool supports_int(const QTensor& weight) {
  return weight.scheme.code == Code::kInt && groups_fit(weight);
}

template <int kMost>
bool supports_bits(const QTensor& weight) {
  return supports_int(weight) && weight.scheme.bits <= kMost;
}

bool supports_table(const QTensor& weight) {
  return !weight.scheme.dense() && weight.scheme.bits == 4 && groups_fit(weight) &&
         weight.scheme.code != Code::kInt && weight.scheme.code != Code::kAdditive;
}

bool supports_e4m3(const QTensor& weight) {
  return weight.scheme.code == Code::kE4M3 && groups_fit(weight);
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

// The planes of a storage: how many bits of each code, from which bit on.
struct Plane {
  int bits, first;
};

std::span<const Plane> planes_of(Storage storage) {
  static constexpr Plane k2[] = {{2, 0}}, k3[] = {{2, 0}, {1, 2}}, k4[] = {{4, 0}},
                         k5[] = {{4, 0}, {1, 4}}, k6[] = {{4, 0}, {2, 4}}, k8[] = {{8, 0}};
  switch (storage) {
    case Storage::kU2:
      return k2;
    case Storage::kU3:
      return k3;
    case Storage::kU5:
      return k5;
    case Storage::kU6:
      return k6;
    case Storage::kS8:
      return k8;
    default:
      return k4;
  }
}

int64_t block_bytes(Storage storage) {
  int64_t bytes = 0;
  for (const Plane& plane : planes_of(storage)) bytes += plane.bits * 32;
  return bytes;
}

// One row's bytes into its lane of a tile.
void interleave(const PackedMatrix& matrix, const uint8_t* codes, int64_t lane, uint8_t* tile) {
  const int64_t bytes = block_bytes(matrix.storage);
  for (int64_t block = 0; block < matrix.blocks; ++block) {
    uint8_t* out = tile + block * bytes + lane * 4;
    for (const Plane& plane : planes_of(matrix.storage)) {
      const uint32_t mask = 0x01010101u * ((1u << plane.bits) - 1);
      const int together = 8 / plane.bits;  // quads in 32 bytes
      for (int quad = 0; quad < 8; quad += together, out += 32) {
        uint32_t all = 0;
        for (int i = 0; i < together; ++i) {
          uint32_t one;
          std::memcpy(&one, codes + block * kBlockCols + (quad + i) * 4, 4);
          all |= (one >> plane.first & mask) << (i * plane.bits);
        }
        std::memcpy(out, &all, 4);
      }
    }
  }
}

// The same from a row of 4-bit codes as it is stored: 8 codes in 4 bytes.
void interleave_nibbles(const PackedMatrix& matrix, const uint8_t* codes, int64_t lane,
                        uint8_t* tile) {
  const auto spread = [](uint32_t nibbles) {  // four, to a byte each
    nibbles = (nibbles | nibbles << 8) & 0x00ff00ff;
    return (nibbles | nibbles << 4) & 0x0f0f0f0f;
  };
  uint8_t* out = tile + lane * 4;
  for (int64_t word = 0; word < matrix.cols / 8; ++word, codes += 4, out += 32) {
    uint32_t eight;
    std::memcpy(&eight, codes, 4);
    const uint32_t pair = spread(eight & 0xffff) | spread(eight >> 16) << 4;
    std::memcpy(out, &pair, 4);
  }
}

// One row that exists into its lane of a tile. buffer: [blocks * 32], zero beyond the columns.
void pack_row(const PackedMatrix& matrix, const Rows::Row& row, int64_t lane,
              std::vector<uint8_t>& buffer, uint8_t* tile) {
  const QTensor& weight = row.part.weight;
  if (weight.scheme.bits == 4 && matrix.cols % kBlockCols == 0 &&
      (matrix.storage == Storage::kU4 || matrix.storage == Storage::kTable4)) {
    interleave_nibbles(matrix, weight.codes.data + row.index * weight.row_bytes(), lane, tile);
    return;
  }
  unpack_row(weight, row.index, buffer.data());
  if (matrix.storage == Storage::kE4M3) {
    for (size_t k = 0; k < buffer.size(); ++k) tile[k * 8 + static_cast<size_t>(lane)] = buffer[k];
    return;
  }
  if (matrix.storage == Storage::kS8) {
    const int center = 1 << (weight.scheme.bits - 1);
    for (int64_t k = 0; k < matrix.cols; ++k) buffer[k] = static_cast<uint8_t>(buffer[k] - center);
  }
  interleave(matrix, buffer.data(), lane, tile);
}

void pack_codes(const Rows& rows, PackedWeight& packed, Packer& packer) {
  PackedMatrix& matrix = packed.matrix;
  const bool e4m3 = matrix.storage == Storage::kE4M3;
  const int64_t tile_bytes = matrix.blocks * (e4m3 ? 256 : block_bytes(matrix.storage));
  packed.codes = packer.arena.allocate(tiles_of(matrix) * tile_bytes);
  matrix.codes = packed.codes.as<uint8_t>();
  constexpr int64_t kTiles = 16;  // per turn of a thread
  packer.pool.parallel_for((tiles_of(matrix) + kTiles - 1) / kTiles, [&](int64_t index, int) {
    std::vector<uint8_t> buffer(matrix.blocks * kBlockCols);
    const int64_t last = std::min(tiles_of(matrix), (index + 1) * kTiles);
    for (int64_t i = index * kTiles; i < last; ++i) {
      uint8_t* tile = packed.codes.as<uint8_t>() + i * tile_bytes;
      if (i * 8 + 8 > matrix.rows) std::fill_n(tile, tile_bytes, uint8_t{0});
      for (int64_t lane = 0; lane < std::min<int64_t>(8, matrix.rows - i * 8); ++lane) {
        pack_row(matrix, rows[i * 8 + lane], lane, buffer, tile);
      }
    }
  });
}

Storage storage_for(const QuantScheme& scheme) {
  if (scheme.code == Code::kE4M3) return Storage::kE4M3;
  if (scheme.code != Code::kInt) return Storage::kTable4;
  switch (scheme.bits) {
    case 1:
    case 2:
      return Storage::kU2;
    case 3:
      return Storage::kU3;
    case 4:
      return Storage::kU4;
    case 5:
      return Storage::kU5;
    case 6:
      return Storage::kU6;
    default:
      return Storage::kS8;
  }
}

template <Storage (*kStorage)(const QuantScheme&)>
PackedWeight pack_quantized(std::span<const LinearWeight> parts, Packer& packer) {
  const Rows rows(parts);
  const QTensor& weight = parts[0].weight;
  const QuantScheme& scheme = weight.scheme;
  const int center = scheme.code == Code::kInt ? 1 << (scheme.bits - 1) : 0;
  PackedWeight packed;
  PackedMatrix& matrix = packed.matrix;
  matrix.storage = kStorage(scheme);
  const int stored_center = matrix.storage == Storage::kS8 ? center : 0;
  matrix.affine = scheme.zero == Zero::kNone  ? Affine::kNone
                  : scheme.zero == Zero::kInt ? Affine::kZeros
                                              : Affine::kOffsets;
  matrix.base = stored_center - (scheme.zero == Zero::kNone ? center : 0);
  matrix.rows = rows.count();
  matrix.cols = weight.cols;
  matrix.blocks = round_up(weight.cols, kBlockCols) / kBlockCols;
  matrix.split_blocks = scheme.group_size == 16 && weight.cols > 16;
  matrix.groups = matrix.split_blocks ? matrix.blocks * 2 : weight.groups();
  matrix.group_blocks =
      scheme.group_size >= weight.cols ? matrix.blocks : scheme.group_size / kBlockCols;
  if (matrix.storage == Storage::kTable4) matrix.table = &code_table(scheme.code);
  packed.input_order = weight.input_order;
  pack_codes(rows, packed, packer);
  pack_groups(rows, packed, packer);
  pack_bias(parts, packed);
  return packed;
}

Storage as_s8(const QuantScheme&) { return Storage::kS8; }

// First match wins.
constexpr Layout kLayouts[] = {
    {"q2", supports_bits<2>, pack_quantized<storage_for>},
    {"q3", supports_bits<3>, pack_quantized<storage_for>},
    {"q4", supports_bits<4>, pack_quantized<storage_for>},
    {"q5", supports_bits<5>, pack_quantized<storage_for>},
    {"q6", supports_bits<6>, pack_quantized<storage_for>},
    {"q8", supports_int, pack_quantized<as_s8>},
    {"table4", supports_table, pack_quantized<storage_for>},
    {"e4m3", supports_e4m3, pack_quantized<storage_for>},
    {"f16", supports_f16, pack_dense<Code::kF16, Storage::kF16, uint16_t>},
    {"bf16", supports_bf16, pack_dense<Code::kBF16, Storage::kBF16, uint16_t>},
    {"f32", supports_any, pack_dense<Code::kF32, Storage::kF32, float>},
};

}  // namespace

int64_t PackedWeight::bytes() const {
  return codes.bytes() + scales.bytes() + scale_supers.bytes() + offsets.bytes() +
         offset_supers.bytes() + zeros.bytes();
}

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
