// Calls of a step that become one kernel: products of one token, what normalizes their inputs, and
// what is made of their outputs. Every tensor that the calls write is written all the same, with
// the same bits, but for what a later one of them overwrites.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

// Holds calls back while they make a chain. Whoever launches anything else calls flush() before.
class ProductChain {
 public:
  // longest: products in one kernel, 0 to kMostLinks; arrivals: as ChainLaunch.
  void allow(int longest, uint64_t* arrivals) {
    longest_ = longest;
    launch_.arrivals = arrivals;
  }
  void set_device(int processors, int shared_bytes, cudaStream_t stream) {
    processors_ = processors;
    shared_bytes_ = shared_bytes;
    stream_ = stream;
  }
  // Runs the calls of a step; those that are taken are launched when it returns.
  void run(const std::function<void()>& calls);

  // Each returns whether it has taken the call: of one token.
  bool product(const PackedMatrix& matrix, const float* x, float* y);
  bool add_rms_norm(float* residual, const float* hidden, const float* weight, int cols, float eps,
                    float* out);
  bool silu_mul(const float* gate_up, int cols, float* out);

  // Launches what has been taken.
  void flush();

 private:
  ChainLink* last() { return launch_.count == 0 ? nullptr : &launch_.links[launch_.count - 1]; }
  void launch();
  void drop();

  bool open_ = false;
  int longest_ = 0, processors_ = 0, shared_bytes_ = 0;
  cudaStream_t stream_ = nullptr;
  ChainLaunch launch_;
  // A norm that has been taken and waits for its product.
  bool normed_ = false;
  ChainLink norm_;
  int norm_cols_ = 0;
};

}  // namespace lowbit::cuda
