#include "lowbit/runtime/cuda/launch_watch.h"

#include <cxxabi.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/trace.h"
#include "lowbit/runtime/cuda/device.h"

namespace lowbit::cuda {

namespace {

std::atomic<bool> g_sync{false};

// "linear_stream<(Storage)0, 8, true>": without namespaces and parameters.
std::string name_of(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || mangled == nullptr) return "a kernel";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? demangled.get() : mangled;
  for (const char* space : {"(anonymous namespace)::", "lowbit::cuda::", "void "}) {
    for (size_t at; (at = name.find(space)) != std::string::npos;) {
      name.erase(at, std::string(space).size());
    }
  }
  int depth = 0;  // of template arguments, which may have parentheses too
  for (size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

// What was launched since tracing began, until the trace asks for it.
class Timeline {
 public:
  cudaEvent_t begin(cudaStream_t stream) {
    if (launches_.size() >= limits::kTraceSpans) return nullptr;
    if (base_ == nullptr) {
      LOWBIT_CUDA(cudaStreamSynchronize(stream));
      base_ = record(stream);
      LOWBIT_CUDA(cudaStreamSynchronize(stream));
      base_ns_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                     std::chrono::steady_clock::now().time_since_epoch())
                     .count();
      trace::before_finish([this] { collect(); });
    }
    return record(stream);
  }
  void end(const void* kernel, cudaEvent_t start, cudaStream_t stream) {
    launches_.push_back({kernel, start, record(stream)});
  }

 private:
  struct Launch {
    const void* kernel;
    cudaEvent_t start, end;
  };

  static cudaEvent_t record(cudaStream_t stream) {
    cudaEvent_t event;
    LOWBIT_CUDA(cudaEventCreate(&event));
    LOWBIT_CUDA(cudaEventRecord(event, stream));
    return event;
  }
  int64_t time_of(cudaEvent_t event) const {
    float milliseconds = 0;
    LOWBIT_CUDA(cudaEventElapsedTime(&milliseconds, base_, event));
    return base_ns_ + static_cast<int64_t>(double{milliseconds} * 1e6);
  }
  void collect() {
    for (const Launch& launch : launches_) {
      LOWBIT_CUDA(cudaEventSynchronize(launch.end));
      trace::add_span("cuda", trace::label(name_of(launch.kernel)), time_of(launch.start),
                      time_of(launch.end));
      cudaEventDestroy(launch.start);
      cudaEventDestroy(launch.end);
    }
    cudaEventDestroy(base_);
    base_ = nullptr;
    launches_.clear();
  }

  cudaEvent_t base_ = nullptr;
  int64_t base_ns_ = 0;
  std::vector<Launch> launches_;
};

// Launches come from one thread at a time.
Timeline& timeline() {
  static Timeline timeline;
  return timeline;
}

}  // namespace

void sync_each_kernel(bool on) { g_sync = on; }

bool watching() { return trace::on() || g_sync; }

LaunchWatch::LaunchWatch(const void* kernel, cudaStream_t stream)
    : kernel_(kernel), stream_(stream) {
  if (trace::on()) start_ = timeline().begin(stream);
}

void LaunchWatch::launched() {
  if (start_ != nullptr) timeline().end(kernel_, start_, stream_);
  if (!g_sync) return;
  const cudaError_t status = cudaStreamSynchronize(stream_);
  LOWBIT_CHECK_KIND(status == cudaSuccess, ErrorKind::kDevice, "kernel ", name_of(kernel_),
                    " failed: ", cudaGetErrorString(status));
}

}  // namespace lowbit::cuda
