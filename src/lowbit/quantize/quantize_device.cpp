#include "lowbit/quantize/quantize_device.h"

#include "lowbit/base/check.h"

namespace lowbit {

std::unique_ptr<QuantizeDevice> make_quantize_device(const std::string& name, int threads) {
  if (name == "cuda") return make_cuda_quantize_device(threads);
  LOWBIT_CHECK_KIND(name == "cpu", ErrorKind::kUnsupported, "no backend \"", name,
                    "\" to quantize on; there are: cpu, cuda");
  return nullptr;
}

}  // namespace lowbit
