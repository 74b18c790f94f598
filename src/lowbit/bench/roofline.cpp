#include "lowbit/bench/roofline.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/bench/probes.h"
#include "lowbit/report/plot.h"
#include "lowbit/report/table.h"
#include "lowbit/runtime/cpu/isa.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit {

namespace {

using bench::PeakProbe;
using bench::Probes;

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Best work per second over the readings. body(rounds) does `rounds` rounds of `work`.
double best_rate(const MachineOptions& options, double work,
                 const std::function<void(int64_t)>& body) {
  int64_t rounds = 1;
  while (seconds_of([&] { body(rounds); }) < options.seconds_per_reading && rounds < 1LL << 40) {
    rounds *= 2;
  }
  double best = 0;
  for (int i = 0; i < options.readings; ++i) {
    best = std::max(best, work * static_cast<double>(rounds) / seconds_of([&] { body(rounds); }));
  }
  return best / 1e9;
}

std::vector<const Probes*> runnable_probes() {
  const cpu::CpuFeatures features = cpu::detect_features();
  LOWBIT_CHECK_KIND(features.avx2_fma_f16c, ErrorKind::kUnsupported,
                    "the roofline needs a CPU with AVX2, FMA and F16C");
  std::vector<const Probes*> probes = {&bench::kAvx2Probes};
  if (features.avx_vnni) probes.push_back(&bench::kAvxVnniProbes);
  if (features.avx512) probes.push_back(&bench::kAvx512Probes);
  if (features.avx512 && features.avx512_vnni) probes.push_back(&bench::kAvx512VnniProbes);
  if (features.avx512 && features.avx512_bf16) probes.push_back(&bench::kAvx512Bf16Probes);
  if (features.amx_int8) probes.push_back(&bench::kAmxInt8Probes);
  if (features.amx_bf16) probes.push_back(&bench::kAmxBf16Probes);
  return probes;
}

MachineLimit measure_peak(const PeakProbe& probe, ThreadPool& pool, const MachineOptions& options) {
  constexpr int64_t kRounds = 1000;  // so that calls cost nothing
  MachineLimit limit{probe.name, 0, 0, 0};
  const double work = probe.operations * kRounds;
  limit.one = best_rate(options, work, [&](int64_t rounds) { probe.run(rounds * kRounds); });
  limit.all = best_rate(options, work * pool.size(), [&](int64_t rounds) {
    pool.parallel_for(pool.size(), [&](int64_t, int) { probe.run(rounds * kRounds); });
  });
  return limit;
}

// Each thread reads its own `bytes` over and over, a window at a time, so that one reading is short
// even where memory is large.
MachineLimit measure_read(const std::string& name, const Probes& probes, int64_t bytes,
                          ThreadPool& pool, const MachineOptions& options) {
  const int64_t window = std::clamp<int64_t>(bytes / 1024 * 1024, 1024, 4 << 20);
  const int64_t windows = std::max<int64_t>(1, bytes / window);
  const Tensor memory = allocate_host(pool.size(), windows * window, DType::kU8, Pages::kHuge);
  uint8_t* data = memory.as<uint8_t>();
  std::memset(data, 1, static_cast<size_t>(memory.bytes()));
  MachineLimit limit{name, memory.bytes(), 0, 0};
  volatile uint64_t sink = 0;
  std::vector<int64_t> next(static_cast<size_t>(pool.size()));
  const auto read = [&](int64_t index, int64_t rounds) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < rounds; ++i) {
      sum += probes.read(data + (index * windows + next[index]) * window, window);
      next[index] = (next[index] + 1) % windows;
    }
    if (sum == 1) sink = sum;  // never; keeps the loop
  };
  const double work = static_cast<double>(window);
  limit.one = best_rate(options, work, [&](int64_t rounds) { read(0, rounds); });
  limit.all = best_rate(options, work * pool.size(), [&](int64_t rounds) {
    pool.parallel_for(pool.size(), [&](int64_t index, int) { read(index, rounds); });
  });
  return limit;
}

int64_t cache_bytes(int level, int64_t fallback) {
  const long bytes = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? bytes : fallback;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown CPU";
}

// y = min(bandwidth * x, peak) between the ends of the picture.
PlotSeries roof(const std::string& name, double bandwidth, double peak, double from, double to) {
  PlotSeries series{name, {}, true, false, {}};
  const double ridge = peak / bandwidth;
  series.points = {{from, std::min(bandwidth * from, peak)},
                   {std::clamp(ridge, from, to), std::min(bandwidth * to, peak)},
                   {to, std::min(bandwidth * to, peak)}};
  return series;
}

}  // namespace

double Machine::peak(const std::string& type) const {
  double best = 0;
  for (const MachineLimit& limit : peaks) {
    if (limit.name.rfind(type, 0) == 0) best = std::max(best, limit.all);
  }
  return best;
}

Machine measure_machine(const MachineOptions& options) {
  LOWBIT_CHECK(options.seconds_per_reading > 0 && options.readings > 0,
               "roofline: ", options.readings, " readings of ", options.seconds_per_reading, " s");
  const std::vector<const Probes*> probes = runnable_probes();
  ThreadPool pool(options.threads);
  Machine machine;
  machine.cpu = cpu_name();
  machine.threads = pool.size();
  for (const std::string& isa : cpu::available_isas()) {
    machine.isas += (machine.isas.empty() ? "" : " ") + isa;
  }
  const Probes* reader = probes[0];
  for (const Probes* one : probes) {
    if (one->read != nullptr) reader = one;
  }
  const int64_t l2 = cache_bytes(2, 1 << 20), l3 = cache_bytes(3, 32 << 20);
  constexpr int64_t kMiB = 1 << 20;
  // Four times the L3 for all threads together, within what a small machine can spare.
  const int64_t dram = std::clamp(4 * l3, 256 * kMiB, 1024 * kMiB) / pool.size();
  // Several times the L2, but a fraction of an L3 that others may share.
  const int64_t shared = std::clamp(l3 / 4, 4 * kMiB, 32 * kMiB) / pool.size();
  machine.reads.push_back(measure_read("DRAM", *reader, dram, pool, options));
  machine.reads.push_back(measure_read("L3", *reader, shared, pool, options));
  machine.reads.push_back(measure_read("L2", *reader, l2 / 2, pool, options));
  for (const Probes* one : probes) {
    for (int i = 0; i < one->peak_count; ++i) {
      machine.peaks.push_back(measure_peak(one->peaks[i], pool, options));
    }
  }
  return machine;
}

double linear_intensity(int64_t rows, int64_t cols, double weight_bytes, int64_t tokens) {
  const double operations = 2.0 * static_cast<double>(rows) * static_cast<double>(cols);
  const double activations = 4.0 * static_cast<double>(rows + cols) * static_cast<double>(tokens);
  return operations * static_cast<double>(tokens) / (weight_bytes + activations);
}

std::vector<LinearShape> fused_linears(const ModelConfig& config) {
  const int64_t q = config.num_attention_heads * config.head_dim;
  const int64_t kv = config.num_key_value_heads * config.head_dim;
  return {{"qkv_proj", q + 2 * kv, config.hidden_size},
          {"o_proj", config.hidden_size, q},
          {"gate_up_proj", 2 * config.intermediate_size, config.hidden_size},
          {"down_proj", config.hidden_size, config.intermediate_size},
          {"lm_head", config.vocab_size, config.hidden_size}};
}

std::string roofline_svg(const Machine& machine, const std::vector<RooflinePoint>& points) {
  double low = 0.25, high = 1024;
  for (const RooflinePoint& point : points) {
    low = std::min(low, point.intensity / 2);
    high = std::max(high, point.intensity * 2);
  }
  Plot plot;
  plot.title = concat("Roofline: ", machine.cpu, ", ", machine.threads,
                      machine.threads == 1 ? " thread" : " threads");
  plot.x_label = "operations per byte";
  plot.y_label = "GOP/s";
  plot.log_x = plot.log_y = true;
  for (const MachineLimit& peak : machine.peaks) {
    plot.series.push_back(
        roof(concat(peak.name, " ", fixed(peak.all, 0)), machine.dram(), peak.all, low, high));
  }
  double top = 0;
  for (const MachineLimit& peak : machine.peaks) top = std::max(top, peak.all);
  for (const MachineLimit& read : machine.reads) {
    PlotSeries line =
        roof(concat(read.name, " ", fixed(read.all, 1), " GB/s"), read.all, top, low, high);
    line.points.pop_back();
    line.dashed = true;
    plot.series.push_back(line);
  }
  std::map<int64_t, PlotSeries> marks;
  for (const RooflinePoint& point : points) {
    PlotSeries& series = marks[point.tokens];
    series.name = concat(point.tokens, point.tokens == 1 ? " token" : " tokens");
    series.line = false;
    series.points.push_back({point.intensity, point.gops});
    series.labels.push_back(point.name);
  }
  for (const auto& [tokens, series] : marks) plot.series.push_back(series);
  return plot.svg();
}

OrderedJson to_json(const Machine& machine) {
  const auto list = [](const std::vector<MachineLimit>& limits, const char* unit) {
    OrderedJson out = OrderedJson::array();
    for (const MachineLimit& limit : limits) {
      OrderedJson one{{"name", limit.name}};
      if (limit.bytes > 0) one["bytes"] = limit.bytes;
      one[concat(unit, "_one")] = limit.one;
      one[concat(unit, "_all")] = limit.all;
      out.push_back(one);
    }
    return out;
  };
  OrderedJson out;
  out["cpu"] = machine.cpu;
  out["isas"] = machine.isas;
  out["threads"] = machine.threads;
  out["reads"] = list(machine.reads, "gb_s");
  out["peaks"] = list(machine.peaks, "gop_s");
  return out;
}

}  // namespace lowbit
