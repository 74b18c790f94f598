#include "lowbit/runtime/cpu/additive_linear.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/base/trace.h"
#include "lowbit/runtime/cpu/rows.h"
#include "lowbit/runtime/host_backend.h"

namespace lowbit::cpu {

namespace {

constexpr int64_t kTiles = 4;  // multiplied at once: 32 rows of fp32 fit the second cache

class AdditiveLinear final : public Linear {
 public:
  AdditiveLinear(std::vector<LinearWeight> parts, std::shared_ptr<LinearEnvironment> environment)
      : parts_(std::move(parts)),
        rows_(parts_),
        cols_(parts_[0].weight.cols),
        environment_(std::move(environment)),
        label_(trace::label(concat(kernel(), " ", rows_.count(), "x", cols_))) {
    for (LinearWeight& part : parts_) {
      const QTensor& books = *part.weight.codebooks;
      part.weight.codebooks =
          std::make_shared<QTensor>(dense_f32(dequantize(books), books.rows, books.cols));
      bias_.insert(bias_.end(), part.bias.begin(), part.bias.end());
      if (part.bias.empty()) bias_.resize(bias_.size() + static_cast<size_t>(part.weight.rows));
    }
    bias_.resize(static_cast<size_t>(round_up(rows_.count(), kTileRows)));
  }

  void forward(const Tensor& x, Tensor& y) const override {
    check_linear_operands(*this, x, y);
    if (x.rows == 0) return;
    const int64_t tiles = round_up(rows_.count(), kTileRows) / kTileRows;
    environment_->pool->parallel_for(
        (tiles + kTiles - 1) / kTiles,
        [&](int64_t index, int) {
          std::vector<float> values(static_cast<size_t>(cols_));
          // Kernels read tiles with aligned loads; rows beyond the last are 0.
          const Tensor tile = allocate_host(kTiles * kTileRows, cols_, DType::kF32);
          std::fill_n(tile.as<float>(), tile.size(), 0.f);
          multiply(index * kTiles, std::min(tiles, (index + 1) * kTiles), x, values,
                   tile.as<float>(), y);
        },
        label_);
  }

  void embed(std::span<const int32_t> ids, Tensor& out) const override {
    check_embed_operands(*this, ids, out);
    for (size_t i = 0; i < ids.size(); ++i) {
      const Rows::Row row = rows_[ids[i]];
      dequantize_row(row.part.weight, row.index, out.row(static_cast<int64_t>(i)));
    }
  }

  int64_t rows() const override { return rows_.count(); }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const LinearWeight& part : parts_) bytes += part.weight.stored_bytes();
    return bytes;
  }
  std::string kernel() const override {
    return concat("additive_", environment_->kernels->isa, "_f32");
  }

 private:
  // Tiles [first, last) of y, from rows expanded into `tile` as Storage::kF32 has them.
  void multiply(int64_t first, int64_t last, const Tensor& x, std::vector<float>& values,
                float* tile, Tensor& y) const {
    const int64_t begin = first * kTileRows, end = std::min(rows_.count(), last * kTileRows);
    for (int64_t n = begin; n < end; ++n) {
      const Rows::Row row = rows_[n];
      dequantize_row(row.part.weight, row.index, values.data());
      const int64_t at = n - begin;
      float* out = tile + at / kTileRows * kTileRows * cols_ + at % kTileRows;
      for (int64_t k = 0; k < cols_; ++k) out[k * kTileRows] = values[static_cast<size_t>(k)];
    }
    PackedMatrix matrix;
    matrix.storage = Storage::kF32;
    matrix.rows = end - begin;
    matrix.cols = cols_;
    matrix.blocks = round_up(cols_, kBlockCols) / kBlockCols;
    matrix.codes = reinterpret_cast<const uint8_t*>(tile);
    matrix.bias = bias_.data() + begin;
    environment_->kernels->linear_f32(matrix, x.as<float>(), cols_, {0, last - first}, {0, x.rows},
                                      y.as<float>() + begin, rows_.count());
  }

  std::vector<LinearWeight> parts_;
  Rows rows_;
  int64_t cols_;
  std::shared_ptr<LinearEnvironment> environment_;
  std::vector<float> bias_;  // [rows, padded to tiles]
  const char* label_;
};

}  // namespace

bool are_additive(const std::vector<LinearWeight>& parts) {
  return std::all_of(parts.begin(), parts.end(), [](const LinearWeight& part) {
    return part.weight.scheme.code == Code::kAdditive;
  });
}

std::unique_ptr<Linear> make_additive_linear(std::vector<LinearWeight> parts,
                                             std::shared_ptr<LinearEnvironment> environment) {
  return std::make_unique<AdditiveLinear>(std::move(parts), std::move(environment));
}

}  // namespace lowbit::cpu
