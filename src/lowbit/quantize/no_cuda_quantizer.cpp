// Stands for the CUDA quantizers in builds without them.
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/runtime/cuda/cuda_backend.h"

namespace lowbit {

std::unique_ptr<QuantizeDevice> make_cuda_quantize_device(int threads) {
  make_cuda_backend({.threads = threads});  // throws, saying how to build with CUDA
  return nullptr;
}

}  // namespace lowbit
