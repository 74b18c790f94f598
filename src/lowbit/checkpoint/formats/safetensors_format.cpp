#include "lowbit/checkpoint/formats/safetensors_format.h"

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

QTensor read_dense(const TensorSource& source, const Json&, const std::string& module) {
  return dense_weight(source.tensor(module + ".weight"));
}

std::vector<StoredTensor> write_dense(const std::string& module, const QTensor& weight) {
  const char* dtype = weight.scheme.code == Code::kF32    ? "F32"
                      : weight.scheme.code == Code::kF16  ? "F16"
                      : weight.scheme.code == Code::kBF16 ? "BF16"
                                                          : nullptr;
  LOWBIT_CHECK(dtype != nullptr, module, ": format safetensors holds F32, F16 and BF16, not ",
               name_of(weight.scheme));
  return {{module + ".weight", dtype, {weight.rows, weight.cols}, weight.codes}};
}

}  // namespace

QTensor dense_weight(const StoredTensor& tensor) {
  QTensor weight;
  if (tensor.dtype == "F32") {
    weight.scheme = dense_scheme(Code::kF32);
  } else if (tensor.dtype == "F16") {
    weight.scheme = dense_scheme(Code::kF16);
  } else if (tensor.dtype == "BF16") {
    weight.scheme = dense_scheme(Code::kBF16);
  } else {
    fail(ErrorKind::kUnsupported, "tensor \"", tensor.name, "\" is ", tensor.dtype,
         "; lowbit reads F32, F16 and BF16 here, convert the model to one of them");
  }
  const size_t rank = tensor.shape.size();
  LOWBIT_CHECK_KIND(rank == 1 || rank == 2, ErrorKind::kCorruptFile, "tensor \"", tensor.name,
                    "\" has ", rank, " dimensions, needs 1 or 2");
  weight.rows = rank == 2 ? tensor.shape[0] : 1;
  weight.cols = tensor.shape.back();
  LOWBIT_CHECK_KIND(weight.rows > 0 && weight.cols > 0, ErrorKind::kCorruptFile, "tensor \"",
                    tensor.name, "\" is empty");
  weight.codes = tensor.bytes;
  // The format lets data begin anywhere; kernels want whole numbers at their natural alignment.
  if (reinterpret_cast<uintptr_t>(tensor.bytes.data) % 4 != 0) {
    weight.codes = Bytes::own({tensor.bytes.data, tensor.bytes.data + tensor.bytes.size});
  }
  return weight;
}

const CheckpointFormat kSafetensorsFormat = {
    .name = "safetensors",
    .detect = [](const Json& quantization_config) { return quantization_config.is_null(); },
    .quantized = [](const TensorSource&, const std::string&) { return false; },
    .read = read_dense,
    .write = write_dense,
    .quantization_config = [](const QuantScheme&,
                              const std::vector<std::string>&) { return Json(); },
};

}  // namespace lowbit
