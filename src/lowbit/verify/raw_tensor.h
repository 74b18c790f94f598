// Single elements of a stored tensor, each checked against its end.
#pragma once

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/safetensors.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

class RawTensor {
 public:
  explicit RawTensor(StoredTensor tensor) : tensor_(std::move(tensor)) {}

  const std::string& dtype() const { return tensor_.dtype; }
  int64_t dim(size_t index) const {
    return index < tensor_.shape.size() ? tensor_.shape[index] : 1;
  }
  int64_t count() const {
    int64_t total = 1;
    for (const int64_t extent : tensor_.shape) total *= extent;
    return total;
  }

  uint8_t byte(int64_t index) const { return read<uint8_t>(index); }
  int8_t int8(int64_t index) const { return read<int8_t>(index); }
  int16_t int16(int64_t index) const { return read<int16_t>(index); }
  int32_t int32(int64_t index) const { return read<int32_t>(index); }
  int64_t int64(int64_t index) const { return read<int64_t>(index); }
  // Bits [bit, bit + width) of 32-bit words that are `stride` words apart, beginning with `first`.
  uint32_t field(int64_t first, int64_t stride, int64_t bit, int width) const {
    uint64_t bits = read<uint32_t>(first + bit / 32 * stride);
    if (bit % 32 + width > 32) {
      bits |= static_cast<uint64_t>(read<uint32_t>(first + (bit / 32 + 1) * stride)) << 32;
    }
    return static_cast<uint32_t>(bits >> (bit % 32)) & ((1u << width) - 1u);
  }
  float real(int64_t index) const {
    if (tensor_.dtype == "F32") return read<float>(index);
    if (tensor_.dtype == "F16") return f16_to_f32(read<uint16_t>(index));
    if (tensor_.dtype == "BF16") return bf16_to_f32(read<uint16_t>(index));
    if (tensor_.dtype == "F8_E4M3") return e4m3_to_f32(byte(index));
    fail(ErrorKind::kCorruptFile, tensor_.name, " holds ", tensor_.dtype, ", not numbers");
  }

 private:
  template <typename T>
  T read(int64_t index) const {
    const auto end = (static_cast<uint64_t>(index) + 1) * sizeof(T);
    LOWBIT_CHECK_KIND(index >= 0 && end <= tensor_.bytes.size, ErrorKind::kCorruptFile,
                      tensor_.name, ": element ", index, " is beyond its end");
    T value;
    std::memcpy(&value, tensor_.bytes.data + end - sizeof(T), sizeof(T));
    return value;
  }

  StoredTensor tensor_;
};

}  // namespace lowbit
