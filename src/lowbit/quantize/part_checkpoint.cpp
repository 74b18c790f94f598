#include "lowbit/quantize/part_checkpoint.h"

#include "lowbit/base/check.h"

namespace lowbit {

PartCheckpoint::PartCheckpoint(const PartFile& file, const CheckpointFormat& format,
                               Json quantization_config)
    : path_(file.path.string()),
      format_name_(format.name),
      format_(format),
      quantization_config_(std::move(quantization_config)) {
  for (StoredTensor& tensor : tensors_of(file.part, file.path)) {
    const std::string name = tensor.name;
    tensors_[name] = std::move(tensor);
  }
}

TokenizerSpec PartCheckpoint::tokenizer() const { fail(ErrorKind::kIo, path_, ": no tokenizer"); }

StoredTensor PartCheckpoint::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  LOWBIT_CHECK_KIND(it != tensors_.end(), ErrorKind::kCorruptFile, path_, ": no tensor ", name);
  return it->second;
}

LinearWeight PartCheckpoint::load_linear(const std::string& module, int64_t rows,
                                         int64_t cols) const {
  const CheckpointFormat& format =
      format_.quantized(*this, module) ? format_ : checkpoint_format("safetensors");
  LinearWeight linear{module, format.read(*this, quantization_config_, module), {}};
  LOWBIT_CHECK_KIND(linear.weight.rows == rows && linear.weight.cols == cols,
                    ErrorKind::kCorruptFile, path_, ": ", module, " is ", linear.weight.rows, " x ",
                    linear.weight.cols, ", not ", rows, " x ", cols);
  if (contains(module + ".bias")) linear.bias = load_vector(module + ".bias", rows);
  return linear;
}

std::vector<float> PartCheckpoint::load_vector(const std::string& name, int64_t size) const {
  StoredTensor stored = tensor(name);
  LOWBIT_CHECK_KIND(stored.shape == std::vector<int64_t>{size}, ErrorKind::kCorruptFile, path_,
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
