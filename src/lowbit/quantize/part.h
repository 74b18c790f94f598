// Parts: the bytes of one finished unit (the embedding, a block, the head), one tensor after the
// other, while the checkpoint is being built.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/checksum.h"
#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/checkpoint/safetensors.h"

namespace lowbit {

// What the journal says of a finished part.
struct Part {
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t size = 0;  // bytes
  };

  std::string unit;    // "block 3"
  std::string sha256;  // of the file
  std::vector<Tensor> tensors;
  int64_t linears = 0;           // quantized modules
  int64_t weights = 0;           // elements of those
  uint64_t quantized_bytes = 0;  // of their tensors

  uint64_t size() const;  // bytes of the file
  Json to_json() const;
  static Part from_json(const Json& record);
};

// Whether the file holds what the part's record says.
bool intact(const Part& part, const fs::path& path);

// The part's tensors as views of its mapped file.
std::vector<StoredTensor> tensors_of(const Part& part, const fs::path& path);

// Writes one part. Tensors are given whole, or begun and then written piece by piece, so that a
// large one is never in memory. Throws kIo.
class PartWriter {
 public:
  PartWriter(const fs::path& path, std::string unit);

  void add(const StoredTensor& tensor);
  void begin(std::string name, std::string dtype, std::vector<int64_t> shape);
  void write(std::span<const uint8_t> bytes);
  // Everything written since `offset` belongs to one quantized module of `weights` elements.
  void count_linear(int64_t weights, uint64_t offset);
  uint64_t offset() const { return writer_.offset(); }

  Part finish();  // fsyncs

 private:
  FileWriter writer_;
  Sha256 hash_;
  Part part_;
};

}  // namespace lowbit
