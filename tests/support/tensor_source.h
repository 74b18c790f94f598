// Tensors of a checkpoint folder held in memory, for tests of formats.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/checkpoint/safetensors.h"

namespace lowbit::test {

class MemorySource final : public TensorSource {
 public:
  explicit MemorySource(std::vector<StoredTensor> tensors = {}) {
    for (StoredTensor& tensor : tensors) put(std::move(tensor));
  }
  // All tensors of a safetensors file.
  explicit MemorySource(const SafetensorsFile& file) {
    for (const auto& [name, entry] : file.header().tensors) put(file.tensor(name));
  }

  bool contains(const std::string& name) const override { return tensors_.count(name) != 0; }
  StoredTensor tensor(const std::string& name) const override {
    const auto it = tensors_.find(name);
    LOWBIT_CHECK_KIND(it != tensors_.end(), ErrorKind::kCorruptFile, "no tensor ", name);
    return it->second;
  }

  const std::map<std::string, StoredTensor>& all() const { return tensors_; }
  void put(StoredTensor tensor) {
    const std::string name = tensor.name;
    tensors_[name] = std::move(tensor);
  }
  void remove(const std::string& name) { tensors_.erase(name); }
  // Replaces the bytes of a tensor, keeping name, dtype and shape.
  void set_bytes(const std::string& name, std::vector<uint8_t> bytes) {
    tensors_.at(name).bytes = Bytes::own(std::move(bytes));
  }
  std::vector<uint8_t> bytes(const std::string& name) const {
    const Bytes& bytes = tensors_.at(name).bytes;
    return {bytes.data, bytes.data + bytes.size};
  }

 private:
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace lowbit::test
