// The tile of fp32 matrix products with AMX: 32 x 32. AMX multiplies bf16, so each number is split
// in two, x = high + low with 8 bits each, and a * b is taken as high * high + high * low +
// low * high: about 2^-17 of |a| * |b| is lost, and three products of AMX are still five times as
// fast as one of AVX-512.
//
// Packed panels hold blocks of 32 k: four tiles of 1 KiB, the high parts of the first and the last
// 16 rows (or columns), then the low parts. A tile of a is [row][k], one of b [k / 2][column][2].
#include <immintrin.h>

#include "lowbit/runtime/cpu/amx_tiles.h"
#include "lowbit/runtime/cpu/gemm_tiles.h"
#include "lowbit/runtime/cpu/transpose16.h"

namespace lowbit::cpu::amx {

namespace {

constexpr int64_t kUnit = 32;         // of k
constexpr int64_t kTileBytes = 1024;  // 16 rows of 64

void configure() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = 16;
  }
  load_tile_config(config);
}

// 16 pairs of neighbouring k, as bf16: the first of a pair in the low half.
struct Pairs {
  __m512i high, low;
};

__m512i rounded(__m512 x) {  // to bf16, in the high halves
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
}

// even, odd: the first and the second of each pair.
Pairs split(__m512 even, __m512 odd) {
  const __m512i even_high = rounded(even), odd_high = rounded(odd);
  const __m512 even_rest = _mm512_sub_ps(even, _mm512_castsi512_ps(even_high));
  const __m512 odd_rest = _mm512_sub_ps(odd, _mm512_castsi512_ps(odd_high));
  return {_mm512_or_si512(_mm512_srli_epi32(even_high, 16), odd_high),
          _mm512_or_si512(_mm512_srli_epi32(rounded(even_rest), 16), rounded(odd_rest))};
}

// 32 neighbouring k of one row.
Pairs split_row(const float* x) {
  const __m512 first = _mm512_loadu_ps(x), last = _mm512_loadu_ps(x + 16);
  const __m512i evens =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
  return split(_mm512_permutex2var_ps(first, evens, last),
               _mm512_permutex2var_ps(first, odds, last));
}

void store_tile(__m512i (&rows)[16], bool transposed, uint8_t* out) {
  if (transposed) transpose16(rows);
  for (int i = 0; i < 16; ++i) _mm512_store_si512(out + i * 64, rows[i]);
}

// A block of 32 rows and 32 k. by_row: rows lie `stride` apart and k side by side; otherwise the
// other way round. For a, tiles have a row for each of the panel's rows; for b, for each pair of k.
void pack_block(const float* x, int64_t stride, bool by_row, bool for_a, uint8_t* out) {
  for (int half = 0; half < 2; ++half) {
    __m512i high[16], low[16];
    for (int i = 0; i < 16; ++i) {
      Pairs pairs;
      if (by_row) {
        pairs = split_row(x + (16 * half + i) * stride);
      } else {
        const float* even = x + 2 * i * stride + 16 * half;
        pairs = split(_mm512_loadu_ps(even), _mm512_loadu_ps(even + stride));
      }
      high[i] = pairs.high;
      low[i] = pairs.low;
    }
    store_tile(high, by_row != for_a, out + half * kTileBytes);
    store_tile(low, by_row != for_a, out + (2 + half) * kTileBytes);
  }
}

void pack(MatrixView view, int64_t first, int64_t count, int64_t depth, bool for_a, float* out) {
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  const bool by_row = view.column_stride == 1;
  const bool direct = count == kUnit && (by_row || view.row_stride == 1);
  for (int64_t k = 0; k < depth; k += kUnit, bytes += 4 * kTileBytes) {
    const float* x = view.data + first * view.row_stride + k * view.column_stride;
    if (direct && k + kUnit <= depth) {
      pack_block(x, by_row ? view.row_stride : view.column_stride, by_row, for_a, bytes);
      continue;
    }
    float edge[kUnit * kUnit] = {};
    const int64_t left = depth - k < kUnit ? depth - k : kUnit;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < left; ++j) {
        edge[i * kUnit + j] = x[i * view.row_stride + j * view.column_stride];
      }
    }
    pack_block(edge, kUnit, true, for_a, bytes);
  }
}

// c[two of 16] [two of 16] += a * b, operands in tiles 4, 5 and 6, 7.
inline void multiply() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

}  // namespace

void pack_a(MatrixView view, int64_t first, int64_t count, int64_t depth, float* out) {
  pack(view, first, count, depth, true, out);
}

void pack_b(MatrixView view, int64_t first, int64_t count, int64_t depth, float* out) {
  pack(view, first, count, depth, false, out);
}

void gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
               bool accumulate) {
  configure();
  const int64_t stride = c_stride * static_cast<int64_t>(sizeof(float));
  float* below = c + 16 * c_stride;
  if (accumulate) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + 16, stride);
    _tile_loadd(2, below, stride);
    _tile_loadd(3, below + 16, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto* left = reinterpret_cast<const uint8_t*>(a);
  const auto* right = reinterpret_cast<const uint8_t*>(b);
  for (int64_t p = 0; p < k; p += kUnit, left += 4 * kTileBytes, right += 4 * kTileBytes) {
    _tile_loadd(4, left + 2 * kTileBytes, 64);  // low * high
    _tile_loadd(5, left + 3 * kTileBytes, 64);
    _tile_loadd(6, right, 64);
    _tile_loadd(7, right + kTileBytes, 64);
    multiply();
    _tile_loadd(4, left, 64);  // high * high
    _tile_loadd(5, left + kTileBytes, 64);
    multiply();
    _tile_loadd(6, right + 2 * kTileBytes, 64);  // high * low
    _tile_loadd(7, right + 3 * kTileBytes, 64);
    multiply();
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + 16, stride);
  _tile_stored(2, below, stride);
  _tile_stored(3, below + 16, stride);
  _tile_release();
}

}  // namespace lowbit::cpu::amx
