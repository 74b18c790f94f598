#include "lowbit/base/check.h"
#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cpu/cpu_backend.h"
#include "lowbit/runtime/cuda/cuda_backend.h"
#include "lowbit/runtime/ref/ref_backend.h"

namespace lowbit {

namespace {

struct BackendEntry {
  const char* name;
  std::unique_ptr<Backend> (*make)(const BackendOptions& options);
};

constexpr BackendEntry kBackends[] = {
    {"cpu", make_cpu_backend},
    {"cuda", make_cuda_backend},
    {"ref", make_ref_backend},
};

}  // namespace

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const BackendEntry& entry : kBackends) names.emplace_back(entry.name);
  return names;
}

std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options) {
  LOWBIT_CHECK(options.threads >= 0 && options.threads <= 1024, "backend with ", options.threads,
               " threads; 0 takes all there are");
  std::string known;
  for (const BackendEntry& entry : kBackends) {
    if (name == entry.name) return entry.make(options);
    known += concat(known.empty() ? "" : ", ", entry.name);
  }
  fail(ErrorKind::kUnsupported, "there is no backend \"", name, "\"; there are: ", known);
}

}  // namespace lowbit
