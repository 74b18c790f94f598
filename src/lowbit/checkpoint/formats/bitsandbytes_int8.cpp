#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/bitsandbytes.h"
#include "lowbit/checkpoint/formats/fields.h"

namespace lowbit::bitsandbytes {

bool is_int8(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".SCB");
}

QTensor read_int8(const TensorSource& source, const std::string& module) {
  const StoredTensor codes = typed_tensor(source, module + ".weight", "I8");
  LOWBIT_CHECK_KIND(codes.shape.size() == 2, ErrorKind::kCorruptFile, codes.name, " has shape ",
                    shape_text(codes.shape), ", must be a matrix");
  const std::string layout = module + ".weight_format";
  if (source.contains(layout)) {
    const StoredTensor tensor = typed_tensor(source, layout, "U8");
    LOWBIT_CHECK_KIND(tensor.bytes.size == 1 && tensor.bytes.data[0] == 0, ErrorKind::kUnsupported,
                      layout, " is not 0 (rows): lowbit does not read the old layouts for GPUs; ",
                      "load and save the model with bitsandbytes 0.43 or later");
  }
  QTensor weight;
  weight.rows = codes.shape[0];
  weight.cols = codes.shape[1];
  expect_extents(codes.name, weight.rows, weight.cols);
  weight.scheme = int_scheme(8, weight.cols);
  const StoredTensor absmax = typed_tensor(source, module + ".SCB", "F32");
  expect_shape(absmax, {weight.rows});
  weight.scales = floats_of(absmax);
  for (float& scale : weight.scales) scale /= 127.f;
  std::vector<uint8_t> bytes = bytes_of(codes);
  for (uint8_t& code : bytes) code ^= 0x80;  // two's complement to an offset of 128
  weight.codes = Bytes::own(std::move(bytes));
  validate(weight, module);
  return weight;
}

std::vector<StoredTensor> write_int8(const std::string& module, const QTensor& weight) {
  LOWBIT_CHECK(weight.scheme == int_scheme(8, weight.cols) && weight.input_order.empty(), module,
               ": bitsandbytes holds nf4, fp4 and symmetric 8-bit codes with one scale a row, not ",
               name_of(weight.scheme));
  std::vector<float> absmax = weight.scales;
  for (float& value : absmax) {
    const float scale = value;
    value *= 127.f;
    // The neighbour that divides back to the scale, if there is one.
    for (const float near : {std::nextafter(value, 0.f), std::nextafter(value, HUGE_VALF)}) {
      if (value / 127.f != scale && near / 127.f == scale) value = near;
    }
    LOWBIT_CHECK(std::isfinite(value), module, ": a scale of ", scale, " is too large");
  }
  std::vector<uint8_t> bytes(weight.codes.data, weight.codes.data + weight.codes.size);
  for (uint8_t& code : bytes) code ^= 0x80;
  return {stored_bytes(module + ".weight", "I8", {weight.rows, weight.cols}, std::move(bytes)),
          stored_floats(module + ".SCB", {weight.rows}, absmax),
          stored_bytes(module + ".weight_format", "U8", {}, {0})};
}

}  // namespace lowbit::bitsandbytes
