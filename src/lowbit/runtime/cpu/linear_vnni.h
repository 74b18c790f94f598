// y = x * W^T for quantized weights and int8 activations with vpdpbusd, over a vector type V that
// holds V::kTiles tiles of 8 rows. In an anonymous namespace: see kernels.h.
//
// The formula, and every fp32 operation in its order, are those of kernels_avx2_int8.cpp; the sums
// of a block are exact in int32, so all instruction sets give the same bits.
//
// vpdpbusd takes unsigned weights: signed ones are moved up by 128, and 128 times the sum of the
// activations' codes is taken off again.
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

// shift_w of the formula.
template <typename V>
inline typename V::Float load_shift(const PackedMatrix& w, typename V::Float scale, int64_t at,
                                    int64_t tile_step) {
  typename V::Int addend = V::ints(w.base);
  if (w.affine == Affine::kZeros) {
    addend = V::subtract(addend, V::load_zeros(w.zeros, at, tile_step));
  }
  const auto shift = V::multiply(scale, V::to_float(addend));
  if (w.affine != Affine::kOffsets) return shift;
  return V::add(shift, V::load_values(w.offsets, at, tile_step));
}

// V::kTiles tiles from `tile` on (the last again where there is no other) x T tokens. kParts:
// groups within a block (2 if split).
template <typename V, typename Codes, bool kShift, int kParts, int T>
void vnni_tiles(const PackedMatrix& w, const QuantizedInput& x, int64_t tile, int64_t tile_step,
                int64_t token, float* y, int64_t y_stride) {
  constexpr int kQuads = 8 / kParts;
  constexpr int64_t kBytes = vnni_block_bytes(Codes::kStorage);
  const int64_t stride = x.blocks * kBlockCols, tile_bytes = w.blocks * kBytes;
  const int64_t step_bytes = tile_step * tile_bytes, step_groups = tile_step * w.groups;
  const uint8_t* codes = w.codes + tile * tile_bytes;
  const int8_t* input = x.codes + token * stride;
  const float* scales = x.scales + token * x.blocks;
  const int64_t cells = x.blocks * kParts;  // of a token
  const float* sums = x.sums + token * cells;
  const int32_t* code_sums = x.code_sums + token * cells;
  int64_t at = tile * w.groups, next = w.group_blocks;
  typename V::Float y_sums[T];
  for (int t = 0; t < T; ++t) y_sums[t] = V::float_zero();
  for (int64_t block = 0; block < w.blocks; ++block) {
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      const int64_t cell = block * kParts + part;
      typename V::Int products[T];
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        products[t] = Codes::kSigned ? V::ints(-128 * code_sums[t * cells + cell]) : V::int_zero();
      }
#pragma GCC unroll 8
      for (int quad = 0; quad < kQuads; ++quad) {
        auto weights = Codes::load(w, codes, step_bytes, part * kQuads + quad);
        if constexpr (Codes::kSigned) weights = V::bit_xor(weights, V::bytes(-128));
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          products[t] =
              V::dot(products[t], weights, V::broadcast_quad(input + t * stride + quad * 4));
        }
      }
      const auto scale = load_scale<V, Codes>(w, at, step_groups);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const auto product =
            V::multiply(V::to_float(products[t]), V::broadcast(scales + t * x.blocks + block));
        y_sums[t] = V::multiply_add(product, scale, y_sums[t]);
      }
      if constexpr (kShift) {
        const auto shift = load_shift<V>(w, scale, at, step_groups);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          y_sums[t] = V::multiply_add(shift, V::broadcast(sums + t * cells + cell), y_sums[t]);
        }
      }
      input += kQuads * 4;
      if (kParts == 2) ++at;
    }
    codes += kBytes;
    if (kParts == 1 && block + 1 == next) {
      ++at;
      next += w.group_blocks;
    }
  }
  for (int t = 0; t < T; ++t) {
    V::store_rows(w, tile, tile_step, y_sums[t], y + (token + t) * y_stride);
  }
}

template <typename V, typename Codes, bool kShift, int kParts>
void vnni_product(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                  float* y, int64_t y_stride) {
  for (int64_t tile = tiles.first; tile < tiles.last; tile += V::kTiles) {
    const int64_t step = tile + 1 < tiles.last ? 1 : 0;
    int64_t token = tokens.first;
    for (; token + V::kTokens <= tokens.last; token += V::kTokens) {
      vnni_tiles<V, Codes, kShift, kParts, V::kTokens>(w, x, tile, step, token, y, y_stride);
    }
    for (; token + 4 <= tokens.last; token += 4) {
      vnni_tiles<V, Codes, kShift, kParts, 4>(w, x, tile, step, token, y, y_stride);
    }
    for (; token < tokens.last; ++token) {
      vnni_tiles<V, Codes, kShift, kParts, 1>(w, x, tile, step, token, y, y_stride);
    }
  }
}

using LinearInt8 = void (*)(const PackedMatrix&, const QuantizedInput&, Range, Range, float*,
                            int64_t);

// Run::run<Codes, shift, parts> for the matrix.
template <typename Run, typename Codes, bool kShift>
LinearInt8 with_parts(const PackedMatrix& w) {
  return w.split_blocks ? Run::template run<Codes, kShift, 2> : Run::template run<Codes, kShift, 1>;
}

template <typename Run, typename V>
LinearInt8 choose_codes(const PackedMatrix& w) {
  // Unsigned codes always have a shift: their middle is not 0.
  switch (w.storage) {
    case Storage::kU2:
      return with_parts<Run, VnniUnsigned<V, Storage::kU2>, true>(w);
    case Storage::kU3:
      return with_parts<Run, VnniUnsigned<V, Storage::kU3>, true>(w);
    case Storage::kU4:
      return with_parts<Run, VnniUnsigned<V, Storage::kU4>, true>(w);
    case Storage::kU5:
      return with_parts<Run, VnniUnsigned<V, Storage::kU5>, true>(w);
    case Storage::kU6:
      return with_parts<Run, VnniUnsigned<V, Storage::kU6>, true>(w);
    case Storage::kS8:
      return w.affine != Affine::kNone || w.base != 0 ? with_parts<Run, VnniS8<V>, true>(w)
                                                      : with_parts<Run, VnniS8<V>, false>(w);
    case Storage::kTable4:
      return with_parts<Run, VnniTable<V>, false>(w);
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
  template <typename Codes, bool kShift, int kParts>
  static void run(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                  float* y, int64_t y_stride) {
    vnni_product<V, Codes, kShift, kParts>(w, x, tiles, tokens, y, y_stride);
  }
};

template <typename V>
void vnni_linear(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  choose_codes<Vnni<V>, V>(w)(w, x, tiles, tokens, y, y_stride);
}

}  // namespace
}  // namespace lowbit::cpu
