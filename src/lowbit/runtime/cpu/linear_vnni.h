// y = x * W^T for quantized weights and int8 activations with vpdpbusd, over a vector type V that
// holds V::kTiles tiles of 8 rows. In an anonymous namespace: see kernels.h.
//
// The formula, and every fp32 operation in its order, are those of kernels_avx2_int8.cpp; the sums
// of a block are exact, so all instruction sets give the same bits.
//
// vpdpbusd takes unsigned weights: signed ones are moved up by 128, which the addend takes off
// again.
//
// Weights of two vectors of rows are unpacked to bytes, a slab of columns at a time, into a panel
// that stays in L1 and serves all tokens of a pass; the sums of V::kTokens tokens stay in registers
// for the slab.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {
namespace {

// Quad `quad` of a plane, in the low kBits of each byte.
template <typename V, int kBits>
inline typename V::Int vnni_plane(const uint8_t* plane, int64_t tile_bytes, int quad) {
  constexpr int kQuads = 8 / kBits;
  const auto all = V::load_codes(plane + quad / kQuads * 32, tile_bytes);
  return V::bit_and(V::shift_right(all, quad % kQuads * kBits), V::bytes((1 << kBits) - 1));
}

// Types of codes: load() gives quad `quad` of a block of V::kTiles tiles, `tile_bytes` apart.
// kSigned: as signed bytes.

template <typename V, Storage kStored>
struct VnniUnsigned {
  static constexpr Storage kStorage = kStored;
  static constexpr bool kSigned = false;
  static inline typename V::Int load(const PackedMatrix&, const uint8_t* block, int64_t tile_bytes,
                                     int quad) {
    if constexpr (kStored == Storage::kU2) return vnni_plane<V, 2>(block, tile_bytes, quad);
    if constexpr (kStored == Storage::kU3) {
      const auto high = vnni_plane<V, 1>(block + 64, tile_bytes, quad);
      return V::bit_or(vnni_plane<V, 2>(block, tile_bytes, quad), V::shift_left(high, 2));
    }
    const auto nibbles = vnni_plane<V, 4>(block, tile_bytes, quad);
    if constexpr (kStored == Storage::kU5) {
      const auto high = vnni_plane<V, 1>(block + 128, tile_bytes, quad);
      return V::bit_or(nibbles, V::shift_left(high, 4));
    }
    if constexpr (kStored == Storage::kU6) {
      const auto high = vnni_plane<V, 2>(block + 128, tile_bytes, quad);
      return V::bit_or(nibbles, V::shift_left(high, 4));
    }
    return nibbles;
  }
};

template <typename V>
struct VnniS8 {
  static constexpr Storage kStorage = Storage::kS8;
  static constexpr bool kSigned = true;
  static inline typename V::Int load(const PackedMatrix&, const uint8_t* block, int64_t tile_bytes,
                                     int quad) {
    return V::load_codes(block + quad * 32, tile_bytes);
  }
};

template <typename V>
struct VnniTable {
  static constexpr Storage kStorage = Storage::kTable4;
  static constexpr bool kSigned = true;
  static inline typename V::Int load(const PackedMatrix& w, const uint8_t* block,
                                     int64_t tile_bytes, int quad) {
    const auto table = V::repeat(_mm_load_si128(reinterpret_cast<const __m128i*>(w.table->steps)));
    return V::look_up(table, vnni_plane<V, 4>(block, tile_bytes, quad));
  }
};

constexpr int64_t vnni_block_bytes(Storage storage) {
  switch (storage) {
    case Storage::kU2:
      return 64;
    case Storage::kU3:
      return 96;
    case Storage::kU5:
      return 160;
    case Storage::kU6:
      return 192;
    case Storage::kS8:
      return 256;
    default:
      return 128;
  }
}

// scale_w of the formula.
template <typename V, typename Codes>
inline typename V::Float load_scale(const PackedMatrix& w, int64_t at, int64_t tile_step) {
  const auto scale = V::load_values(w.scales, at, tile_step);
  if constexpr (Codes::kStorage != Storage::kTable4) return scale;
  return V::multiply(scale, V::broadcast(&w.table->unit));
}

// base - zero_w, `extra` more.
template <typename V, Affine kAffine>
inline typename V::Int load_addend(const PackedMatrix& w, int64_t at, int64_t tile_step,
                                   int extra) {
  const auto base = V::ints(w.base + extra);
  if constexpr (kAffine != Affine::kZeros) return base;
  return V::subtract(base, V::load_zeros(w.zeros, at, tile_step));
}

constexpr int kVectors = 2;            // of rows, side by side in a panel
constexpr int64_t kSlabBlocks = 24;    // 24 KiB of weights as bytes
constexpr int64_t kMostTokens = 192;   // of one pass
constexpr int64_t kAheadBytes = 4096;  // codes are asked for so early, as in kernels_avx2_int8.cpp

// Rows of one pass: vector v begins at tile[v]; its last tile is `step[v]` tiles further on (0 if
// it is the only one). A vector that does not exist is the first again.
struct PanelRows {
  int64_t tile[kVectors];
  int64_t step[kVectors];
  bool exists[kVectors];
};

template <typename V>
PanelRows panel_rows(int64_t tile, int64_t last) {
  PanelRows rows;
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = tile + v * V::kTiles;
    rows.exists[v] = at < last;
    rows.tile[v] = rows.exists[v] ? at : tile;
    rows.step[v] = rows.tile[v] + 1 < last ? 1 : 0;
  }
  return rows;
}

// A slab. A cell is a group within a block: the block, or half of it (kParts is 2 then).
template <typename V>
struct Panel {
  static constexpr int kLanes = 8 * V::kTiles;
  alignas(64) uint8_t codes[kSlabBlocks][kVectors][8][4 * kLanes];
  alignas(64) float scales[2 * kSlabBlocks][kVectors][kLanes];
  alignas(64) float addends[2 * kSlabBlocks][kVectors][kLanes];
  alignas(64) float offsets[2 * kSlabBlocks][kVectors][kLanes];
  alignas(64) float sums[kMostTokens][kVectors][kLanes];
};

// Blocks [first, last) of the rows. Kind::kFolds: codes are signed, with the addend in them where
// they have room for it; else they are unsigned. Kind::kAddend: the panel has addends.
template <typename V, typename Kind, typename Codes, Affine kAffine, int kParts>
void unpack_panel(const PackedMatrix& w, const PanelRows& rows, int64_t first, int64_t last,
                  Panel<V>& panel) {
  constexpr int64_t kBytes = vnni_block_bytes(Codes::kStorage);
  constexpr bool kFold = Kind::kFolds && !Codes::kSigned && kAffine != Affine::kOffsets;
  constexpr int kMoved = Codes::kSigned && !Kind::kFolds ? -128 : 0;
  constexpr int kQuads = 8 / kParts;
  const int64_t tile_bytes = w.blocks * kBytes;
  for (int v = 0; v < kVectors; ++v) {
    const int64_t step_bytes = rows.step[v] * tile_bytes, step_groups = rows.step[v] * w.groups;
    const uint8_t* codes = w.codes + rows.tile[v] * tile_bytes + first * kBytes;
    const int64_t groups = rows.tile[v] * w.groups;
    int64_t group = kParts == 2 ? 2 * first : first / w.group_blocks;
    int64_t next = (group + 1) * w.group_blocks;
    for (int64_t block = 0; block < last - first; ++block, codes += kBytes) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < kBytes; i += 64) {
        __builtin_prefetch(codes + kAheadBytes + i);
        __builtin_prefetch(codes + step_bytes + kAheadBytes + i);
      }
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) {
        const int64_t at = groups + group, cell = block * kParts + part;
        V::store_floats(panel.scales[cell][v], load_scale<V, Codes>(w, at, step_groups));
        const auto addend = load_addend<V, kAffine>(w, at, step_groups, kMoved);
        if constexpr (Kind::template kAddend<Codes, kAffine>) {
          V::store_floats(panel.addends[cell][v], V::to_float(addend));
        }
        if constexpr (kAffine == Affine::kOffsets) {
          V::store_floats(panel.offsets[cell][v], V::load_values(w.offsets, at, step_groups));
        }
        const auto moved = V::repeat_bytes(addend);
#pragma GCC unroll 8
        for (int quad = part * kQuads; quad < (part + 1) * kQuads; ++quad) {
          auto code = Codes::load(w, codes, step_bytes, quad);
          if constexpr (kFold) code = V::add_bytes(code, moved);
          if constexpr (kMoved != 0) code = V::bit_xor(code, V::bytes(-128));
          V::store_ints(panel.codes[block][v][quad], code);
        }
        if (kParts == 2) ++group;
      }
      if (kParts == 1 && first + block + 1 == next) {
        ++group;
        next += w.group_blocks;
      }
    }
  }
}

template <typename V>
void store_panel(const PackedMatrix& w, const PanelRows& rows, const Panel<V>& panel, Range tokens,
                 float* y, int64_t y_stride) {
  for (int64_t token = tokens.first; token < tokens.last; ++token) {
    for (int v = 0; v < kVectors; ++v) {
      if (!rows.exists[v]) continue;
      V::store_rows(w, rows.tile[v], rows.step[v],
                    V::load_floats(panel.sums[token - tokens.first][v]), y + token * y_stride);
    }
  }
}

// vpdpbusd's sums begin at QuantizedInput::starts, which holds addends that are the same for all
// rows; only zero points are left.
struct VnniKind {
  static constexpr bool kFolds = false;
  template <typename Codes, Affine kAffine>
  static constexpr bool kAddend = kAffine == Affine::kZeros;
};

// Adds the products of blocks [first, last) and T tokens from `token` on to `y_sums`.
template <typename V, Affine kAffine, int kParts, int T>
void vnni_tokens(const Panel<V>& panel, const QuantizedInput& x, int64_t first, int64_t last,
                 int64_t token, float (*y_sums)[kVectors][Panel<V>::kLanes]) {
  constexpr int kQuads = 8 / kParts;
  const int64_t blocks = x.blocks, stride = blocks * kBlockCols, cells = blocks * kParts;
  const int64_t at = token * cells + first * kParts;
  const int8_t* input = x.codes + token * stride + first * kBlockCols;
  const float *scales = x.scales + token * blocks + first, *sums = x.sums + at;
  const float* code_sums = x.code_sums + at;
  const int32_t* starts = x.starts + at;
  typename V::Float y[kVectors][T];
#pragma GCC unroll 16
  for (int i = 0; i < kVectors * T; ++i) y[i / T][i % T] = V::load_floats(y_sums[i % T][i / T]);
  for (int64_t block = 0; block < last - first; ++block) {
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      const int64_t cell = block * kParts + part;
      typename V::Int products[kVectors][T];
#pragma GCC unroll 16
      for (int i = 0; i < kVectors * T; ++i) {
        products[i / T][i % T] =
            kAffine == Affine::kZeros ? V::int_zero() : V::ints(starts[i % T * cells + cell]);
      }
#pragma GCC unroll 8
      for (int quad = part * kQuads; quad < (part + 1) * kQuads; ++quad) {
        typename V::Int weights[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          weights[v] = V::load_ints(panel.codes[block][v][quad]);
        }
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          const auto quads = V::broadcast_quad(input + t * stride + block * kBlockCols + quad * 4);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            products[v][t] = V::dot(products[v][t], weights[v], quads);
          }
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const auto scale = V::load_floats(panel.scales[cell][v]);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          auto product = V::to_float(products[v][t]);
          if constexpr (kAffine == Affine::kZeros) {
            product = V::multiply_add(V::load_floats(panel.addends[cell][v]),
                                      V::broadcast(code_sums + t * cells + cell), product);
          }
          product = V::multiply(product, V::broadcast(scales + t * blocks + block));
          y[v][t] = V::multiply_add(product, scale, y[v][t]);
          if constexpr (kAffine == Affine::kOffsets) {
            y[v][t] = V::multiply_add(V::load_floats(panel.offsets[cell][v]),
                                      V::broadcast(sums + t * cells + cell), y[v][t]);
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kVectors * T; ++i) V::store_floats(y_sums[i % T][i / T], y[i / T][i % T]);
}

template <typename V, typename Codes, Affine kAffine, int kParts>
void vnni_product(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                  float* y, int64_t y_stride) {
  Panel<V> panel;
  for (int64_t tile = tiles.first; tile < tiles.last; tile += kVectors * V::kTiles) {
    const PanelRows rows = panel_rows<V>(tile, tiles.last);
    for (int64_t token = tokens.first; token < tokens.last; token += kMostTokens) {
      const int64_t end = token + kMostTokens < tokens.last ? token + kMostTokens : tokens.last;
      __builtin_memset(panel.sums, 0, static_cast<size_t>(end - token) * sizeof panel.sums[0]);
      for (int64_t first = 0; first < w.blocks; first += kSlabBlocks) {
        const int64_t last = first + kSlabBlocks < w.blocks ? first + kSlabBlocks : w.blocks;
        unpack_panel<V, VnniKind, Codes, kAffine, kParts>(w, rows, first, last, panel);
        int64_t t = token;
        for (; t + V::kTokens <= end; t += V::kTokens) {
          vnni_tokens<V, kAffine, kParts, V::kTokens>(panel, x, first, last, t,
                                                      panel.sums + (t - token));
        }
        for (; t + 2 <= end; t += 2) {
          vnni_tokens<V, kAffine, kParts, 2>(panel, x, first, last, t, panel.sums + (t - token));
        }
        if (t < end) {
          vnni_tokens<V, kAffine, kParts, 1>(panel, x, first, last, t, panel.sums + (t - token));
        }
      }
      store_panel<V>(w, rows, panel, {token, end}, y, y_stride);
    }
  }
}

using LinearInt8 = void (*)(const PackedMatrix&, const QuantizedInput&, Range, Range, float*,
                            int64_t);

// Run::run<Codes, affine, parts> for the matrix.
template <typename Run, typename Codes, Affine kAffine>
LinearInt8 with_parts(const PackedMatrix& w) {
  return w.split_blocks ? Run::template run<Codes, kAffine, 2>
                        : Run::template run<Codes, kAffine, 1>;
}

template <typename Run, typename Codes>
LinearInt8 with_affine(const PackedMatrix& w) {
  return w.affine == Affine::kNone    ? with_parts<Run, Codes, Affine::kNone>(w)
         : w.affine == Affine::kZeros ? with_parts<Run, Codes, Affine::kZeros>(w)
                                      : with_parts<Run, Codes, Affine::kOffsets>(w);
}

template <typename Run, typename V>
LinearInt8 choose_codes(const PackedMatrix& w) {
  switch (w.storage) {
    case Storage::kU2:
      return with_affine<Run, VnniUnsigned<V, Storage::kU2>>(w);
    case Storage::kU3:
      return with_affine<Run, VnniUnsigned<V, Storage::kU3>>(w);
    case Storage::kU4:
      return with_affine<Run, VnniUnsigned<V, Storage::kU4>>(w);
    case Storage::kU5:
      return with_affine<Run, VnniUnsigned<V, Storage::kU5>>(w);
    case Storage::kU6:
      return with_affine<Run, VnniUnsigned<V, Storage::kU6>>(w);
    case Storage::kS8:
      return with_affine<Run, VnniS8<V>>(w);
    case Storage::kTable4:
      return with_parts<Run, VnniTable<V>, Affine::kNone>(w);
    case Storage::kF32:
    case Storage::kF16:
    case Storage::kBF16:
    case Storage::kE4M3:
      break;
  }
  __builtin_trap();  // these have no int8 kernel; the caller knows
}

template <typename V>
struct Vnni {
  template <typename Codes, Affine kAffine, int kParts>
  static void run(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                  float* y, int64_t y_stride) {
    vnni_product<V, Codes, kAffine, kParts>(w, x, tiles, tokens, y, y_stride);
  }
};

template <typename V>
void vnni_linear(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  choose_codes<Vnni<V>, V>(w)(w, x, tiles, tokens, y, y_stride);
}

}  // namespace
}  // namespace lowbit::cpu
