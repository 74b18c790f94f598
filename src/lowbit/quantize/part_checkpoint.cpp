#include "lowbit/quantize/part_checkpoint.h"

#include "lowbit/base/check.h"

namespace lowbit {

PartView::PartView(const PartFile& file, std::string format)
    : path_(file.path.string()), format_name_(std::move(format)) {
  for (StoredTensor& tensor : tensors_of(file.part, file.path)) {
    const std::string name = tensor.name;
    tensors_[name] = std::move(tensor);
  }
}

TokenizerSpec PartView::tokenizer() const { fail(ErrorKind::kIo, path_, ": no tokenizer"); }

const StoredTensor* PartView::find_stored(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

PartCheckpoint::PartCheckpoint(const PartFile& file, const CheckpointFormat& format,
                               Json quantization_config)
    : PartView(file, format.name),
      format_(format),
      quantization_config_(std::move(quantization_config)) {}

StoredTensor PartCheckpoint::tensor(const std::string& name) const {
  const StoredTensor* stored = find_stored(name);
  LOWBIT_CHECK_KIND(stored != nullptr, ErrorKind::kCorruptFile, path(), ": no tensor ", name);
  return *stored;
}

LinearWeight PartCheckpoint::load_linear(const std::string& module, int64_t rows,
                                         int64_t cols) const {
  const CheckpointFormat& format =
      format_.quantized(*this, module) ? format_ : checkpoint_format("safetensors");
  LinearWeight linear{module, format.read(*this, quantization_config_, module), {}};
  LOWBIT_CHECK_KIND(linear.weight.rows == rows && linear.weight.cols == cols,
                    ErrorKind::kCorruptFile, path(), ": ", module, " is ", linear.weight.rows,
                    " x ", linear.weight.cols, ", not ", rows, " x ", cols);
  if (contains(module + ".bias")) linear.bias = load_vector(module + ".bias", rows);
  return linear;
}

std::vector<float> PartCheckpoint::load_vector(const std::string& name, int64_t size) const {
  StoredTensor stored = tensor(name);
  LOWBIT_CHECK_KIND(stored.shape == std::vector<int64_t>{size}, ErrorKind::kCorruptFile, path(),
                    ": ", name, " does not have ", size, " elements");
  QTensor row;
  row.scheme = dense_scheme(stored.dtype == "BF16"  ? Code::kBF16
                            : stored.dtype == "F32" ? Code::kF32
                                                    : Code::kF16);
  row.rows = 1;
  row.cols = size;
  row.codes = stored.bytes;
  return dequantize(row);
}

}  // namespace lowbit
