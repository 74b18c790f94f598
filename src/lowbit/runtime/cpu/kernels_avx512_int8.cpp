// Quantized weights times int8 activations with AVX-512 VNNI: 32 rows x 6 tokens at a time.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_vnni.h"
#include "lowbit/runtime/cpu/simd_avx512.h"

namespace lowbit::cpu::avx512 {

namespace {
// Fewer wait for memory, whatever multiplies them: AVX2's kernel asks for it early.
constexpr int64_t kPanelTokens = 4;
}  // namespace

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  if (tokens.last - tokens.first < kPanelTokens) {
    return avx2::linear_int8(w, x, tiles, tokens, y, y_stride);
  }
  vnni_linear<Avx512>(w, x, tiles, tokens, y, y_stride);
}

}  // namespace lowbit::cpu::avx512
