// Quantized weights times int8 activations with AVX-512 VNNI: 16 rows x up to 12 tokens at a time.
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/linear_vnni.h"
#include "lowbit/runtime/cpu/simd_avx512.h"

namespace lowbit::cpu::avx512 {

void linear_int8(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                 float* y, int64_t y_stride) {
  vnni_linear<Avx512>(w, x, tiles, tokens, y, y_stride);
}

}  // namespace lowbit::cpu::avx512
