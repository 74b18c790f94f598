// What this machine can do at best: read bandwidth and arithmetic peaks, measured; and the roofline
// (Williams et al. 2009) that they make, with a model's layers on it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/model/config.h"

namespace lowbit {

// Best readings, 10^9 bytes or operations per second; a multiply-add is two operations.
struct MachineLimit {
  std::string name;   // "DRAM", "int8 vpdpbusd (AVX-512 VNNI)"
  int64_t bytes = 0;  // working set of all threads; 0: arithmetic
  double one = 0;     // one thread
  double all = 0;     // all threads
};

struct Machine {
  std::string cpu;   // "AMD EPYC"
  std::string isas;  // "avx512 avx2"
  int threads = 1;
  std::vector<MachineLimit> reads;  // DRAM, L3, L2
  std::vector<MachineLimit> peaks;

  // Largest `all` of the peaks whose name starts with `type` ("int8", "bf16", "fp32"), else 0.
  double peak(const std::string& type) const;
  double dram() const { return reads.empty() ? 0 : reads[0].all; }
};

struct MachineOptions {
  int threads = 0;  // 0: all available
  // Many short readings of each kind, so that the best is free of what else the machine does.
  double seconds_per_reading = 0.003;
  int readings = 100;
};
// Takes some seconds. Throws kUnsupported without AVX2.
Machine measure_machine(const MachineOptions& options = {});

// A layer as a point: operations per byte moved, and operations per second (10^9).
struct RooflinePoint {
  std::string name;  // "down_proj 576 x 1536, 512 tokens"
  int64_t tokens = 1;
  double intensity = 0;
  double gops = 0;
};

// One pass of `tokens` through a rows x cols linear of `weight_bytes`: fp32 in and out, weights
// once.
double linear_intensity(int64_t rows, int64_t cols, double weight_bytes, int64_t tokens);

// The linears of a model as it multiplies them: fused q,k,v; o; fused gate,up; down; head.
struct LinearShape {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
};
std::vector<LinearShape> fused_linears(const ModelConfig& config);

std::string roofline_svg(const Machine& machine, const std::vector<RooflinePoint>& points);
OrderedJson to_json(const Machine& machine);

}  // namespace lowbit
