// Small pieces that packing shares.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit::cpu {

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline int64_t tiles_of(const PackedMatrix& matrix) {
  return round_up(matrix.rows, kTileRows) / kTileRows;
}

// The rows of some weights, one after another.
class Rows {
 public:
  explicit Rows(std::span<const LinearWeight> parts) : parts_(parts) {
    for (const LinearWeight& part : parts) {
      first_.push_back(count_);
      count_ += part.weight.rows;
    }
  }
  struct Row {
    const LinearWeight& part;
    int64_t index;
  };
  int64_t count() const { return count_; }
  std::span<const LinearWeight> parts() const { return parts_; }
  Row operator[](int64_t row) const {
    const auto part = std::upper_bound(first_.begin(), first_.end(), row) - first_.begin() - 1;
    return {parts_[part], row - first_[part]};
  }

 private:
  std::span<const LinearWeight> parts_;
  std::vector<int64_t> first_;
  int64_t count_ = 0;
};

}  // namespace lowbit::cpu
