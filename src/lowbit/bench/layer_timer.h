// How long linears take on this machine, for whoever chooses among schemes.
#pragma once

#include <cstdint>
#include <functional>

#include "lowbit/tensor/scheme.h"

namespace lowbit {

// Seconds that the cpu backend takes for one token, weights not in cache, as `bench kernels`
// measures them: the fastest of many, which other programs disturb least. Each call takes a part of
// a second. The result may be called as long as one likes, by one thread at a time.
std::function<double(int64_t rows, int64_t cols, const QuantScheme& scheme)> layer_timer(
    int threads);

}  // namespace lowbit
