// The AVX2 table and its elementwise kernels.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

// Calls body(i, mask) for each 8 of [0, count); all lanes of mask are set but in a last, short one.
template <typename Body>
inline void for_lanes(int64_t count, const Body& body) {
  const __m256i all = _mm256_set1_epi32(-1);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) body(i, all);
  if (i < count) body(i, lane_mask(count - i));
}

inline __m256 normalizer(__m256 squares, int64_t count, float eps) {
  const float mean = sum_lanes(squares) / static_cast<float>(count) + eps;
  const __m128 root = _mm_sqrt_ss(_mm_set_ss(mean));
  return _mm256_set1_ps(1.f / _mm_cvtss_f32(root));
}

void rms_norm(const float* x, const float* weight, int64_t count, float eps, float* out) {
  __m256 squares = _mm256_setzero_ps();
  for_lanes(count, [&](int64_t i, __m256i mask) {
    const __m256 v = _mm256_maskload_ps(x + i, mask);
    squares = _mm256_fmadd_ps(v, v, squares);
  });
  const __m256 scale = normalizer(squares, count, eps);
  for_lanes(count, [&](int64_t i, __m256i mask) {
    const __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + i, mask), scale);
    _mm256_maskstore_ps(out + i, mask, _mm256_mul_ps(v, _mm256_maskload_ps(weight + i, mask)));
  });
}

void add_rms_norm(float* residual, const float* hidden, const float* weight, int64_t count,
                  float eps, float* out) {
  for_lanes(count, [&](int64_t i, __m256i mask) {
    const __m256 sum =
        _mm256_add_ps(_mm256_maskload_ps(residual + i, mask), _mm256_maskload_ps(hidden + i, mask));
    _mm256_maskstore_ps(residual + i, mask, sum);
  });
  rms_norm(residual, weight, count, eps, out);
}

void rotate(float* head, const float* cos, const float* sin, int64_t half) {
  for_lanes(half, [&](int64_t i, __m256i mask) {
    const __m256 a = _mm256_maskload_ps(head + i, mask);
    const __m256 b = _mm256_maskload_ps(head + half + i, mask);
    const __m256 c = _mm256_maskload_ps(cos + i, mask), s = _mm256_maskload_ps(sin + i, mask);
    _mm256_maskstore_ps(head + i, mask, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_maskstore_ps(head + half + i, mask, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  });
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  const __m256 one = _mm256_set1_ps(1.f), sign = _mm256_set1_ps(-0.f);
  for_lanes(count, [&](int64_t i, __m256i mask) {
    const __m256 g = _mm256_maskload_ps(gate + i, mask);
    const __m256 below = _mm256_add_ps(one, exp8(_mm256_xor_ps(g, sign)));
    const __m256 u = _mm256_maskload_ps(up + i, mask);
    _mm256_maskstore_ps(out + i, mask, _mm256_mul_ps(_mm256_div_ps(g, below), u));
  });
}

void store_f16(const float* x, int64_t count, uint16_t* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < count; ++i) {
    const __m128i half = _mm_cvtps_ph(_mm_set_ss(x[i]), _MM_FROUND_TO_NEAREST_INT);
    out[i] = static_cast<uint16_t>(_mm_extract_epi16(half, 0));
  }
}

}  // namespace

extern const Kernels kAvx2Kernels = {
    .isa = "avx2",
    .linear_f32 = avx2::linear_f32,
    .linear_int8 = avx2::linear_int8,
    .unpack_tile = avx2::unpack_tile,
    .quantize_input = avx2::quantize_input,
    .attention = avx2::attention,
    .attention_scratch = avx2::attention_scratch,
    .add_rms_norm = add_rms_norm,
    .rms_norm = rms_norm,
    .rotate = rotate,
    .silu_mul = silu_mul,
    .store_f16 = store_f16,
};

}  // namespace lowbit::cpu
