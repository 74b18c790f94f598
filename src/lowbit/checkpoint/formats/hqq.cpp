#include "lowbit/checkpoint/formats/hqq.h"

#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr const char* kFloatTypes = "F32 BF16 F16";

struct Packing {
  const char* name;
  int bits;   // of a code
  int parts;  // rows in one element
  int bytes;  // of an element

  // Where part `part` of an element lies.
  int shift(int part) const { return (parts - 1 - part) * bits; }
  int64_t stored_rows(int64_t rows) const { return (rows + parts - 1) / parts; }
};

constexpr Packing kPackings[] = {
    {"8bit_u8", 8, 1, 1}, {"4bit_u8", 4, 2, 1}, {"3bit_32", 3, 10, 4},
    {"2bit_u8", 2, 4, 1}, {"1bit_u8", 1, 8, 1},
};

bool detect(const Json& config) { return has_method(config, "hqq"); }

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".W_q");
}

// One integer, stored as a tensor of any integer type; `fallback` if there is none.
int64_t stored_int(const TensorSource& source, const std::string& name, int64_t fallback) {
  if (!source.contains(name)) return fallback;
  const StoredTensor tensor = typed_tensor(source, name, "I32 I64 U8");
  const auto size = static_cast<size_t>(safetensors_bits(tensor.dtype) / 8);
  LOWBIT_CHECK_KIND(tensor.bytes.size == size, ErrorKind::kCorruptFile, name, " has shape ",
                    shape_text(tensor.shape), ", must be one number");
  if (tensor.dtype == "I64") return int64s_of(tensor)[0];
  return tensor.dtype == "I32" ? int32s_of(tensor)[0] : tensor.bytes.data[0];
}

std::string stored_text(const TensorSource& source, const std::string& name) {
  if (!source.contains(name)) return "";
  const StoredTensor tensor = typed_tensor(source, name, "U8");
  LOWBIT_CHECK_KIND(tensor.bytes.size <= 64, ErrorKind::kCorruptFile, name, " has ",
                    tensor.bytes.size, " characters");
  const std::vector<uint8_t> text = bytes_of(tensor);
  return {text.begin(), text.end()};
}

const Packing& packing_of(const TensorSource& source, const std::string& module, int64_t bits) {
  const std::string name = stored_text(source, module + ".packing");
  for (const Packing& packing : kPackings) {
    if (name.empty() ? packing.bits == bits : name == packing.name) return packing;
  }
  fail(ErrorKind::kUnsupported, module, ": HQQ packing \"", name, "\" of ", bits,
       " bits; lowbit reads 8bit_u8, 4bit_u8, 3bit_32, 2bit_u8, 1bit_u8");
}

void check_supported(const TensorSource& source, const std::string& module) {
  const int64_t axis = stored_int(source, module + ".axis", 1);
  LOWBIT_CHECK_KIND(axis == 1, ErrorKind::kUnsupported, module, ": HQQ along axis ", axis,
                    ", whose groups lie across rows; lowbit reads axis 1, quantize it with axis=1");
  for (const char* flag : {".quant_scale", ".quant_zero", ".view_as_float"}) {
    LOWBIT_CHECK_KIND(stored_int(source, module + flag, 0) == 0, ErrorKind::kUnsupported, module,
                      ": HQQ with ", flag + 1, "; lowbit reads it without");
  }
  LOWBIT_CHECK_KIND(stored_int(source, module + ".channel_wise", 1) == 1, ErrorKind::kUnsupported,
                    module, ": HQQ without channel_wise");
}

struct Stored {
  Packing packing = kPackings[0];
  StoredTensor codes;
  int64_t rows = 0, cols = 0, group_size = 0;
  int64_t groups() const { return rows * cols / group_size; }  // rows of the packed matrix
};

Stored open_module(const TensorSource& source, const std::string& module) {
  check_supported(source, module);
  Stored stored;
  const StoredTensor shape = typed_tensor(source, module + ".shape", "I64");
  expect_shape(shape, {2});
  const std::vector<int64_t> extents = int64s_of(shape);
  expect_extents(shape.name, extents[0], extents[1]);
  stored.rows = extents[0], stored.cols = extents[1];
  const int64_t bits = stored_int(source, module + ".nbits", 0);
  stored.packing = packing_of(source, module, bits);
  LOWBIT_CHECK_KIND(bits == stored.packing.bits || (stored.packing.bits == 8 && bits <= 8),
                    ErrorKind::kCorruptFile, module, ".nbits is ", bits, ", packing is ",
                    stored.packing.name);
  stored.group_size = stored_int(source, module + ".group_size", stored.cols);
  LOWBIT_CHECK_KIND(stored.group_size > 0 && stored.cols % stored.group_size == 0,
                    ErrorKind::kUnsupported, module, ": HQQ groups of ", stored.group_size,
                    " do not divide the ", stored.cols, " columns");
  stored.codes = typed_tensor(source, module + ".W_q", stored.packing.bytes == 4 ? "I32" : "U8");
  expect_shape(stored.codes, {stored.packing.stored_rows(stored.groups()), stored.group_size});
  return stored;
}

QTensor outline(const Stored& stored) {
  QTensor weight;
  weight.scheme = int_scheme(stored.packing.bits, stored.group_size, Zero::kOffset);
  weight.rows = stored.rows;
  weight.cols = stored.cols;
  return weight;
}

uint32_t element(const uint8_t* at, int bytes) {
  uint32_t word = *at;
  if (bytes == 4) std::memcpy(&word, at, 4);
  return word;
}

std::vector<uint8_t> read_codes(const Stored& stored, const QTensor& weight) {
  const Packing& packing = stored.packing;
  const int64_t size = stored.group_size, per_row = weight.groups();
  const int64_t stored_rows = packing.stored_rows(stored.groups());
  const uint32_t mask = (1u << packing.bits) - 1;
  std::vector<uint8_t> codes(static_cast<size_t>(weight.rows * weight.row_bytes()));
  for (int64_t r = 0; r < stored.groups(); ++r) {
    const int shift = packing.shift(static_cast<int>(r / stored_rows));
    const uint8_t* from = stored.codes.bytes.data + r % stored_rows * size * packing.bytes;
    uint8_t* row = codes.data() + r / per_row * weight.row_bytes();
    for (int64_t k = 0; k < size; ++k) {
      const uint32_t code = element(from + k * packing.bytes, packing.bytes) >> shift & mask;
      pack(row, r % per_row * size + k, packing.bits, code);
    }
  }
  return codes;
}

QTensor read(const TensorSource& source, const Json&, const std::string& module) {
  const Stored stored = open_module(source, module);
  QTensor weight = outline(stored);
  const StoredTensor scale = typed_tensor(source, module + ".scale", kFloatTypes);
  const StoredTensor zero = typed_tensor(source, module + ".zero", kFloatTypes);
  expect_shape(scale, {stored.groups(), 1});
  expect_shape(zero, {stored.groups(), 1});
  weight.scales = floats_of(scale);
  weight.offsets = floats_of(zero);
  for (size_t i = 0; i < weight.offsets.size(); ++i) weight.offsets[i] *= -weight.scales[i];
  weight.codes = Bytes::own(read_codes(stored, weight));
  validate(weight, module);
  return weight;
}

QTensor describe(const TensorSource& source, const Json&, const std::string& module) {
  return outline(open_module(source, module));
}

const Packing& writable_packing(const std::string& module, const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  for (const Packing& packing : kPackings) {
    if (scheme.code == Code::kInt && scheme.bits == packing.bits && scheme.group_rows == 1 &&
        weight.input_order.empty()) {
      const bool whole = weight.cols % scheme.group_size == 0 &&
                         (packing.bytes == 4 || weight.rows * weight.groups() % packing.parts == 0);
      LOWBIT_CHECK(whole, module, ": hqq needs groups that divide the columns, in multiples of ",
                   packing.parts, ", not ", weight.rows, " x ", weight.cols, " ", name_of(scheme));
      return packing;
    }
  }
  fail(ErrorKind::kInvalidArgument, module, ": hqq holds integer codes of 1, 2, 3, 4 or 8 bits, ",
       "not ", name_of(scheme));
}

float zero_of(const QTensor& weight, size_t entry) {
  const float scale = weight.scales[entry];
  switch (weight.scheme.zero) {
    case Zero::kNone:
      return static_cast<float>(1 << (weight.scheme.bits - 1));
    case Zero::kInt:
      return weight.zeros[entry];
    case Zero::kOffset:
      return scale == 0 ? 0.f : -weight.offsets[entry] / scale;
  }
  return 0;
}

StoredTensor write_codes(const std::string& module, const QTensor& weight, const Packing& packing) {
  const int64_t size = weight.scheme.group_size, per_row = weight.groups();
  const int64_t groups = weight.rows * per_row, stored_rows = packing.stored_rows(groups);
  std::vector<uint8_t> bytes(static_cast<size_t>(stored_rows * size * packing.bytes));
  for (int64_t r = 0; r < groups; ++r) {
    const int shift = packing.shift(static_cast<int>(r / stored_rows));
    uint8_t* to = bytes.data() + r % stored_rows * size * packing.bytes;
    const uint8_t* row = weight.codes.data + r / per_row * weight.row_bytes();
    for (int64_t k = 0; k < size; ++k) {
      const uint32_t code = unpack(row, r % per_row * size + k, packing.bits);
      const uint32_t word = element(to + k * packing.bytes, packing.bytes) | code << shift;
      std::memcpy(to + k * packing.bytes, &word, packing.bytes);
    }
  }
  return stored_bytes(module + ".W_q", packing.bytes == 4 ? "I32" : "U8", {stored_rows, size},
                      std::move(bytes));
}

// fp16 if it holds all values.
StoredTensor write_floats(std::string name, std::vector<int64_t> shape,
                          const std::vector<float>& values) {
  for (const float value : values) {
    if (f16_to_f32(f32_to_f16(value)) != value) {
      return stored_floats(std::move(name), std::move(shape), values);
    }
  }
  return stored_halfs(std::move(name), std::move(shape), values);
}

StoredTensor text(std::string name, std::string_view value) {
  return stored_bytes(std::move(name), "U8", {static_cast<int64_t>(value.size())},
                      std::vector<uint8_t>(value.begin(), value.end()));
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  const Packing& packing = writable_packing(module, weight);
  const int64_t groups = weight.rows * weight.groups();
  std::vector<float> zeros(weight.scales.size());
  for (size_t i = 0; i < zeros.size(); ++i) zeros[i] = zero_of(weight, i);
  std::vector<uint8_t> shape(16);
  std::memcpy(shape.data(), &weight.rows, 8);
  std::memcpy(shape.data() + 8, &weight.cols, 8);
  const auto number = [&](const char* name, int64_t value) {
    return stored_int32s(module + name, {}, {static_cast<int32_t>(value)});
  };
  std::vector<StoredTensor> tensors = {
      write_codes(module, weight, packing),
      write_floats(module + ".scale", {groups, 1}, weight.scales),
      write_floats(module + ".zero", {groups, 1}, zeros),
      {module + ".shape", "I64", {2}, Bytes::own(std::move(shape))},
      number(".nbits", packing.bits),
      number(".group_size", weight.scheme.group_size),
      number(".axis", 1),
      text(module + ".packing", packing.name),
      text(module + ".unpack_view_dtype", packing.bytes == 4 ? "torch.int32" : "torch.uint8"),
      text(module + ".compute_dtype", "torch.float16")};
  for (const char* flag : {".view_as_float", ".quant_scale", ".quant_zero", ".offload_meta"}) {
    tensors.push_back(stored_bytes(module + flag, "U8", {}, {0}));
  }
  for (const char* flag :
       {".channel_wise", ".optimize", ".encoded_state_dict", ".stores_quant_config"}) {
    tensors.push_back(stored_bytes(module + flag, "U8", {}, {1}));
  }
  tensors.push_back(
      stored_bytes(module + ".round_zero", "U8", {}, {static_cast<uint8_t>(packing.bits == 4)}));
  return tensors;
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  const Json weights = {{"nbits", scheme.bits},
                        {"group_size", scheme.group_size > 0 ? Json(scheme.group_size) : Json()},
                        {"axis", 1},
                        {"channel_wise", true},
                        {"optimize", true},
                        {"round_zero", scheme.bits == 4},
                        {"view_as_float", false}};
  return {{"quant_method", "hqq"},
          {"quant_config",
           {{"weight_quant_params", weights},
            {"scale_quant_params", nullptr},
            {"zero_quant_params", nullptr},
            {"offload_meta", false}}},
          {"skip_modules", skipped}};
}

}  // namespace

const CheckpointFormat kHqqFormat = {"hqq", detect, quantized, read, write, write_config, describe};

}  // namespace lowbit
