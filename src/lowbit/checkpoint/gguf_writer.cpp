#include <cstring>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "lowbit/checkpoint/gguf.h"

namespace lowbit {

namespace {

// The header in memory: it is small beside the data.
class Header {
 public:
  template <typename T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put_string(const std::string& text) {
    put<uint64_t>(text.size());
    bytes_ += text;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

void put_number(Header* out, uint32_t type, double value) {
  switch (type) {
    case gguf_type::kU8:
    case gguf_type::kBool:
      return out->put(static_cast<uint8_t>(value));
    case gguf_type::kI8:
      return out->put(static_cast<int8_t>(value));
    case gguf_type::kU16:
      return out->put(static_cast<uint16_t>(value));
    case gguf_type::kI16:
      return out->put(static_cast<int16_t>(value));
    case gguf_type::kU32:
      return out->put(static_cast<uint32_t>(value));
    case gguf_type::kI32:
      return out->put(static_cast<int32_t>(value));
    case gguf_type::kF32:
      return out->put(static_cast<float>(value));
    case gguf_type::kU64:
      return out->put(static_cast<uint64_t>(value));
    case gguf_type::kI64:
      return out->put(static_cast<int64_t>(value));
    case gguf_type::kF64:
      return out->put(value);
    default:
      fail(ErrorKind::kInvalidArgument, "GGUF has no numbers of type ", type);
  }
}

void put_integer(Header* out, uint32_t type, const GgufScalar& scalar) {
  if (type == gguf_type::kU64) return out->put(std::get<uint64_t>(scalar));
  if (type == gguf_type::kI64) return out->put(std::get<int64_t>(scalar));
  const bool is_signed = std::holds_alternative<int64_t>(scalar);
  put_number(out, type,
             is_signed ? static_cast<double>(std::get<int64_t>(scalar))
                       : static_cast<double>(std::get<uint64_t>(scalar)));
}

void put_value(Header* out, const GgufValue& value) {
  out->put(value.type);
  switch (value.type) {
    case gguf_type::kString:
      return out->put_string(std::get<std::string>(value.scalar));
    case gguf_type::kBool:
      return out->put(static_cast<uint8_t>(std::get<bool>(value.scalar)));
    case gguf_type::kF32:
    case gguf_type::kF64:
      return put_number(out, value.type, std::get<double>(value.scalar));
    case gguf_type::kArray:
      break;
    default:
      return put_integer(out, value.type, value.scalar);
  }
  out->put(value.element_type);
  if (value.element_type == gguf_type::kString) {
    out->put<uint64_t>(value.strings.size());
    for (const std::string& text : value.strings) out->put_string(text);
  } else {
    out->put<uint64_t>(value.numbers.size());
    for (const double number : value.numbers) put_number(out, value.element_type, number);
  }
}

GgufValue scalar(uint32_t type, GgufScalar value) {
  GgufValue result;
  result.type = type;
  result.scalar = std::move(value);
  return result;
}

GgufValue numbers(uint32_t element_type, std::vector<double> values) {
  GgufValue result;
  result.type = gguf_type::kArray;
  result.element_type = element_type;
  result.numbers = std::move(values);
  return result;
}

uint64_t padding(uint64_t size, uint64_t alignment) {
  return (alignment - size % alignment) % alignment;
}

const GgmlType& check_tensor(const StoredTensor& tensor, const fs::path& path) {
  const GgmlType* type = ggml_type(tensor.dtype);
  const auto cannot = [&](const auto&... parts) {
    fail(ErrorKind::kInvalidArgument, "cannot write ", path.string(), ": tensor \"", tensor.name,
         "\" ", parts...);
  };
  if (type == nullptr) cannot("has the unknown ggml type ", tensor.dtype);
  if (tensor.name.size() > limits::kGgufTensorNameBytes) cannot("has too long a name for GGUF");
  if (tensor.shape.empty() || tensor.shape.size() > limits::kGgufRank) {
    cannot("has ", tensor.shape.size(), " dimensions");
  }
  int64_t elements = 1;
  for (const int64_t dimension : tensor.shape) {
    if (dimension <= 0 || __builtin_mul_overflow(elements, dimension, &elements)) {
      cannot("has the dimension ", dimension);
    }
  }
  if (tensor.shape.back() % type->block_elems != 0) {
    cannot("has rows of ", tensor.shape.back(), ", which are not whole ", type->name, " blocks");
  }
  const auto needed = static_cast<uint64_t>(elements / type->block_elems * type->block_bytes);
  if (tensor.bytes.size != needed) cannot("has ", tensor.bytes.size, " bytes, needs ", needed);
  return *type;
}

}  // namespace

GgufValue gguf_string(std::string value) { return scalar(gguf_type::kString, std::move(value)); }
GgufValue gguf_u32(uint32_t value) { return scalar(gguf_type::kU32, uint64_t{value}); }
GgufValue gguf_f32(float value) { return scalar(gguf_type::kF32, double{value}); }
GgufValue gguf_bool(bool value) { return scalar(gguf_type::kBool, value); }
GgufValue gguf_strings(std::vector<std::string> values) {
  GgufValue result = numbers(gguf_type::kString, {});
  result.strings = std::move(values);
  return result;
}
GgufValue gguf_i32s(std::vector<double> values) {
  return numbers(gguf_type::kI32, std::move(values));
}
GgufValue gguf_f32s(std::vector<double> values) {
  return numbers(gguf_type::kF32, std::move(values));
}

void write_gguf(const fs::path& path,
                const std::vector<std::pair<std::string, GgufValue>>& metadata,
                const std::vector<StoredTensor>& tensors) {
  constexpr uint64_t kAlignment = 32;
  Header header;
  header.put<uint32_t>(0x46554747);  // "GGUF"
  header.put<uint32_t>(3);
  header.put<uint64_t>(tensors.size());
  header.put<uint64_t>(metadata.size());
  std::set<std::string> names;
  for (const auto& [key, value] : metadata) {
    LOWBIT_CHECK(names.insert(key).second && key != "general.alignment", "cannot write ",
                 path.string(), ": metadata \"", key, "\" is given twice or set by the writer");
    header.put_string(key);
    put_value(&header, value);
  }
  names.clear();
  uint64_t offset = 0;
  for (const StoredTensor& tensor : tensors) {
    const GgmlType& type = check_tensor(tensor, path);
    LOWBIT_CHECK(names.insert(tensor.name).second, "cannot write ", path.string(), ": tensor \"",
                 tensor.name, "\" is given twice");
    header.put_string(tensor.name);
    header.put(static_cast<uint32_t>(tensor.shape.size()));
    for (auto it = tensor.shape.rbegin(); it != tensor.shape.rend(); ++it) {
      header.put(static_cast<uint64_t>(*it));
    }
    header.put(type.id);
    header.put(offset);
    offset += tensor.bytes.size + padding(tensor.bytes.size, kAlignment);
  }

  FileWriter writer(path);
  const std::string zeros(kAlignment, '\0');
  writer.write(header.bytes());
  writer.write(std::string_view(zeros).substr(0, padding(header.bytes().size(), kAlignment)));
  for (const StoredTensor& tensor : tensors) {
    writer.write(std::span(tensor.bytes.data, tensor.bytes.size));
    writer.write(std::string_view(zeros).substr(0, padding(tensor.bytes.size, kAlignment)));
  }
  writer.close();
}

}  // namespace lowbit
