#include "lowbit/checkpoint/gguf.h"

#include <bit>
#include <cstring>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/ggml_types.h"

namespace lowbit {

namespace {

using namespace gguf_type;

constexpr const char* kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};

std::string type_name(uint32_t type) {
  return type < std::size(kTypeNames) ? kTypeNames[type] : concat("type ", type);
}

// Fewest bytes that a value of the type takes; 0 if there is no such type or it cannot be in an
// array.
uint64_t element_bytes(uint32_t type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

// Walks a file's bytes. Every length is compared with what remains before it is used.
class Cursor {
 public:
  Cursor(std::span<const uint8_t> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  const uint8_t* take(uint64_t count, const std::string& what) {
    if (count > remaining()) {
      corrupt(what, " needs ", count, " bytes, ", remaining(),
              " are left; the file is truncated or damaged, fetch it again");
    }
    const uint8_t* at = bytes_.data() + offset_;
    offset_ += count;
    return at;
  }
  template <typename T>
  T read(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }
  std::string read_string(uint64_t max_bytes, const std::string& what) {
    const auto length = read<uint64_t>(what);
    if (length > max_bytes) {
      corrupt(what, " is ", length, " bytes long, the limit is ", max_bytes);
    }
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }

  template <typename... Parts>
  [[noreturn]] void corrupt(const Parts&... parts) const {
    fail(ErrorKind::kCorruptFile, origin_, ", byte ", offset_, ": ", parts...);
  }

 private:
  std::span<const uint8_t> bytes_;
  const std::string& origin_;
  uint64_t offset_ = 0;
};

bool read_bool(Cursor& in, const std::string& what) {
  const auto value = in.read<uint8_t>(what);
  if (value > 1) in.corrupt(what, " is a bool of ", int{value});
  return value == 1;
}

GgufScalar read_scalar(Cursor& in, uint32_t type, const std::string& what) {
  switch (type) {
    case kU8:
      return uint64_t{in.read<uint8_t>(what)};
    case kI8:
      return int64_t{in.read<int8_t>(what)};
    case kU16:
      return uint64_t{in.read<uint16_t>(what)};
    case kI16:
      return int64_t{in.read<int16_t>(what)};
    case kU32:
      return uint64_t{in.read<uint32_t>(what)};
    case kI32:
      return int64_t{in.read<int32_t>(what)};
    case kU64:
      return in.read<uint64_t>(what);
    case kI64:
      return in.read<int64_t>(what);
    case kF32:
      return double{in.read<float>(what)};
    case kF64:
      return in.read<double>(what);
    case kBool:
      return read_bool(in, what);
    case kString:
      return in.read_string(limits::kGgufStringBytes, what);
    default:
      in.corrupt(what, " has unknown value type ", type);
  }
}

double as_double(const GgufScalar& scalar) {
  if (const auto* value = std::get_if<bool>(&scalar)) return *value ? 1 : 0;
  if (const auto* value = std::get_if<int64_t>(&scalar)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<uint64_t>(&scalar)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<double>(&scalar)) return *value;
  return 0;
}

void read_array(Cursor& in, GgufValue* value, const std::string& what) {
  value->element_type = in.read<uint32_t>(what);
  const uint64_t least = element_bytes(value->element_type);
  if (least == 0) in.corrupt(what, " is an array of ", type_name(value->element_type));
  const auto count = in.read<uint64_t>(what);
  if (count > limits::kGgufArrayElements) {
    in.corrupt(what, " has ", count, " elements, the limit is ", limits::kGgufArrayElements);
  }
  if (count > in.remaining() / least) {
    in.corrupt(what, " has ", count, " elements, more than the file can hold; it is truncated or ",
               "damaged, fetch it again");
  }
  if (value->element_type == kString) {
    value->strings.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      value->strings.push_back(in.read_string(limits::kGgufStringBytes, what));
    }
  } else {
    value->numbers.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      value->numbers.push_back(as_double(read_scalar(in, value->element_type, what)));
    }
  }
}

void read_pair(Cursor& in, GgufMetadata* metadata) {
  const std::string key = in.read_string(limits::kGgufKeyBytes, "a metadata key");
  const std::string what = concat("metadata \"", key.substr(0, 128), "\"");
  GgufValue value;
  value.type = in.read<uint32_t>(what);
  if (value.type == kArray) {
    read_array(in, &value, what);
  } else {
    value.scalar = read_scalar(in, value.type, what);
  }
  if (!metadata->values.emplace(key, std::move(value)).second) in.corrupt(what, " appears twice");
}

// Bytes of the tensor's data, everything checked for overflow.
uint64_t data_size(const Cursor& in, const GgufTensor& tensor, const GgmlType& type) {
  if (tensor.ne[0] % type.block_elems != 0) {
    in.corrupt("tensor \"", tensor.name, "\": rows of ", tensor.ne[0], " are not whole ", type.name,
               " blocks of ", type.block_elems);
  }
  int64_t size = tensor.ne[0] / type.block_elems;
  bool overflow = __builtin_mul_overflow(size, type.block_bytes, &size);
  int64_t elements = tensor.ne[0];
  for (size_t i = 1; i < tensor.ne.size(); ++i) {
    overflow |= __builtin_mul_overflow(size, tensor.ne[i], &size);
    overflow |= __builtin_mul_overflow(elements, tensor.ne[i], &elements);
  }
  if (overflow) in.corrupt("tensor \"", tensor.name, "\": its size overflows");
  return static_cast<uint64_t>(size);
}

// An entry of the tensor table; begin is still relative to the data section.
GgufTensor read_tensor(Cursor& in, const std::string& origin) {
  GgufTensor tensor;
  tensor.name = in.read_string(limits::kGgufTensorNameBytes, "a tensor name");
  for (const char c : tensor.name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      in.corrupt("a tensor name holds a control character");
    }
  }
  const std::string what = concat("tensor \"", tensor.name, "\"");
  const auto dimensions = in.read<uint32_t>(what);
  if (dimensions < 1 || dimensions > limits::kGgufRank) {
    in.corrupt(what, " has ", dimensions, " dimensions; 1 to ", limits::kGgufRank, " are possible");
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.read<uint64_t>(what);
    if (size == 0 || size > INT64_MAX) in.corrupt(what, ": dimension ", i, " is ", size);
    tensor.ne.push_back(static_cast<int64_t>(size));
  }
  tensor.type = in.read<uint32_t>(what);
  const GgmlType* type = ggml_type(tensor.type);
  LOWBIT_CHECK_KIND(type != nullptr, ErrorKind::kUnsupported, origin, ": ", what, " has ggml type ",
                    tensor.type,
                    ", which is unknown here: newer than this program, removed, or damaged");
  tensor.begin = in.read<uint64_t>(what);
  tensor.size = data_size(in, tensor, *type);
  return tensor;
}

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Tensors follow each other in the order of the table, each padded to the alignment. The running
// sum stays below the file's size, so padding cannot overflow.
void place_tensors(const Cursor& in, uint64_t file_size, GgufContents* contents) {
  const uint64_t data_begin = round_up(in.offset(), contents->alignment);
  uint64_t expected = data_begin;
  for (GgufTensor& tensor : contents->tensors) {
    if (expected > file_size || tensor.begin != expected - data_begin) {
      in.corrupt("tensor \"", tensor.name, "\" begins at ", tensor.begin,
                 " of the data, where the tensors before it end at ", expected - data_begin,
                 "; the file is truncated or damaged, fetch it again");
    }
    if (tensor.size > file_size - expected) {
      in.corrupt("tensor \"", tensor.name, "\" needs ", tensor.size, " bytes, ",
                 file_size - expected, " are left; the file is truncated, fetch it again");
    }
    tensor.begin = expected;
    expected = round_up(expected + tensor.size, contents->alignment);
  }
}

uint32_t read_version(Cursor& in, const std::string& origin) {
  const uint8_t* magic = in.take(4, "the magic number");
  if (std::memcmp(magic, "GGUF", 4) != 0) {
    fail(ErrorKind::kCorruptFile, origin, ": does not begin with \"GGUF\", not a GGUF file");
  }
  const auto version = in.read<uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  const uint32_t swapped = __builtin_bswap32(version);
  if (swapped >= 1 && swapped <= 3) {
    fail(ErrorKind::kUnsupported, origin, ": a big-endian GGUF file; only little-endian ones work");
  }
  fail(version == 1 || (version > 3 && version < 100) ? ErrorKind::kUnsupported
                                                      : ErrorKind::kCorruptFile,
       origin, ": GGUF version ", version, "; versions 2 and 3 work, convert the model again");
}

}  // namespace

GgufContents parse_gguf(std::span<const uint8_t> file, const std::string& origin) {
  Cursor in(file, origin);
  GgufContents contents;
  contents.metadata.origin = origin;
  contents.version = read_version(in, origin);
  const auto tensor_count = in.read<uint64_t>("the tensor count");
  const auto pair_count = in.read<uint64_t>("the metadata count");
  // The shortest entries: an empty key with a byte; an empty name with one dimension.
  if (pair_count > limits::kGgufKvCount || pair_count > in.remaining() / 13) {
    in.corrupt(pair_count, " metadata entries cannot be in this file");
  }
  if (tensor_count > limits::kTensorCount || tensor_count > in.remaining() / 32) {
    in.corrupt(tensor_count, " tensors cannot be in this file");
  }
  for (uint64_t i = 0; i < pair_count; ++i) read_pair(in, &contents.metadata);
  if (const auto it = contents.metadata.values.find("general.alignment");
      it != contents.metadata.values.end()) {
    const auto* alignment = std::get_if<uint64_t>(&it->second.scalar);
    if (it->second.type != kU32 || alignment == nullptr || !std::has_single_bit(*alignment)) {
      in.corrupt("general.alignment must be a u32 and a power of two");
    }
    contents.alignment = *alignment;
  }
  std::set<std::string> names;
  contents.tensors.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) {
    contents.tensors.push_back(read_tensor(in, origin));
    if (!names.insert(contents.tensors.back().name).second) {
      in.corrupt("tensor \"", contents.tensors.back().name, "\" appears twice");
    }
  }
  place_tensors(in, file.size(), &contents);
  return contents;
}

}  // namespace lowbit
