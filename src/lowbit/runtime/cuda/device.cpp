#include "lowbit/runtime/cuda/device.h"

#include "lowbit/base/check.h"

namespace lowbit::cuda {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report it again
  const ErrorKind kind =
      status == cudaErrorMemoryAllocation ? ErrorKind::kOutOfMemory : ErrorKind::kDevice;
  std::string name = call;
  if (const size_t end = name.find('('); end != std::string::npos) name.resize(end);
  fail(kind, "CUDA: ", name, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

std::string device_problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return "no NVIDIA driver is installed";
    return concat("the NVIDIA driver supports CUDA ", driver / 1000, ".", driver % 1000 / 10,
                  "; this build needs ", CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10,
                  ": update the driver");
  }
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    return concat("no CUDA device was found",
                  status == cudaSuccess ? "" : concat(": ", cudaGetErrorString(status)));
  }
  cudaDeviceProp properties;
  LOWBIT_CUDA(cudaGetDeviceProperties(&properties, 0));
  const int capability = properties.major * 10 + properties.minor;
  // LOWBIT_CUDA_ARCHITECTURES: "90a;80"; code runs on its own major version, "a" on its own only.
  const std::string all = LOWBIT_CUDA_ARCHITECTURES;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find(',', at), all.size());
    const std::string one = all.substr(at, end - at);
    const int built = std::stoi(one);
    if (one.back() == 'a' ? built == capability
                          : built / 10 == properties.major && built <= capability) {
      return "";
    }
    at = end + 1;
  }
  return concat(properties.name, " has compute capability ", properties.major, ".",
                properties.minor, "; this build is for ", all,
                ": configure with -DLOWBIT_CUDA_ARCHITECTURES=", capability);
}

bool has_wgmma() {
  int major = 0, minor = 0;
  LOWBIT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  LOWBIT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  return major == 9 && minor == 0 &&
         std::string(LOWBIT_CUDA_ARCHITECTURES).find("90a") != std::string::npos;
}

std::shared_ptr<void> allocate(size_t bytes, const std::string& what) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes == 0 ? 1 : bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    fail(ErrorKind::kOutOfMemory, "GPU out of memory: ", bytes >> 20, " MiB for ", what, ", ",
         free_bytes >> 20, " of ", total_bytes >> 20,
         " MiB are free; a shorter context (-c), a smaller batch (-b), --kv-cache-dtype fp8 or "
         "int4, or "
         "weights "
         "of fewer bits need less");
  }
  check(status, "cudaMalloc");
  return std::shared_ptr<void>(data, [](void* memory) { cudaFree(memory); });
}

void* Scratch::reserve(size_t bytes, cudaStream_t stream) {
  if (bytes > bytes_) {
    LOWBIT_CUDA(cudaStreamSynchronize(stream));
    memory_.reset();
    bytes_ = 0;
    memory_ = allocate(bytes, what_);
    bytes_ = bytes;
  }
  return memory_.get();
}

}  // namespace lowbit::cuda
