// Checked CUDA calls and device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace lowbit::cuda {

// Throws kDevice naming the call and CUDA's reason, kOutOfMemory if that is it.
void check(cudaError_t status, const char* call);
#define LOWBIT_CUDA(call) ::lowbit::cuda::check((call), #call)

// What is wrong with using the first device: none, an old driver, an architecture that this build
// has no code for; empty if nothing is.
std::string device_problem();

// Whether the first device has wgmma, and this build code for it (90a).
bool has_wgmma();

// Uninitialized device memory. Throws kOutOfMemory saying what was asked for, what is free, and
// which option needs less.
std::shared_ptr<void> allocate(size_t bytes, const std::string& what);

// Device memory that grows to the largest size asked for; the content is lost when it does.
class Scratch {
 public:
  explicit Scratch(const char* what) : what_(what) {}
  // Must not grow while a graph is captured: whoever captures has run the same work before.
  void* reserve(size_t bytes, cudaStream_t stream);

 private:
  const char* what_;
  std::shared_ptr<void> memory_;
  size_t bytes_ = 0;
};

}  // namespace lowbit::cuda
