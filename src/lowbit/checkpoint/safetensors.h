// safetensors files (huggingface/safetensors): an 8-byte length, a JSON header, a byte buffer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

// One tensor as stored: a view into the file, or bytes to be written.
struct StoredTensor {
  std::string name;
  std::string dtype;  // safetensors' spelling ("F16", "I32") or ggml's type name ("Q4_0")
  std::vector<int64_t> shape;
  Bytes bytes;
};

// Bits of one element of a safetensors dtype; 0 if unknown.
int safetensors_bits(const std::string& dtype);

// Checks a whole file's bytes as the reference reader does (duplicate names, holes, overlaps,
// sizes, trailing bytes). `origin` names it in errors; throws kCorruptFile.
struct SafetensorsHeader {
  struct Entry {
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t begin = 0;  // from the start of the file
    uint64_t end = 0;
  };
  std::map<std::string, Entry> tensors;
  std::map<std::string, std::string> metadata;
};
SafetensorsHeader parse_safetensors(std::span<const uint8_t> file, const std::string& origin);

// A memory-mapped, validated file.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const fs::path& path);

  const SafetensorsHeader& header() const { return header_; }
  const MappedFile& file() const { return *file_; }
  bool contains(const std::string& name) const { return header_.tensors.count(name) != 0; }
  // Throws kCorruptFile naming file and tensor if there is none.
  StoredTensor tensor(const std::string& name) const;

 private:
  std::shared_ptr<MappedFile> file_;
  SafetensorsHeader header_;
};

// Writes one file, tensors ordered as the reference writer does, and fsyncs it.
void write_safetensors(const fs::path& path, std::vector<StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace lowbit
