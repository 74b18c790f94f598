// Loops that show what one core can do, by instruction set. The files that fill the tables
// (probes_<isa>.cpp) follow the rules of runtime/cpu/kernels.h.
#pragma once

#include <cstdint>

namespace lowbit::bench {

struct PeakProbe {
  const char* name;             // "int8 vpdpbusd"
  double operations;            // of one round: a multiply-add counts as two
  void (*run)(int64_t rounds);  // operands stay in registers
};

struct Probes {
  const char* isa;
  const PeakProbe* peaks;
  int peak_count;
  // Reads `bytes` (a multiple of 1024) at a 64-byte aligned address; the result depends on all.
  uint64_t (*read)(const uint8_t* data, int64_t bytes);
};

extern const Probes kAvx2Probes;
extern const Probes kAvxVnniProbes;     // 256-bit vpdpbusd; no read
extern const Probes kAvx512Probes;      // 512-bit fp32
extern const Probes kAvx512VnniProbes;  // no read
extern const Probes kAvx512Bf16Probes;  // no read
extern const Probes kAmxInt8Probes;     // no read; the caller has asked for tile state
extern const Probes kAmxBf16Probes;     // no read

}  // namespace lowbit::bench
