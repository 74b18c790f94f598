#include "lowbit/quantize/gguf_part.h"

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "lowbit/checkpoint/gguf_names.h"

namespace lowbit {

GgufPart::GgufPart(const PartFile& file, RowOrder order)
    : PartView(file, "gguf"), order_(std::move(order)) {}

// By its name in Hugging Face's terms.
const StoredTensor* GgufPart::find(const std::string& name) const {
  const std::string stored = gguf_tensor_name(name);
  return find_stored(stored.empty() ? name : stored);
}

QTensor GgufPart::read(const std::string& name, std::vector<int64_t> shape,
                       const std::vector<int64_t>& order) const {
  const StoredTensor* stored = find(name);
  LOWBIT_CHECK_KIND(stored != nullptr && stored->shape == shape, ErrorKind::kCorruptFile, path(),
                    ": no tensor ", name, ", or one of another shape");
  const int64_t rows = shape.size() > 1 ? shape[0] : 1;
  Bytes bytes = stored->bytes;
  if (!order.empty()) {
    const size_t row_bytes = bytes.size / order.size();
    std::vector<uint8_t> ordered(bytes.size);
    for (size_t row = 0; row < order.size(); ++row) {
      std::memcpy(ordered.data() + row * row_bytes,
                  bytes.data + static_cast<size_t>(order[row]) * row_bytes, row_bytes);
    }
    bytes = Bytes::own(std::move(ordered));
  }
  return ggml_type(stored->dtype)->read(std::move(bytes), rows, shape.back());
}

LinearWeight GgufPart::load_linear(const std::string& module, int64_t rows, int64_t cols) const {
  LinearWeight linear{module, read(module + ".weight", {rows, cols}, order_(module, rows)), {}};
  if (find(module + ".bias") != nullptr) linear.bias = load_vector(module + ".bias", rows);
  return linear;
}

std::vector<float> GgufPart::load_vector(const std::string& name, int64_t size) const {
  const std::string module = name.substr(0, name.rfind('.'));
  const bool bias = name.ends_with(".bias");
  return dequantize(read(name, {size}, bias ? order_(module, size) : std::vector<int64_t>()));
}

}  // namespace lowbit
