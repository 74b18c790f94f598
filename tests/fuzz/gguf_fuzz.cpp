// A whole GGUF file: the container, the config made of its metadata, every tensor's rows.
#include "lowbit/base/check.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "lowbit/checkpoint/gguf.h"
#include "lowbit/checkpoint/gguf_config.h"
#include "lowbit/checkpoint/gguf_names.h"

namespace {

void read_tensor(std::span<const uint8_t> file, const lowbit::GgufTensor& tensor) {
  lowbit::gguf_tensor_name(lowbit::hf_tensor_name(tensor.name));
  const lowbit::GgmlType* type = lowbit::ggml_type(tensor.type);
  if (type->read == nullptr || tensor.ne[0] > 4096) return;
  int64_t rows = 1;
  for (size_t i = 1; i < tensor.ne.size(); ++i) rows *= tensor.ne[i];
  const auto bytes = lowbit::Bytes::view(nullptr, file.data() + tensor.begin, tensor.size);
  const lowbit::QTensor weight = type->read(bytes, rows, tensor.ne[0]);
  std::vector<float> row(static_cast<size_t>(weight.cols));
  lowbit::dequantize_row(weight, 0, row.data());
  lowbit::dequantize_row(weight, rows - 1, row.data());
  lowbit::validate(weight, tensor.name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> file(data, size);
  try {
    const lowbit::GgufContents contents = lowbit::parse_gguf(file, "fuzz");
    lowbit::GgufFacts facts;
    for (const lowbit::GgufTensor& tensor : contents.tensors) {
      try {
        read_tensor(file, tensor);
      } catch (const lowbit::Error&) {
      }
    }
    facts.rope_factors = contents.metadata.get_numbers("factors");
    lowbit::gguf_config(contents.metadata, facts);
  } catch (const lowbit::Error&) {
  }
  return 0;
}
