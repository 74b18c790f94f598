// The AVX2 table and its elementwise kernels.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

// Loads and stores of 8 lanes, or of the first `count`: masked stores are slow on AMD, so only the
// last, short piece of a row uses them.
struct Whole {
  __m256 load(const float* at) const { return _mm256_loadu_ps(at); }
  void store(float* at, __m256 v) const { _mm256_storeu_ps(at, v); }
};
struct Part {
  __m256i mask;
  __m256 load(const float* at) const { return _mm256_maskload_ps(at, mask); }
  void store(float* at, __m256 v) const { _mm256_maskstore_ps(at, mask, v); }
};

// Calls body(i, lanes) for each 8 of [0, count).
template <typename Body>
inline void for_lanes(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) body(i, Whole{});
  if (i < count) body(i, Part{lane_mask(count - i)});
}

// out = x * weight / sqrt(squares / count + eps)
inline void normalize(const float* x, const float* weight, __m256 squares, int64_t count, float eps,
                      float* out) {
  const float mean = sum_lanes(squares) / static_cast<float>(count) + eps;
  const __m256 scale = _mm256_set1_ps(1.f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean))));
  for_lanes(count, [&](int64_t i, auto lanes) {
    const __m256 v = _mm256_mul_ps(lanes.load(x + i), scale);
    lanes.store(out + i, _mm256_mul_ps(v, lanes.load(weight + i)));
  });
}

void rms_norm(const float* x, const float* weight, int64_t count, float eps, float* out) {
  __m256 squares = _mm256_setzero_ps();
  for_lanes(count, [&](int64_t i, auto lanes) {
    const __m256 v = lanes.load(x + i);
    squares = _mm256_fmadd_ps(v, v, squares);
  });
  normalize(x, weight, squares, count, eps, out);
}

void add_rms_norm(float* residual, const float* hidden, const float* weight, int64_t count,
                  float eps, float* out) {
  __m256 squares = _mm256_setzero_ps();
  for_lanes(count, [&](int64_t i, auto lanes) {
    const __m256 v = _mm256_add_ps(lanes.load(residual + i), lanes.load(hidden + i));
    lanes.store(residual + i, v);
    squares = _mm256_fmadd_ps(v, v, squares);
  });
  normalize(residual, weight, squares, count, eps, out);
}

void rotate(float* head, const float* cos, const float* sin, int64_t half) {
  for_lanes(half, [&](int64_t i, auto lanes) {
    const __m256 a = lanes.load(head + i), b = lanes.load(head + half + i);
    const __m256 c = lanes.load(cos + i), s = lanes.load(sin + i);
    lanes.store(head + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    lanes.store(head + half + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  });
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  const __m256 one = _mm256_set1_ps(1.f), sign = _mm256_set1_ps(-0.f);
  for_lanes(count, [&](int64_t i, auto lanes) {
    const __m256 g = lanes.load(gate + i);
    const __m256 below = _mm256_add_ps(one, exp8(_mm256_xor_ps(g, sign)));
    lanes.store(out + i, _mm256_mul_ps(_mm256_div_ps(g, below), lanes.load(up + i)));
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
    .attention_rows = 48,
    .attention_scratch = avx2::attention_scratch,
    .add_rms_norm = add_rms_norm,
    .rms_norm = rms_norm,
    .rotate = rotate,
    .silu_mul = silu_mul,
    .store_f16 = store_f16,
};

}  // namespace lowbit::cpu
