// Speed of many requests at once on an engine in this process, as `vllm bench throughput`
// measures it: no end token cuts an answer short.
#pragma once

#include <cstdint>
#include <vector>

#include "lowbit/bench/load_times.h"
#include "lowbit/bench/workload.h"
#include "lowbit/engine/engine.h"

namespace lowbit {

struct ThroughputOptions {
  double request_rate = 0;  // arrivals per second, Poisson; 0: all at the start
  uint64_t seed = 0;        // of arrivals and draws
  SamplingParams sampling = {};
};

struct ThroughputResult {
  LoadSummary load;
  EngineStats stats;
};

// Runs on this thread; the engine must be fresh. Throws kInvalidArgument if the engine cannot hold
// such requests; kDevice if the forward pass fails.
ThroughputResult measure_throughput(Engine& engine, const std::vector<WorkloadRequest>& requests,
                                    const ThroughputOptions& options = {});

}  // namespace lowbit
