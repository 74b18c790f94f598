#include "lowbit/runtime/cpu/linear.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/base/trace.h"
#include "lowbit/runtime/host_backend.h"

namespace lowbit::cpu {

namespace {

constexpr int64_t kInt8Tokens = 64;  // of a work item: their codes stay in L2
constexpr int64_t kF32Tokens = 96;
constexpr int64_t kSerialWork = 1 << 14;  // multiply-adds not worth waking a thread

// Memory for an input in the form a kernel wants.
float* reserve(LinearEnvironment& environment, int64_t bytes) {
  if (environment.buffer.bytes() < bytes) environment.buffer = allocate_host(1, bytes, DType::kU8);
  return environment.buffer.as<float>();
}

void permute(const float* x, const std::vector<int32_t>& order, float* out) {
  for (size_t k = 0; k < order.size(); ++k) out[k] = x[order[k]];
}

class CpuLinear : public Linear {
 public:
  CpuLinear(std::vector<LinearWeight> parts, std::shared_ptr<LinearEnvironment> environment)
      : environment_(std::move(environment)), cols_(parts[0].weight.cols) {
    Packer packer{*environment_->pool, environment_->arena};
    for (size_t first = 0; first < parts.size();) {
      const Layout& layout = choose_layout(parts[first], environment_->forced_layout);
      size_t last = first + 1;
      while (last < parts.size() && fuses(parts[first], parts[last], layout)) ++last;
      const std::span<LinearWeight> fused(parts.data() + first, last - first);
      pieces_.push_back({layout.name, rows_, layout.pack(fused, packer), nullptr});
      Piece& piece = pieces_.back();
      rows_ += piece.weight.matrix.rows;
      piece.label =
          trace::label(concat(kernel_of(piece), " ", piece.weight.matrix.rows, "x", cols_));
      for (LinearWeight& part : fused) part = LinearWeight{};
      first = last;
    }
  }

  void forward(const Tensor& x, Tensor& y) const override {
    check_linear_operands(*this, x, y);
    if (x.rows == 0) return;
    for (const Piece& piece : pieces_) {
      float* out = y.as<float>() + piece.first_row;
      if (int8(piece)) {
        forward_int8(piece, x, out);
      } else {
        forward_f32(piece, x, out);
      }
    }
  }

  void embed(std::span<const int32_t> ids, Tensor& out) const override;

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const Piece& piece : pieces_) bytes += piece.weight.bytes();
    return bytes;
  }
  std::string kernel() const override {
    std::string name;
    for (const Piece& piece : pieces_) {
      name += concat(name.empty() ? "" : "+", kernel_of(piece));
    }
    return name;
  }

 private:
  // Some neighbouring rows in one layout.
  struct Piece {
    const char* layout;
    int64_t first_row;
    PackedWeight weight;
    const char* label;  // in traces
  };

  std::string kernel_of(const Piece& piece) const {
    return concat(piece.layout, "_", environment_->kernels->isa, int8(piece) ? "_int8" : "_f32");
  }

  bool fuses(const LinearWeight& a, const LinearWeight& b, const Layout& layout) const {
    return a.weight.scheme == b.weight.scheme && a.weight.input_order == b.weight.input_order &&
           &choose_layout(b, environment_->forced_layout) == &layout;
  }
  bool int8(const Piece& piece) const {
    return environment_->int8_inputs && piece.weight.multiplies_int8();
  }

  void forward_int8(const Piece& piece, const Tensor& x, float* y) const;
  void forward_f32(const Piece& piece, const Tensor& x, float* y) const;
  template <typename Body>
  void for_work(const Piece& piece, int64_t tokens, int64_t token_block, const Body& body) const;
  template <typename Body>
  void for_tokens(int64_t tokens, const Body& body) const;

  std::shared_ptr<LinearEnvironment> environment_;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<Piece> pieces_;
};

// How the tiles of a product are handed out: first a long run to each thread, since every start of
// a run waits for memory, then short ones, which even out what else the machine does.
class Runs {
 public:
  Runs(int64_t tiles, int threads, bool serial) : tiles_(tiles) {
    if (serial) {
      short_ = tiles;
      return;
    }
    long_ = tiles * 3 / (4 * threads) / 2 * 2;  // tiles are multiplied in pairs
    long_runs_ = long_ > 0 ? threads : 0;
    const int64_t rest = tiles - long_runs_ * long_;
    short_ = std::clamp<int64_t>(rest / (4 * threads), 2, 64) / 2 * 2;
  }
  int64_t count() const {
    const int64_t rest = tiles_ - long_runs_ * long_;
    return long_runs_ + (rest + short_ - 1) / short_;
  }
  Range operator[](int64_t index) const {
    if (index < long_runs_) return {index * long_, (index + 1) * long_};
    const int64_t first = long_runs_ * long_ + (index - long_runs_) * short_;
    return {first, std::min(tiles_, first + short_)};
  }

 private:
  int64_t tiles_, long_ = 0, long_runs_ = 0, short_ = 1;
};

// Calls body(tiles, tokens) for rectangles that cover the output.
template <typename Body>
void CpuLinear::for_work(const Piece& piece, int64_t tokens, int64_t token_block,
                         const Body& body) const {
  const PackedMatrix& matrix = piece.weight.matrix;
  ThreadPool& pool = *environment_->pool;
  const int64_t token_blocks = (tokens + token_block - 1) / token_block;
  const Runs runs((matrix.rows + kTileRows - 1) / kTileRows, pool.size(),
                  matrix.rows * matrix.cols * tokens < kSerialWork);
  pool.parallel_for(
      runs.count() * token_blocks,
      [&](int64_t index, int) {
        const int64_t token = index % token_blocks * token_block;
        body(runs[index / token_blocks], Range{token, std::min(tokens, token + token_block)});
      },
      piece.label);
}

// Calls body(token), in parallel if there are many.
template <typename Body>
void CpuLinear::for_tokens(int64_t tokens, const Body& body) const {
  constexpr int64_t kChunk = 8;
  environment_->pool->parallel_for((tokens + kChunk - 1) / kChunk,
                                   [&](int64_t index, int) {
                                     for (int64_t i = index * kChunk;
                                          i < std::min(tokens, (index + 1) * kChunk); ++i)
                                       body(i);
                                   },
                                   "quantize_input");
}

void CpuLinear::forward_int8(const Piece& piece, const Tensor& x, float* y) const {
  const PackedWeight& weight = piece.weight;
  const PackedMatrix& matrix = weight.matrix;
  const Kernels& kernels = *environment_->kernels;
  QuantizedInput input;
  input.blocks = matrix.blocks;
  input.sum_cols = matrix.split_blocks ? kBlockCols / 2 : kBlockCols;
  const int64_t cells = x.rows * matrix.blocks;
  const int64_t ordered = weight.input_order.empty() ? 0 : x.rows * cols_;
  float* memory = reserve(*environment_, cells * (kBlockCols + 5 * 4) + ordered * 4);
  input.codes = reinterpret_cast<int8_t*>(memory);
  input.scales = memory + cells * kBlockCols / 4;
  input.sums = input.scales + cells;
  input.code_sums = reinterpret_cast<int32_t*>(input.sums + 2 * cells);
  float* permuted = input.sums + 4 * cells;
  for_tokens(x.rows, [&](int64_t token) {
    const float* row = x.row(token);
    if (ordered != 0) {
      permute(row, weight.input_order, permuted + token * cols_);
      row = permuted + token * cols_;
    }
    kernels.quantize_input(row, cols_, token, input);
  });
  for_work(piece, x.rows, kInt8Tokens, [&](Range tiles, Range tokens) {
    kernels.linear_int8(matrix, input, tiles, tokens, y, rows_);
  });
}

void CpuLinear::forward_f32(const Piece& piece, const Tensor& x, float* y) const {
  const PackedWeight& weight = piece.weight;
  const float* input = x.as<float>();
  if (!weight.input_order.empty()) {
    float* permuted = reserve(*environment_, x.bytes());
    for_tokens(x.rows, [&](int64_t token) {
      permute(x.row(token), weight.input_order, permuted + token * cols_);
    });
    input = permuted;
  }
  for_work(piece, x.rows, kF32Tokens, [&](Range tiles, Range tokens) {
    environment_->kernels->linear_f32(weight.matrix, input, cols_, tiles, tokens, y, rows_);
  });
}

void CpuLinear::embed(std::span<const int32_t> ids, Tensor& out) const {
  check_embed_operands(*this, ids, out);
  const int64_t padded = (cols_ + kBlockCols - 1) / kBlockCols * kBlockCols;
  constexpr int64_t kChunk = 8;
  const int64_t count = static_cast<int64_t>(ids.size());
  environment_->pool->parallel_for((count + kChunk - 1) / kChunk, [&](int64_t index, int) {
    std::vector<float> tile(padded * kTileRows);
    for (int64_t i = index * kChunk; i < std::min(count, (index + 1) * kChunk); ++i) {
      const auto piece = std::find_if(pieces_.rbegin(), pieces_.rend(),
                                      [&](const Piece& p) { return p.first_row <= ids[i]; });
      const int64_t row = ids[i] - piece->first_row;
      environment_->kernels->unpack_tile(piece->weight.matrix, row / kTileRows, tile.data());
      const std::vector<int32_t>& order = piece->weight.input_order;
      for (int64_t k = 0; k < cols_; ++k) {
        out.row(i)[order.empty() ? k : order[k]] = tile[k * kTileRows + row % kTileRows];
      }
    }
  });
}

}  // namespace

std::unique_ptr<Linear> make_cpu_linear(std::vector<LinearWeight> parts,
                                        std::shared_ptr<LinearEnvironment> environment) {
  check_parts(parts);
  return std::make_unique<CpuLinear>(std::move(parts), std::move(environment));
}

}  // namespace lowbit::cpu
