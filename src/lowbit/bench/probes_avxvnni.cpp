#include <immintrin.h>

#include "lowbit/bench/probes.h"

namespace lowbit::bench {
namespace {

constexpr int kChains = 12;

void dot_int8(int64_t rounds) {
  __m256i sums[kChains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(1);
  // Hidden one by one, or g++ keeps them in memory.
#pragma GCC unroll 12
  for (auto& sum : sums) {
    sum = _mm256_setzero_si256();
    __asm__ volatile("" : "+x"(sum));
  }
  __asm__ volatile("" : "+x"(a), "+x"(b));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm256_dpbusd_avx_epi32(sum, a, b);
      __asm__ volatile("" : "+x"(sum));
    }
  }
}

const PeakProbe kPeaks[] = {{"int8 vpdpbusd (AVX-VNNI)", kChains * 32 * 2.0, dot_int8}};

}  // namespace

extern const Probes kAvxVnniProbes = {"avxvnni", kPeaks, 1, nullptr};

}  // namespace lowbit::bench
