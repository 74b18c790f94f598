// In an anonymous namespace: see kernels.h.
#pragma once

#include <immintrin.h>

namespace lowbit::cpu {
namespace {

// 16 x 16 words of 32 bits.
inline void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // Row 4 * q + c now has, in its 128-bit lane l, column 4 * l + c of rows 4 * q to 4 * q + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i low02 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
    const __m512i low13 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i high02 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    const __m512i high13 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(low02, high02, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(low13, high13, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(low02, high02, 0xdd);
    t[12 + c] = _mm512_shuffle_i32x4(low13, high13, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace lowbit::cpu
