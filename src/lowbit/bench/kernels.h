// Speed and error of every linear kernel: rows of the kernel table x shapes of known models x
// numbers of tokens, with random weights that no cache holds.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lowbit/bench/roofline.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

struct KernelBenchOptions {
  std::string only;  // rows whose name contains this; empty: all
  std::vector<int64_t> tokens = {1, 4, 16, 64, 512};
  double seconds = 0.2;  // of each row
};

struct KernelRow {
  std::string name;    // "smollm2 qkv_proj w4_g32"
  std::string kernel;  // "q4_avx2_int8"
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t tokens = 0;
  double weight_bytes = 0;
  double seconds = 0;  // median
  double fastest = 0;  // seconds
  double share = 0;    // of the machine's limit (read bandwidth or arithmetic) at the median
  double error = 0;    // Frobenius, relative to the product with dequantize()

  double gb_s() const { return weight_bytes / seconds / 1e9; }
  double gop_s() const {
    return 2e-9 * static_cast<double>(rows) * static_cast<double>(cols) *
           static_cast<double>(tokens) / seconds;
  }
};

// The limits of a GPU: reading measured, arithmetic by its data sheet; with `all`, arithmetic and
// caches measured too. Throws kDevice without one.
Machine measure_cuda_machine(bool all = false);

// Calls done(row) after each row. The backend must be "cpu", "ref" or "cuda" (whose times are the
// device's, inputs rounded and launches included, replayed from one recording). Throws
// kInvalidArgument if nothing matches `only`, with what there is.
void measure_kernels(Backend& backend, const Machine& machine, const KernelBenchOptions& options,
                     const std::function<void(const KernelRow&)>& done);

// One layer; its name is the shape's and the scheme's.
KernelRow measure_layer(Backend& backend, const Machine& machine, const LinearShape& shape,
                        const QuantScheme& scheme, int64_t tokens, double seconds = 0.2);

// The arithmetic peak that bounds a kernel of that name, 10^9 operations per second.
double peak_of(const Machine& machine, const std::string& kernel);

}  // namespace lowbit
