// /metrics: the engine's and the server's counters in Prometheus' text format, under the names that
// dashboards for vLLM look for.
#pragma once

#include <string>

#include "lowbit/engine/engine_stats.h"
#include "lowbit/server/router.h"

namespace lowbit::server {

struct ServerGauges {
  size_t connections = 0;
  size_t open_requests = 0;
  bool ready = false;
};

// stats may be null while the model is being loaded.
std::string metrics_text(const EngineStats* stats, const std::string& model,
                         const Router::Counts& counts, const ServerGauges& gauges);

}  // namespace lowbit::server
