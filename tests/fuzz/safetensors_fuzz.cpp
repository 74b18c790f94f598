// A whole safetensors file: the header, then every tensor's first rows as a dense weight.
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/safetensors_format.h"
#include "lowbit/checkpoint/safetensors.h"

namespace {

void read_all(std::span<const uint8_t> file) {
  const lowbit::SafetensorsHeader header = lowbit::parse_safetensors(file, "fuzz");
  for (const auto& [name, entry] : header.tensors) {
    const auto bytes =
        lowbit::Bytes::view(nullptr, file.data() + entry.begin, entry.end - entry.begin);
    try {
      const lowbit::QTensor weight = lowbit::dense_weight({name, entry.dtype, entry.shape, bytes});
      lowbit::validate(weight, name);
      if (weight.cols > 4096) continue;
      std::vector<float> row(static_cast<size_t>(weight.cols));
      lowbit::dequantize_row(weight, 0, row.data());
      lowbit::dequantize_row(weight, weight.rows - 1, row.data());
    } catch (const lowbit::Error&) {
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    read_all({data, size});
  } catch (const lowbit::Error&) {
  }
  return 0;
}
