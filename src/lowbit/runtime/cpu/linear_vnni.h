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

// Weights of two quads, unsigned.
template <typename V>
struct QuadPair {
  typename V::Int first, second;
};

// 4-bit codes are unsigned as they are.
template <typename V>
struct VnniU4 {
  static constexpr int kQuadBytes = 16;
  static constexpr bool kSigned = false;
  static inline QuadPair<V> load(const uint8_t* codes, int64_t tile_bytes) {
    const auto both = V::load_codes(codes, tile_bytes);
    const auto mask = V::bytes(15);
    return {V::bit_and(both, mask), V::bit_and(V::shift_right_4(both), mask)};
  }
};

template <typename V>
struct VnniIq4 {
  static constexpr int kQuadBytes = 16;
  static constexpr bool kSigned = true;
  static inline QuadPair<V> load(const uint8_t* codes, int64_t tile_bytes) {
    // kIq4NlTable of tensor/scheme.h, plus 128.
    const auto table = V::repeat(
        _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
    const auto both = V::load_codes(codes, tile_bytes);
    const auto mask = V::bytes(15);
    return {V::look_up(table, V::bit_and(both, mask)),
            V::look_up(table, V::bit_and(V::shift_right_4(both), mask))};
  }
};

template <typename V>
struct VnniS8 {
  static constexpr int kQuadBytes = 32;
  static constexpr bool kSigned = true;
  static inline QuadPair<V> load(const uint8_t* codes, int64_t tile_bytes) {
    const auto flip = V::bytes(-128);
    return {V::bit_xor(V::load_codes(codes, tile_bytes), flip),
            V::bit_xor(V::load_codes(codes + 32, tile_bytes), flip)};
  }
};

// shift_w of the formula.
template <typename V>
inline typename V::Float load_shift(const PackedMatrix& w, typename V::Float scale, int64_t at,
                                    int64_t tile_step) {
  typename V::Int addend = V::ints(w.base);
  if (w.affine == Affine::kZeros) {
    addend =
        V::subtract(addend, V::load_zeros(static_cast<const uint8_t*>(w.shifts), at, tile_step));
  }
  const auto shift = V::multiply(scale, V::to_float(addend));
  if (w.affine != Affine::kOffsets) return shift;
  return V::add(shift, V::load_rows(w.shifts, w.half_scales, at, tile_step));
}

// V::kTiles tiles from `tile` on (the last again where there is no other) x T tokens. kParts:
// groups within a block (2 if split).
template <typename V, typename Codes, bool kShift, int kParts, int T>
void vnni_tiles(const PackedMatrix& w, const QuantizedInput& x, int64_t tile, int64_t tile_step,
                int64_t token, float* y, int64_t y_stride) {
  constexpr int kQuads = 8 / kParts;
  const int64_t stride = x.blocks * kBlockCols, tile_bytes = w.blocks * 8 * Codes::kQuadBytes;
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
    for (int part = 0; part < kParts; ++part) {
      const int64_t cell = block * kParts + part;
      typename V::Int products[T];
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        products[t] = Codes::kSigned ? V::ints(-128 * code_sums[t * cells + cell]) : V::int_zero();
      }
#pragma GCC unroll 4
      for (int quad = 0; quad < kQuads; quad += 2) {
        const QuadPair<V> weights = Codes::load(codes + quad * Codes::kQuadBytes, step_bytes);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          const int8_t* quads = input + t * stride + quad * 4;
          products[t] = V::dot(products[t], weights.first, V::broadcast_quad(quads));
          products[t] = V::dot(products[t], weights.second, V::broadcast_quad(quads + 4));
        }
      }
      const auto scale = V::load_rows(w.scales, w.half_scales, at, step_groups);
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
      codes += kQuads * Codes::kQuadBytes;
      input += kQuads * 4;
      if (kParts == 2) ++at;
    }
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

template <typename V, template <typename> typename Codes>
void vnni_linear_of(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                    float* y, int64_t y_stride) {
  const bool shift = w.affine != Affine::kNone || w.base != 0;
  const auto run =
      w.split_blocks
          ? (shift ? vnni_product<V, Codes<V>, true, 2> : vnni_product<V, Codes<V>, false, 2>)
          : (shift ? vnni_product<V, Codes<V>, true, 1> : vnni_product<V, Codes<V>, false, 1>);
  run(w, x, tiles, tokens, y, y_stride);
}

template <typename V>
void vnni_linear(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  switch (w.storage) {
    case Storage::kU4:
      return vnni_linear_of<V, VnniU4>(w, x, tiles, tokens, y, y_stride);
    case Storage::kIq4:
      return vnni_linear_of<V, VnniIq4>(w, x, tiles, tokens, y, y_stride);
    case Storage::kS8:
      return vnni_linear_of<V, VnniS8>(w, x, tiles, tokens, y, y_stride);
    case Storage::kF32:
    case Storage::kF16:
    case Storage::kBF16:
      __builtin_trap();  // dense weights have no int8 kernel; the caller knows
  }
}

}  // namespace
}  // namespace lowbit::cpu
