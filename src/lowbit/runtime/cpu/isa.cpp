#include "lowbit/runtime/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cpu/kernels_avx512.h"

namespace lowbit::cpu {

namespace {

// Register state that the operating system saves: bit 1 XMM, bit 2 YMM, bits 5 to 7 AVX-512, bits
// 17 and 18 AMX.
uint64_t saved_state() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux hands out tile state on request; without it the first tile instruction is a SIGILL.
bool ask_for_tiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool bit(uint32_t word, int index) { return word >> index & 1; }

struct IsaEntry {
  const Kernels* kernels;
  bool (*runs)(const CpuFeatures& features);
};

bool runs_avx2(const CpuFeatures& features) { return features.avx2_fma_f16c; }
bool runs_avxvnni(const CpuFeatures& features) { return runs_avx2(features) && features.avx_vnni; }
bool runs_avx512(const CpuFeatures& features) {
  return runs_avx2(features) && features.avx512 && features.avx512_vnni;
}
bool runs_amx(const CpuFeatures& features) { return runs_avx512(features) && features.amx_int8; }

// What is not named here is AVX2's.

Kernels avxvnni_kernels() {
  Kernels kernels = kAvx2Kernels;
  kernels.isa = "avxvnni";
  kernels.linear_int8 = avxvnni::linear_int8;
  return kernels;
}

Kernels avx512_kernels() {
  Kernels kernels = kAvx2Kernels;
  kernels.isa = "avx512";
  kernels.linear_int8 = avx512::linear_int8;
  kernels.quantize_input = avx512::quantize_input;
  kernels.attention = avx512::attention;
  kernels.attention_rows = 96;
  kernels.silu_mul = avx512::silu_mul;
  return kernels;
}

Kernels amx_kernels() {
  Kernels kernels = avx512_kernels();
  kernels.isa = "amx";
  kernels.linear_int8 = amx::linear_int8;
  kernels.arrange_input = amx::arrange_input;
  if (detect_features().amx_bf16) {
    kernels.attention = amx::attention;
    kernels.attention_rows = 192;
    kernels.attention_scratch = amx::attention_scratch;
  }
  return kernels;
}

// Best first.
const std::vector<IsaEntry>& isa_table() {
  static const Kernels amx = amx_kernels(), avx512 = avx512_kernels(), avxvnni = avxvnni_kernels();
  static const std::vector<IsaEntry> table = {{&amx, runs_amx},
                                              {&avx512, runs_avx512},
                                              {&avxvnni, runs_avxvnni},
                                              {&kAvx2Kernels, runs_avx2}};
  return table;
}

}  // namespace

CpuFeatures detect_features() {
  CpuFeatures features;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return features;
  const bool fma = ecx & bit_FMA, f16c = ecx & bit_F16C, osxsave = ecx & bit_OSXSAVE;
  if (!osxsave || (saved_state() & 6) != 6) return features;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return features;
  features.avx2_fma_f16c = (ebx & bit_AVX2) && fma && f16c;
  const bool zmm_saved = (saved_state() & 0xe0) == 0xe0;
  features.avx512 = zmm_saved && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31);
  features.avx512_vnni = features.avx512 && bit(ecx, 11);
  const bool tiles_saved = (saved_state() >> 17 & 3) == 3;
  const bool tiles = features.avx512 && tiles_saved && bit(edx, 24) && ask_for_tiles();
  features.amx_int8 = tiles && bit(edx, 25);
  features.amx_bf16 = tiles && bit(edx, 22);
  if (!__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) return features;
  features.avx_vnni = features.avx2_fma_f16c && bit(eax, 4);
  features.avx512_bf16 = features.avx512 && bit(eax, 5);
  return features;
}

std::vector<std::string> available_isas() {
  const CpuFeatures features = detect_features();
  std::vector<std::string> names;
  for (const IsaEntry& entry : isa_table()) {
    if (entry.runs(features)) names.emplace_back(entry.kernels->isa);
  }
  return names;
}

const Kernels& select_kernels(const std::string& isa) {
  const CpuFeatures features = detect_features();
  std::string available, built;
  for (const IsaEntry& entry : isa_table()) {
    built += concat(built.empty() ? "" : ", ", entry.kernels->isa);
    if (!entry.runs(features)) continue;
    if (isa.empty() || isa == entry.kernels->isa) return *entry.kernels;
    available += concat(available.empty() ? "" : ", ", entry.kernels->isa);
  }
  LOWBIT_CHECK_KIND(!available.empty(), ErrorKind::kUnsupported,
                    "backend cpu needs a CPU with AVX2, FMA and F16C, and this one lacks them; use "
                    "--backend ref");
  fail(ErrorKind::kUnsupported, "instruction set \"", isa, "\" (LOWBIT_CPU_ISA) is not available; ",
       "this machine runs: ", available, "; this build has: ", built);
}

const GemmKernel& select_gemm(const std::string& isa) {
  static constexpr GemmKernel kPlain = {"plain", 4, 8, plain_gemm_tile};
  static constexpr GemmKernel kAvx2 = {"avx2", 6, 16, avx2::gemm_tile};
  static constexpr GemmKernel kAvx512 = {"avx512", 14, 32, avx512::gemm_tile};
  static constexpr GemmKernel kAmx = {"amx", 32, 32, amx::gemm_tile, amx::pack_a, amx::pack_b, 32};
  const CpuFeatures features = detect_features();
  if (isa.empty() && !runs_avx2(features)) return kPlain;
  const std::string name = select_kernels(isa).isa;
  if (name == "amx" && features.amx_bf16) return kAmx;
  return name == "amx" || name == "avx512" ? kAvx512 : kAvx2;
}

}  // namespace lowbit::cpu
