#include <immintrin.h>

#include "lowbit/bench/probes.h"

namespace lowbit::bench {
namespace {

constexpr int kChains = 12;  // enough for the latency of two units; leaves registers for operands

constexpr int kPairChains = 8;

// Keeps the compiler from knowing a value.
inline void hide(__m256i& v) { __asm__ volatile("" : "+x"(v)); }
inline void hide(__m256& v) { __asm__ volatile("" : "+x"(v)); }

void fma_f32(int64_t rounds) {
  __m256 sums[kChains], a = _mm256_set1_ps(1e-6f), b = _mm256_set1_ps(1.f);
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  hide(a);
  hide(b);
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
  }
  for (auto& sum : sums) hide(sum);
}

// Unsigned times signed pairs, added in int16: what a kernel must do at the least. (In assembly,
// since g++ hoists or spills the same written plainly.)
void maddubs(int64_t rounds) {
  __m256i sums[kPairChains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(1);
#pragma GCC unroll 8
  for (auto& sum : sums) {
    sum = _mm256_setzero_si256();
    hide(sum);
  }
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
    for (auto& sum : sums) {
      __m256i pairs;
      __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(pairs) : "x"(a), "x"(b));
      sum = _mm256_add_epi16(sum, pairs);
      hide(sum);
    }
  }
}

uint64_t read(const uint8_t* data, int64_t bytes) {
  __m256i sums[8];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t at = 0; at < bytes; at += 512) {
    for (int line = 0; line < 8; ++line) {
      const auto* from = reinterpret_cast<const __m256i*>(data + at + line * 64);
      sums[line] = _mm256_add_epi64(sums[line], _mm256_load_si256(from));
      sums[line] = _mm256_xor_si256(sums[line], _mm256_load_si256(from + 1));
    }
  }
  for (int line = 1; line < 8; ++line) sums[0] = _mm256_add_epi64(sums[0], sums[line]);
  const __m128i sum =
      _mm_add_epi64(_mm256_castsi256_si128(sums[0]), _mm256_extracti128_si256(sums[0], 1));
  return static_cast<uint64_t>(_mm_extract_epi64(sum, 0) + _mm_extract_epi64(sum, 1));
}

const PeakProbe kPeaks[] = {
    {"fp32 FMA (AVX2)", kChains * 8 * 2.0, fma_f32},
    {"int8 vpmaddubsw (AVX2)", kPairChains * 32 * 2.0, maddubs},
};

}  // namespace

extern const Probes kAvx2Probes = {"avx2", kPeaks, 2, read};

}  // namespace lowbit::bench
