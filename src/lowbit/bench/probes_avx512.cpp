#include <immintrin.h>

#include "lowbit/bench/probes.h"

namespace lowbit::bench {
namespace {

constexpr int kChains = 16;  // g++ keeps longer arrays in memory

// Keeps the compiler from knowing a value, and has it in a register.
template <typename Vector>
inline void hide(Vector& v) {
  __asm__ volatile("" : "+v"(v));
}

void fma_f32(int64_t rounds) {
  __m512 sums[kChains], a = _mm512_set1_ps(1e-6f), b = _mm512_set1_ps(1.f);
#pragma GCC unroll 16
  for (auto& sum : sums) {
    sum = _mm512_setzero_ps();
    hide(sum);
  }
  hide(a);
  hide(b);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (auto& sum : sums) {
      sum = _mm512_fmadd_ps(a, b, sum);
      hide(sum);
    }
  }
}

void dot_int8(int64_t rounds) {
  __m512i sums[kChains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
#pragma GCC unroll 16
  for (auto& sum : sums) {
    sum = _mm512_setzero_si512();
    hide(sum);
  }
  hide(a);
  hide(b);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (auto& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, a, b);
      hide(sum);
    }
  }
}

void dot_bf16(int64_t rounds) {
  __m512 sums[kChains];
  __m512i ones = _mm512_set1_epi16(0x3f80);
  hide(ones);
  const __m512bh a = (__m512bh)ones;
#pragma GCC unroll 16
  for (auto& sum : sums) {
    sum = _mm512_setzero_ps();
    hide(sum);
  }
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (auto& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, a, a);
      hide(sum);
    }
  }
}

uint64_t read(const uint8_t* data, int64_t bytes) {
  __m512i sums[8];
#pragma GCC unroll 16
  for (auto& sum : sums) {
    sum = _mm512_setzero_si512();
    hide(sum);
  }
  for (int64_t at = 0; at < bytes; at += 512) {
    for (int line = 0; line < 8; ++line) {
      sums[line] = _mm512_add_epi64(sums[line], _mm512_load_si512(data + at + line * 64));
    }
  }
  for (int line = 1; line < 8; ++line) sums[0] = _mm512_add_epi64(sums[0], sums[line]);
  uint64_t lanes[8], sum = 0;
  _mm512_storeu_si512(lanes, sums[0]);
  for (const uint64_t lane : lanes) sum += lane;
  return sum;
}

const PeakProbe kF32[] = {{"fp32 FMA (AVX-512)", kChains * 16 * 2.0, fma_f32}};
const PeakProbe kInt8[] = {{"int8 vpdpbusd (AVX-512 VNNI)", kChains * 64 * 2.0, dot_int8}};
const PeakProbe kBf16[] = {{"bf16 vdpbf16ps (AVX-512)", kChains * 32 * 2.0, dot_bf16}};

}  // namespace

extern const Probes kAvx512Probes = {"avx512", kF32, 1, read};
extern const Probes kAvx512VnniProbes = {"avx512", kInt8, 1, nullptr};
extern const Probes kAvx512Bf16Probes = {"avx512", kBf16, 1, nullptr};

}  // namespace lowbit::bench
