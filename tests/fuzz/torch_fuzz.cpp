// A torch.save() file: the ZIP archive, its pickle, and every byte of the tensors found.
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/torch_file.h"
#include "lowbit/checkpoint/torch_pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  unsigned sum = 0;
  try {
    for (const auto& [name, tensor] : lowbit::parse_torch_file({data, size}, nullptr, "fuzz")) {
      for (size_t i = 0; i < tensor.bytes.size; ++i) sum += tensor.bytes.data[i];
    }
  } catch (const lowbit::Error&) {
  }
  try {
    lowbit::parse_torch_pickle({data, size}, "fuzz");
  } catch (const lowbit::Error&) {
  }
  return sum == 0xdeadbeef ? 1 : 0;
}
