#include "lowbit/runtime/cpu/linear.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/base/trace.h"
#include "lowbit/runtime/cpu/additive_linear.h"
#include "lowbit/runtime/host_backend.h"
#include "lowbit/tensor/input_codes.h"
#include "lowbit/tensor/input_rounding.h"

namespace lowbit::cpu {

namespace {

constexpr int64_t kInt8Tokens = 192;  // of a work item: their codes stay in L2
constexpr int64_t kF32Tokens = 96;
constexpr int64_t kTileTokens = 16;       // of Kernels::arrange_input
constexpr int64_t kSerialWork = 1 << 14;  // multiply-adds not worth waking a thread

// Memory for an input in the form a kernel wants.
float* reserve(LinearEnvironment& environment, int64_t bytes) {
  if (environment.buffer.bytes() < bytes)
    environment.buffer = allocate_host(1, bytes, DType::kU8, Pages::kHuge);
  return environment.buffer.as<float>();
}

void permute(const float* x, const std::vector<int32_t>& order, float* out) {
  for (size_t k = 0; k < order.size(); ++k) out[k] = x[order[k]];
}

// As Kernels::quantize_input, with one scale for the token, of `bits` bits.
void quantize_token(const float* x, int64_t cols, int bits, int64_t token,
                    const QuantizedInput& out) {
  int8_t* codes = out.codes + token * out.blocks * kBlockCols;
  const float scale = round_inputs(x, cols, bits, codes);
  std::fill(codes + cols, codes + out.blocks * kBlockCols, int8_t{0});
  std::fill_n(out.scales + token * out.blocks, out.blocks, scale);
  const int64_t cells = out.blocks * kBlockCols / out.sum_cols;
  for (int64_t cell = 0; cell < cells; ++cell) {
    int32_t sum = 0;
    for (int64_t k = 0; k < out.sum_cols; ++k) sum += codes[cell * out.sum_cols + k];
    out.code_sums[token * cells + cell] = static_cast<float>(sum);
    out.starts[token * cells + cell] = out.start * sum;
    out.sums[token * cells + cell] = scale * static_cast<float>(sum);
  }
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
      Piece& piece = pieces_.emplace_back();
      piece.layout = layout.name;
      piece.first_row = rows_;
      piece.weight = layout.pack(fused, packer);
      if (environment_->scheme_inputs) piece.inputs = input_rounding(fused[0].weight);
      if (fused[0].weight.outliers) pack_outliers(fused, packer, piece);
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
      const Room room = reserve_room(piece, x.rows);
      if (int8(piece)) {
        forward_int8(piece, x, room, out);
      } else {
        forward_f32(piece, x, room, out);
      }
    }
  }

  void embed(std::span<const int32_t> ids, Tensor& out) const override;

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const Piece& piece : pieces_) bytes += piece.weight.bytes() + piece.outliers.bytes();
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
    const char* layout = nullptr;
    int64_t first_row = 0;
    PackedWeight weight;
    const char* label = nullptr;  // in traces
    InputRounding inputs;         // as the scheme says, if it is to be heeded
    // Columns whose inputs are multiplied apart, in f32: dense, [rows][columns].
    std::vector<int32_t> outlier_columns;
    PackedWeight outliers;

    // Whether f32 kernels need inputs other than x.
    bool changes_inputs() const {
      return !weight.input_order.empty() || !outlier_columns.empty() || inputs.bits != 0;
    }
  };

  // Memory for the inputs of a piece in the forms that it needs.
  struct Room {
    float* rows;      // [tokens][cols]: in order, without outliers
    float* outliers;  // [tokens][outlier columns]
    float* products;  // [tokens][rows of the piece]: of the outliers
    QuantizedInput codes;
  };

  std::string kernel_of(const Piece& piece) const {
    std::string name =
        concat(piece.layout, "_", environment_->kernels->isa, int8(piece) ? "_int8" : "_f32");
    if (piece.inputs.bits != 0) name += concat("_a", piece.inputs.bits);
    if (!piece.outlier_columns.empty()) name += "_outliers";
    return name;
  }

  bool fuses(const LinearWeight& a, const LinearWeight& b, const Layout& layout) const {
    return a.weight.scheme == b.weight.scheme && a.weight.input_order == b.weight.input_order &&
           columns_of(a.weight) == columns_of(b.weight) &&
           input_rounding(a.weight) == input_rounding(b.weight) &&
           &choose_layout(b, environment_->forced_layout) == &layout;
  }
  bool int8(const Piece& piece) const {
    return environment_->int8_inputs && piece.weight.multiplies_int8() &&
           (piece.inputs.bits == 0 || piece.inputs.has_integer_codes());
  }

  static std::vector<int32_t> columns_of(const QTensor& weight) {
    return weight.outliers ? weight.outliers->columns : std::vector<int32_t>();
  }

  static void pack_outliers(std::span<const LinearWeight> parts, Packer& packer, Piece& piece);
  Room reserve_room(const Piece& piece, int64_t tokens) const;
  const float* input_of(const Piece& piece, const Tensor& x, int64_t token, const Room& room) const;
  void forward_int8(const Piece& piece, const Tensor& x, const Room& room, float* y) const;
  void forward_f32(const Piece& piece, const Tensor& x, const Room& room, float* y) const;
  void add_outliers(const Piece& piece, const Room& room, Range tiles, Range tokens,
                    float* y) const;
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
  // unit: tiles that kernels multiply together
  Runs(int64_t tiles, int threads, int64_t unit, bool serial) : tiles_(tiles) {
    if (serial) {
      short_ = tiles;
      return;
    }
    long_ = tiles * 3 / (4 * threads) / unit * unit;
    long_runs_ = long_ > 0 ? threads : 0;
    const int64_t rest = tiles - long_runs_ * long_;
    short_ = std::clamp<int64_t>(rest / (4 * threads), unit, 64) / unit * unit;
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
  const Runs runs((matrix.rows + kTileRows - 1) / kTileRows, pool.size(), tokens < 4 ? 2 : 4,
                  matrix.rows * matrix.cols * tokens < kSerialWork);
  pool.parallel_for(
      runs.count() * token_blocks,
      [&](int64_t index, int) {
        const int64_t token = index % token_blocks * token_block;
        body(runs[index / token_blocks], Range{token, std::min(tokens, token + token_block)});
      },
      piece.label);
}

// Calls body(token), in parallel if there are many; a tile's tokens one after another.
template <typename Body>
void CpuLinear::for_tokens(int64_t tokens, const Body& body) const {
  environment_->pool->parallel_for((tokens + kTileTokens - 1) / kTileTokens,
                                   [&](int64_t index, int) {
                                     const int64_t first = index * kTileTokens;
                                     const int64_t last = std::min(tokens, first + kTileTokens);
                                     for (int64_t i = first; i < last; ++i) body(i);
                                   },
                                   "quantize_input");
}

void CpuLinear::pack_outliers(std::span<const LinearWeight> parts, Packer& packer, Piece& piece) {
  std::vector<LinearWeight> columns;
  for (const LinearWeight& part : parts) {
    columns.push_back({part.name, part.weight.outliers->weight, {}});
  }
  piece.outlier_columns = columns_of(parts[0].weight);
  // Parts of several types: f32 holds all.
  const bool alike = std::all_of(columns.begin(), columns.end(), [&](const LinearWeight& part) {
    return part.weight.scheme == columns[0].weight.scheme;
  });
  piece.outliers = choose_layout(columns[0], alike ? "" : "f32").pack(columns, packer);
}

CpuLinear::Room CpuLinear::reserve_room(const Piece& piece, int64_t tokens) const {
  const PackedMatrix& matrix = piece.weight.matrix;
  const auto outliers = static_cast<int64_t>(piece.outlier_columns.size());
  const bool tiled = int8(piece) && environment_->kernels->arrange_input != nullptr;
  const int64_t arranged = tiled ? tokens / kTileTokens * kTileTokens * matrix.blocks : 0;
  const int64_t cells = int8(piece) ? tokens * matrix.blocks : 0;
  const int64_t rows = piece.changes_inputs() ? tokens * cols_ : 0;
  const int64_t products = outliers > 0 ? tokens * matrix.rows : 0;
  float* memory =
      reserve(*environment_, arranged * (kBlockCols + 5 * 4) + cells * (kBlockCols + 7 * 4) +
                                 (rows + tokens * outliers + products) * 4);
  const auto take = [&](int64_t floats) {
    float* part = memory;
    memory += floats;
    return part;
  };
  Room room{};
  room.codes.blocks = matrix.blocks;
  room.codes.sum_cols = matrix.split_blocks ? kBlockCols / 2 : kBlockCols;
  room.codes.start = start_of(matrix);
  if (arranged > 0) {  // first, so that tiles are aligned
    room.codes.tile_codes = reinterpret_cast<int8_t*>(take(arranged * kBlockCols / 4));
    room.codes.tile_scales = take(arranged);
    room.codes.tile_sums = take(2 * arranged);
    room.codes.tile_code_sums = take(2 * arranged);
  }
  room.codes.codes = reinterpret_cast<int8_t*>(take(cells * kBlockCols / 4));
  room.codes.scales = take(cells);
  room.codes.sums = take(2 * cells);
  room.codes.code_sums = take(2 * cells);
  room.codes.starts = reinterpret_cast<int32_t*>(take(2 * cells));
  room.rows = take(rows);
  room.outliers = take(tokens * outliers);
  room.products = take(products);
  return room;
}

// A token's input as the piece multiplies it: permuted, its outliers taken out.
const float* CpuLinear::input_of(const Piece& piece, const Tensor& x, int64_t token,
                                 const Room& room) const {
  const float* row = x.row(token);
  const std::vector<int32_t>& order = piece.weight.input_order;
  if (order.empty() && piece.outlier_columns.empty()) return row;
  float* out = room.rows + token * cols_;
  if (order.empty()) {
    std::copy_n(row, cols_, out);
  } else {
    permute(row, order, out);
  }
  float* outliers = room.outliers + token * static_cast<int64_t>(piece.outlier_columns.size());
  for (const int32_t column : piece.outlier_columns) {
    *outliers++ = row[column];
    out[column] = 0;  // never with an order
  }
  return out;
}

// y += outliers * their weights
void CpuLinear::add_outliers(const Piece& piece, const Room& room, Range tiles, Range tokens,
                             float* y) const {
  if (piece.outlier_columns.empty()) return;
  const int64_t rows = piece.weight.matrix.rows;
  environment_->kernels->linear_f32(piece.outliers.matrix, room.outliers,
                                    static_cast<int64_t>(piece.outlier_columns.size()), tiles,
                                    tokens, room.products, rows);
  for (int64_t token = tokens.first; token < tokens.last; ++token) {
    for (int64_t row = tiles.first * kTileRows; row < std::min(rows, tiles.last * kTileRows);
         ++row) {
      y[token * rows_ + row] += room.products[token * rows + row];
    }
  }
}

void CpuLinear::forward_int8(const Piece& piece, const Tensor& x, const Room& room,
                             float* y) const {
  const Kernels& kernels = *environment_->kernels;
  for_tokens(x.rows, [&](int64_t token) {
    const float* row = input_of(piece, x, token, room);
    if (piece.inputs.bits != 0) {
      quantize_token(row, cols_, piece.inputs.bits, token, room.codes);
    } else {
      kernels.quantize_input(row, cols_, token, room.codes);
    }
    if (room.codes.tile_codes != nullptr && token % kTileTokens == kTileTokens - 1) {
      kernels.arrange_input(token / kTileTokens, room.codes);
    }
  });
  for_work(piece, x.rows, kInt8Tokens, [&](Range tiles, Range tokens) {
    kernels.linear_int8(piece.weight.matrix, room.codes, tiles, tokens, y, rows_);
    add_outliers(piece, room, tiles, tokens, y);
  });
}

void CpuLinear::forward_f32(const Piece& piece, const Tensor& x, const Room& room, float* y) const {
  const float* input = x.as<float>();
  if (piece.changes_inputs()) {
    input = room.rows;
    for_tokens(x.rows, [&](int64_t token) {
      const float* row = input_of(piece, x, token, room);
      if (piece.inputs.bits == 0) return;
      round_input_values(piece.inputs, row, cols_, room.rows + token * cols_);
    });
  }
  for_work(piece, x.rows, kF32Tokens, [&](Range tiles, Range tokens) {
    environment_->kernels->linear_f32(piece.weight.matrix, input, cols_, tiles, tokens, y, rows_);
    add_outliers(piece, room, tiles, tokens, y);
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
      if (piece->outlier_columns.empty()) continue;
      environment_->kernels->unpack_tile(piece->outliers.matrix, row / kTileRows, tile.data());
      for (size_t j = 0; j < piece->outlier_columns.size(); ++j) {
        out.row(i)[piece->outlier_columns[j]] = tile[j * kTileRows + row % kTileRows];
      }
    }
  });
}

}  // namespace

std::unique_ptr<Linear> make_cpu_linear(std::vector<LinearWeight> parts,
                                        std::shared_ptr<LinearEnvironment> environment) {
  check_parts(parts);
  if (environment->forced_layout.empty() && are_additive(parts)) {
    return make_additive_linear(std::move(parts), std::move(environment));
  }
  return std::make_unique<CpuLinear>(std::move(parts), std::move(environment));
}

}  // namespace lowbit::cpu
