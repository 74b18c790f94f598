#include "lowbit/bench/layer_timer.h"

#include <memory>

#include "lowbit/bench/kernels.h"

namespace lowbit {

std::function<double(int64_t rows, int64_t cols, const QuantScheme& scheme)> layer_timer(
    int threads) {
  const std::shared_ptr<Backend> backend = make_backend("cpu", {.threads = threads});
  return [backend](int64_t rows, int64_t cols, const QuantScheme& scheme) {
    constexpr double kSeconds = 0.03;
    // Only tells which amount of weights no cache holds: a fourth of this. What the machine could
    // do at best does not matter here.
    Machine machine;
    machine.reads = {{"DRAM", int64_t{128} << 20}};
    return measure_layer(*backend, machine, {"layer", rows, cols}, scheme, 1, kSeconds).fastest;
  };
}

}  // namespace lowbit
