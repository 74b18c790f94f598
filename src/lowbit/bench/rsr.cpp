#include "lowbit/bench/rsr.h"

#include <algorithm>
#include <array>

#include "lowbit/base/check.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr int kMostRows = 6;

// -1, 0 or 1 plus 1; throws for other codes.
int digit_of(const QTensor& weight, int64_t row, int64_t col) {
  const uint8_t* codes = weight.codes.data + row * weight.row_bytes();
  const int code = static_cast<int>(unpack(codes, col, weight.scheme.bits));
  const int zero = weight.scheme.zero == Zero::kInt ? weight.zeros[row * weight.groups()]
                                                    : 1 << (weight.scheme.bits - 1);
  const int digit = code - zero + 1;
  LOWBIT_CHECK_KIND(digit >= 0 && digit <= 2, ErrorKind::kUnsupported, "RSR: row ", row, " holds ",
                    code - zero, " times its scale; expected -1, 0 or 1");
  return digit;
}

}  // namespace

RsrMatrix::RsrMatrix(const QTensor& weight, int k) : rows_(weight.rows), cols_(weight.cols), k_(k) {
  LOWBIT_CHECK_KIND(k >= 1 && k <= kMostRows && weight.scheme.code == Code::kInt &&
                        weight.scheme.zero != Zero::kOffset && weight.scheme.group_rows == 1 &&
                        weight.groups() == 1 && weight.input_order.empty() && cols_ <= 65536,
                    ErrorKind::kUnsupported, "RSR with blocks of ", k, " rows cannot hold ",
                    name_of(weight.scheme), " of ", cols_, " columns");
  for (int i = 0; i < k; ++i) patterns_ *= 3;
  const int64_t blocks = (rows_ + k - 1) / k;
  columns_.resize(static_cast<size_t>(blocks * cols_));
  starts_.resize(static_cast<size_t>(blocks * (patterns_ + 1)));
  scales_ = weight.scales;
  for (int64_t block = 0; block < blocks; ++block) pack_block(weight, block);
}

// Sorts the columns of a block by their pattern: by counting, so that equal ones stay in order.
void RsrMatrix::pack_block(const QTensor& weight, int64_t block) {
  std::vector<int> patterns(static_cast<size_t>(cols_));
  uint32_t* starts = starts_.data() + block * (patterns_ + 1);
  for (int64_t col = 0; col < cols_; ++col) {
    int pattern = 0;
    for (int64_t row = block * k_ + k_ - 1; row >= block * k_; --row) {
      pattern = pattern * 3 + (row < rows_ ? digit_of(weight, row, col) : 1);
    }
    patterns[col] = pattern;
    ++starts[pattern + 1];
  }
  for (int pattern = 0; pattern < patterns_; ++pattern) starts[pattern + 1] += starts[pattern];
  std::vector<uint32_t> next(starts, starts + patterns_);
  uint16_t* columns = columns_.data() + block * cols_;
  for (int64_t col = 0; col < cols_; ++col) {
    columns[next[patterns[col]]++] = static_cast<uint16_t>(col);
  }
}

int64_t RsrMatrix::bytes() const {
  return static_cast<int64_t>(columns_.size() * 2 + starts_.size() * 4 + scales_.size() * 4);
}

void RsrMatrix::multiply(const float* x, float* y, ThreadPool& pool) const {
  const int64_t blocks = (rows_ + k_ - 1) / k_;
  constexpr int64_t kBlocks = 16;  // per turn of a thread
  pool.parallel_for((blocks + kBlocks - 1) / kBlocks, [&](int64_t index, int) {
    for (int64_t block = index * kBlocks; block < std::min(blocks, (index + 1) * kBlocks);
         ++block) {
      const uint16_t* columns = columns_.data() + block * cols_;
      const uint32_t* starts = starts_.data() + block * (patterns_ + 1);
      std::array<float, kMostRows> sums{};
      for (int pattern = 0; pattern < patterns_; ++pattern) {
        float parts[4] = {};  // so that additions overlap
        uint32_t at = starts[pattern];
        for (; at + 4 <= starts[pattern + 1]; at += 4) {
          for (int i = 0; i < 4; ++i) parts[i] += x[columns[at + static_cast<uint32_t>(i)]];
        }
        for (; at < starts[pattern + 1]; ++at) parts[0] += x[columns[at]];
        const float sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        for (int row = 0, digits = pattern; row < k_; ++row, digits /= 3) {
          sums[row] += static_cast<float>(digits % 3 - 1) * sum;
        }
      }
      for (int64_t row = block * k_; row < std::min(rows_, (block + 1) * k_); ++row) {
        y[row] = scales_[row] * sums[row - block * k_];
      }
    }
  });
}

}  // namespace lowbit
