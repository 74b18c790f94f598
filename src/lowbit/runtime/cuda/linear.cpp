#include "lowbit/runtime/cuda/linear.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cuda/linear_rounded.h"
#include "lowbit/runtime/cuda/linear_wgmma.h"
#include "lowbit/runtime/host_backend.h"

namespace lowbit::cuda {

const int32_t* LinearEnvironment::device_ids(std::span<const int32_t> host) {
  for (const KnownIds& known : {tokens, logit_rows}) {
    if (std::equal(host.begin(), host.end(), known.host.begin(), known.host.end())) {
      return known.device;
    }
  }
  void* device = ids.reserve(host.size_bytes(), stream);
  LOWBIT_CUDA(
      cudaMemcpyAsync(device, host.data(), host.size_bytes(), cudaMemcpyHostToDevice, stream));
  LOWBIT_CUDA(cudaStreamSynchronize(stream));
  return static_cast<const int32_t*>(device);
}

int32_t* LinearEnvironment::zeroed_flags(int count) {
  if (!flags_) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(int32_t);
    flags_ = allocate(bytes, "flags");
    LOWBIT_CUDA(cudaMemsetAsync(flags_.get(), 0, bytes, stream));
  }
  return static_cast<int32_t*>(flags_.get());
}

namespace {

const std::vector<int32_t>& outliers_of(const QTensor& weight) {
  static const std::vector<int32_t> none;
  return weight.outliers ? weight.outliers->columns : none;
}

// A weight without its outliers, which are multiplied apart.
LinearWeight without_outliers(const LinearWeight& part) {
  LinearWeight copy = part;
  copy.weight.outliers = nullptr;
  return copy;
}

class CudaLinear : public Linear {
 public:
  CudaLinear(std::vector<LinearWeight> parts, std::shared_ptr<LinearEnvironment> environment)
      : environment_(std::move(environment)), cols_(parts[0].weight.cols) {
    LinearEnvironment& e = *environment_;
    for (size_t first = 0; first < parts.size();) {
      const Layout& layout = layout_of(parts[first]);
      size_t last = first + 1;
      while (last < parts.size() && fuses(parts[first], parts[last], layout)) ++last;
      const std::span<LinearWeight> fused(parts.data() + first, last - first);
      Piece& piece = pieces_.emplace_back(
          Piece{layout.name, static_cast<int>(rows_), pack(layout, fused), {}});
      piece.rounded = make_rounded(fused, piece.weight, e);
      rows_ += piece.weight.matrix.rows;
      for (LinearWeight& part : fused) part = LinearWeight{};
      first = last;
    }
  }

  void forward(const Tensor& x, Tensor& y) const override {
    check_linear_operands(*this, x, y);
    if (x.rows == 0) return;
    for (const Piece& piece : pieces_) multiply(piece, x, y.as<float>() + piece.first_row);
  }

  void embed(std::span<const int32_t> ids, Tensor& out) const override {
    check_embed_operands(*this, ids, out);
    if (ids.empty()) return;
    environment_->chain.flush();
    const int32_t* device = environment_->device_ids(ids);
    const int count = static_cast<int>(ids.size());
    for (const Piece& piece : pieces_) {
      const PackedMatrix& m = piece.weight.matrix;
      if (piece.weight.plain != nullptr) {
        launch_embed_f32(piece.weight.plain, piece.first_row, m.rows, m.cols, device, count,
                         out.as<float>(), environment_->stream);
      } else {
        launch_embed(m, piece.first_row, device, count, out.as<float>(), environment_->stream);
        if (piece.rounded.halves.matrix.codes != nullptr) {
          launch_embed_outliers(piece.rounded.halves.matrix, piece.rounded.outliers.columns,
                                piece.first_row, device, count, m.cols, out.as<float>(),
                                environment_->stream);
        }
      }
    }
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const Piece& piece : pieces_) bytes += piece.weight.bytes + piece.rounded.halves.bytes;
    return bytes;
  }
  std::string kernel() const override {
    std::string name;
    for (const Piece& piece : pieces_) {
      name += concat(name.empty() ? "" : "+", piece.layout, "_cuda");
      if (piece.rounded.input_bits != 0) name += concat("_a", piece.rounded.input_bits);
      if (piece.rounded.input_bits != 0 && !piece.rounded.fast) name += "_plain";
      if (piece.rounded.outliers.count > 0) name += "_outliers";
    }
    return name;
  }

 private:
  // Some neighbouring rows in one layout.
  struct Piece {
    const char* layout;
    int first_row;
    PackedWeight weight;
    RoundedPiece rounded;
  };

  bool is_apart(const LinearWeight& part) const {
    return part.weight.outliers && rounds_fast(part.weight, *environment_);
  }
  const Layout& layout_of(const LinearWeight& part) const {
    const LinearEnvironment& e = *environment_;
    return choose_layout(is_apart(part) ? without_outliers(part) : part, e.exact, e.forced_layout);
  }
  bool fuses(const LinearWeight& a, const LinearWeight& b, const Layout& layout) const {
    return a.weight.scheme == b.weight.scheme && a.weight.input_order == b.weight.input_order &&
           outliers_of(a.weight) == outliers_of(b.weight) && &layout_of(b) == &layout;
  }
  PackedWeight pack(const Layout& layout, std::span<const LinearWeight> parts) const {
    if (!is_apart(parts[0])) return layout.pack(parts, environment_->stream);
    std::vector<LinearWeight> plain;
    for (const LinearWeight& part : parts) plain.push_back(without_outliers(part));
    return layout.pack(plain, environment_->stream);
  }

  void multiply(const Piece& piece, const Tensor& x, float* y) const {
    LinearEnvironment& e = *environment_;
    PackedMatrix m = piece.weight.matrix;
    const int tokens = static_cast<int>(x.rows);
    if (piece.rounded.input_bits == 0) {
      if (tokens == 1 && m.codes != nullptr && e.chain.product(m, x.as<float>(), y)) return;
      e.chain.flush();
      multiply_inputs(piece, m, x.as<float>(), tokens, y);
      return;
    }
    e.chain.flush();
    if (piece.rounded.fast) {
      multiply_rounded(m, piece.rounded, x.as<float>(), tokens, y, rows_, e);
    } else {
      const PlainlyRounded codes = round_plainly(piece.rounded, x.as<float>(), tokens, m.cols, e);
      const float* bias = std::exchange(m.bias, nullptr);
      multiply_inputs(piece, m, codes.codes, tokens, y);
      launch_scale_outputs(codes.scales, bias, tokens, m.rows, y, rows_, e.stream);
    }
  }

  // y = x * W^T + m.bias, for the piece's matrix, with inputs as they are.
  void multiply_inputs(const Piece& piece, const PackedMatrix& m, const float* x, int tokens,
                       float* y) const {
    LinearEnvironment& e = *environment_;
    if (piece.weight.plain != nullptr) {
      launch_linear_f32(piece.weight.plain, m.bias, x, tokens, m.rows, m.cols, y, rows_, e.stream);
      return;
    }
    const LinearInput input{x, tokens, e.exact};
    if (e.forced_kernel != "tile" && stream_fits(m, input, e.shared_bytes)) {
      launch_linear_stream(m, input, y, rows_, e.processors, e.stream);
      return;
    }
    if (wgmma_serves(m, e)) {
      multiply_wgmma(m, input, y, rows_, e);
      return;
    }
    const size_t columns = (static_cast<size_t>(input.columns()) + 63) / 64 * 64;
    const size_t units = static_cast<size_t>(m.units);
    PreparedInput prepared;
    prepared.values = static_cast<uint16_t*>(
        e.prepared.reserve(columns * units * kUnitCols * sizeof(uint16_t), e.stream));
    prepared.scales = static_cast<float*>(e.row_scales.reserve(columns * sizeof(float), e.stream));
    prepared.sums = static_cast<float*>(
        e.group_sums.reserve(columns * units * (kUnitCols / 16) * sizeof(float), e.stream));
    launch_linear_tile(m, input, prepared, y, rows_, e.stream);
  }

  std::shared_ptr<LinearEnvironment> environment_;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace

std::unique_ptr<Linear> make_cuda_linear(std::vector<LinearWeight> parts,
                                         std::shared_ptr<LinearEnvironment> environment) {
  check_parts(parts);
  int64_t rows = 0;
  for (const LinearWeight& part : parts) rows += part.weight.rows;
  LOWBIT_CHECK_KIND(rows < std::numeric_limits<int32_t>::max() / 2 &&
                        parts[0].weight.cols < std::numeric_limits<int32_t>::max() / 2,
                    ErrorKind::kUnsupported, parts[0].name, ": ", rows, " x ", parts[0].weight.cols,
                    " is too large for backend cuda");
  return std::make_unique<CudaLinear>(std::move(parts), std::move(environment));
}

}  // namespace lowbit::cuda
