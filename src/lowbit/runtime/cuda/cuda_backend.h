// The CUDA backend: one NVIDIA GPU, sm_80 and up.
//
// Activations are fp32 in device memory. Linears multiply them in 16 bits: fp16, or bf16 where the
// weight is bf16, each rounded once (Activations::kDefault) or as a value and its remainder (kF32).
// Every sum has one order (kernels.h), so that a token's result is the same alone or in a batch, in
// any chunks, and in every run on any GPU of the same architecture.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "lowbit/runtime/backend.h"

struct CUstream_st;

namespace lowbit {

// Throws kUnsupported if this build has no CUDA or for int8 activations, kDevice if there is no
// device that it can use.
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

// 10^9 bytes per second that the device can read from its memory, measured. Takes some ten
// milliseconds. Throws as make_cuda_backend.
double cuda_read_bandwidth();

// What the device's tensor cores multiply 16-bit floats at, by its data sheet: 10^9 operations per
// second; 0 if the device is not known. Throws as make_cuda_backend.
double cuda_tensor_peak();

// All that the device can do at best, measured: reading first. Takes some seconds. Throws as
// make_cuda_backend.
struct CudaLimit {
  const char* name;   // "bf16 wgmma"
  int64_t bytes = 0;  // working set; 0: arithmetic
  double rate = 0;    // 10^9 bytes or operations per second; a multiply-add is two operations
};
std::vector<CudaLimit> measure_cuda_limits();

// Seconds that `calls` to a cuda backend take on the device, sorted: they are recorded once, and
// the record is repeated. They must have been called before, and must not wait for the device.
std::vector<double> cuda_times(Backend& backend, const std::function<void()>& calls,
                               int repetitions);

// The stream on which a cuda backend enqueues its work: for kernels that work on its tensors
// between its own.
CUstream_st* cuda_stream(Backend& backend);

}  // namespace lowbit
