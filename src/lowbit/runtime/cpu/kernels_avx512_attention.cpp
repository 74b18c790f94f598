// Attention with AVX-512: attention_tiles.h with 16 lanes.
#include "lowbit/runtime/cpu/kernels_avx512.h"
#include "lowbit/runtime/cpu/lanes16.h"

namespace lowbit::cpu::avx512 {

void attention(const AttentionTask& task) { attend<Lanes16>(task); }

}  // namespace lowbit::cpu::avx512
