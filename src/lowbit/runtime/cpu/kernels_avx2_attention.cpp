// Attention with AVX2: attention_tiles.h with 8 lanes.
#include "lowbit/runtime/cpu/attention_tiles.h"
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

struct Avx2 {
  static constexpr int64_t kLanes = 8;
  static constexpr int kWide = 2;  // registers beside each other for 6 rows: 12 sums of 16
  using Float = __m256;

  static inline Float float_zero() { return _mm256_setzero_ps(); }
  static inline Float floats(float value) { return _mm256_set1_ps(value); }
  static inline Float broadcast(const float* at) { return _mm256_broadcast_ss(at); }
  static inline Float load_floats(const float* at) { return _mm256_load_ps(at); }
  static inline void store_floats(float* at, Float v) { _mm256_store_ps(at, v); }
  static inline Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static inline Float subtract(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static inline Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static inline Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static inline Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static inline Float exp(Float v) { return exp_falling8(v); }
  static inline float max_lanes(Float v) { return lowbit::cpu::max_lanes(v); }
  static inline float sum_lanes(Float v) { return lowbit::cpu::sum_lanes(v); }
  static inline float first(Float v) { return _mm256_cvtss_f32(v); }
  // b in the lanes [first, last), else a.
  static inline Float keep(Float a, Float b, int64_t first, int64_t last) {
    const __m256i seen = _mm256_andnot_si256(lane_mask(first), lane_mask(last));
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(seen));
  }
};

}  // namespace

namespace avx2 {

void attention(const AttentionTask& task) { attend<Avx2>(task); }

int64_t attention_scratch(int64_t queries, int64_t heads, int64_t head_dim) {
  return Scratch::size(queries * heads, head_dim);
}

}  // namespace avx2
}  // namespace lowbit::cpu
