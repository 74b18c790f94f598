// GGUF files put together field by field, right or wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace lowbit::test {

class GgufBytes {
 public:
  explicit GgufBytes(uint64_t tensors = 0, uint64_t pairs = 0, uint32_t version = 3) {
    bytes_ = "GGUF";
    u32(version).u64(tensors).u64(pairs);
  }
  GgufBytes& u8(uint8_t value) { return put(value); }
  // A field of 4 or 8 bytes; its offset is remembered, so that tests can try other values.
  GgufBytes& u32(uint32_t value) { return field(value); }
  GgufBytes& u64(uint64_t value) { return field(value); }
  GgufBytes& f32(float value) { return put(value); }
  GgufBytes& text(const std::string& value) {
    u64(value.size());
    bytes_ += value;
    return *this;
  }
  GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& ne, uint32_t type,
                    uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(ne.size()));
    for (const uint64_t size : ne) u64(size);
    return u32(type).u64(offset);
  }
  GgufBytes& pad(size_t alignment = 32) {
    while (bytes_.size() % alignment != 0) bytes_ += '\0';
    return *this;
  }
  GgufBytes& data(size_t count) {
    bytes_.append(count, '\1');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }
  const std::vector<std::pair<size_t, size_t>>& fields() const { return fields_; }  // offset, size

 private:
  template <typename T>
  GgufBytes& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  template <typename T>
  GgufBytes& field(T value) {
    fields_.emplace_back(bytes_.size(), sizeof(T));
    return put(value);
  }

  std::string bytes_;
  std::vector<std::pair<size_t, size_t>> fields_;
};

}  // namespace lowbit::test
