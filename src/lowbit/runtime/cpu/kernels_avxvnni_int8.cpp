// Quantized weights times int8 activations with AVX-VNNI: 16 rows x 3 tokens at a time.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_vnni.h"

namespace lowbit::cpu {
namespace {

// Fewer wait for memory, whatever multiplies them: AVX2's kernel asks for it early.
constexpr int64_t kPanelTokens = 4;

// One tile in a 256-bit register.
struct AvxVnni {
  static constexpr int kTiles = 1;
  static constexpr int kTokens = 3;  // 6 chains, and 6 sums of floats: 16 registers
  using Int = __m256i;
  using Float = __m256;

  static inline Int load_codes(const uint8_t* codes, int64_t) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
  }
  static inline Int int_zero() { return _mm256_setzero_si256(); }
  static inline Int ints(int value) { return _mm256_set1_epi32(value); }
  static inline Int bytes(char value) { return _mm256_set1_epi8(value); }
  static inline Int repeat(__m128i v) { return _mm256_broadcastsi128_si256(v); }
  static inline Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static inline Int bit_xor(Int a, Int b) { return _mm256_xor_si256(a, b); }
  static inline Int bit_or(Int a, Int b) { return _mm256_or_si256(a, b); }
  static inline Int shift_right(Int v, int by) { return _mm256_srli_epi16(v, by); }
  static inline Int shift_left(Int v, int by) { return _mm256_slli_epi16(v, by); }
  static inline Int look_up(Int table, Int at) { return _mm256_shuffle_epi8(table, at); }
  static inline Int subtract(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static inline Int add_bytes(Int a, Int b) { return _mm256_add_epi8(a, b); }
  // The lowest byte of each int, four times.
  static inline Int repeat_bytes(Int v) {
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                      0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)));
  }
  static inline Int load_ints(const void* at) {
    return _mm256_load_si256(static_cast<const Int*>(at));
  }
  static inline void store_ints(void* at, Int v) { _mm256_store_si256(static_cast<Int*>(at), v); }
  static inline Float load_floats(const float* at) { return _mm256_load_ps(at); }
  static inline void store_floats(float* at, Float v) { _mm256_store_ps(at, v); }
  static inline Int dot(Int sum, Int weights, Int x) {
    return _mm256_dpbusd_avx_epi32(sum, weights, x);
  }
  static inline Int broadcast_quad(const int8_t* x) {
    int32_t quad;
    __builtin_memcpy(&quad, x, 4);
    return _mm256_set1_epi32(quad);
  }

  static inline Float float_zero() { return _mm256_setzero_ps(); }
  static inline Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  static inline Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static inline Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static inline Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static inline Float broadcast(const float* at) { return _mm256_broadcast_ss(at); }

  static inline Float load_values(const GroupValues& from, int64_t at, int64_t) {
    switch (from.form) {
      case GroupValues::Form::kF16:
        return _mm256_cvtph_ps(_mm_load_si128(static_cast<const __m128i*>(from.values) + at));
      case GroupValues::Form::kF32:
        return _mm256_load_ps(static_cast<const float*>(from.values) + at * 8);
      case GroupValues::Form::kMultiples:
        break;
    }
    const auto* bytes = static_cast<const uint8_t*>(from.values) + at * 8;
    const Int multiples =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    return multiply(to_float(multiples),
                    _mm256_load_ps(from.supers + (at >> from.super_shift) * 8));
  }
  static inline Int load_zeros(const uint8_t* zeros, int64_t at, int64_t) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros + at * 8)));
  }
  static inline void store_rows(const PackedMatrix& w, int64_t tile, int64_t, Float sum, float* y) {
    if (w.bias != nullptr) sum = add(sum, _mm256_load_ps(w.bias + tile * 8));
    const int left = static_cast<int>(w.rows - tile * 8 < 8 ? w.rows - tile * 8 : 8);
    const Int lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(y + tile * 8, _mm256_cmpgt_epi32(ints(left), lanes), sum);
  }
};

}  // namespace

namespace avxvnni {

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  if (tokens.last - tokens.first < kPanelTokens) {
    return avx2::linear_int8(w, x, tiles, tokens, y, y_stride);
  }
  vnni_linear<AvxVnni>(w, x, tiles, tokens, y, y_stride);
}

}  // namespace avxvnni
}  // namespace lowbit::cpu
