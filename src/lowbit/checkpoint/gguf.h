// GGUF files, versions 2 and 3 (ggml docs/gguf.md): metadata, tensor table, aligned data.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/checkpoint/safetensors.h"

namespace lowbit {

// GGUF's value types.
namespace gguf_type {
enum : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
}  // namespace gguf_type

// A metadata value. Integers of every width are int64 or uint64, both floats are double.
using GgufScalar = std::variant<bool, int64_t, uint64_t, double, std::string>;
struct GgufValue {
  uint32_t type = 0;          // of gguf_type
  uint32_t element_type = 0;  // for arrays
  GgufScalar scalar;
  std::vector<std::string> strings;  // arrays of strings
  std::vector<double> numbers;       // arrays of numbers and bools
};

// Typed getters: absent gives the fallback (or throws kCorruptFile naming the key when there is no
// fallback); a value of another type throws kCorruptFile.
class GgufMetadata {
 public:
  std::map<std::string, GgufValue> values;
  std::string origin;  // file, for errors

  bool contains(const std::string& key) const { return values.count(key) != 0; }
  int64_t get_int(const std::string& key, std::optional<int64_t> fallback = {}) const;
  double get_double(const std::string& key, std::optional<double> fallback = {}) const;
  bool get_bool(const std::string& key, std::optional<bool> fallback = {}) const;
  std::string get_string(const std::string& key,
                         const std::optional<std::string>& fallback = {}) const;
  const std::vector<std::string>& get_strings(const std::string& key) const;  // absent: empty
  const std::vector<double>& get_numbers(const std::string& key) const;       // absent: empty
};

struct GgufTensor {
  std::string name;         // GGUF's name: "blk.0.attn_q.weight"
  uint32_t type = 0;        // ggml type id
  std::vector<int64_t> ne;  // ne[0] is the fastest dimension
  uint64_t begin = 0;       // from the start of the file
  uint64_t size = 0;
};

struct GgufContents {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
  uint32_t version = 0;
  uint64_t alignment = 32;
};

// Checks a whole file's bytes. Throws kCorruptFile or kUnsupported with offset and reason.
GgufContents parse_gguf(std::span<const uint8_t> file, const std::string& origin);

// A metadata value to be written, in GGUF's own types.
GgufValue gguf_string(std::string value);
GgufValue gguf_u32(uint32_t value);
GgufValue gguf_f32(float value);
GgufValue gguf_bool(bool value);
GgufValue gguf_strings(std::vector<std::string> values);
GgufValue gguf_i32s(std::vector<double> values);
GgufValue gguf_f32s(std::vector<double> values);

// Writes a version 3 file and fsyncs it. Tensors keep their order; `shape` of a StoredTensor is
// outermost first (as in PyTorch), `dtype` is the ggml type's name.
void write_gguf(const fs::path& path,
                const std::vector<std::pair<std::string, GgufValue>>& metadata,
                const std::vector<StoredTensor>& tensors);

}  // namespace lowbit
