#include "lowbit/runtime/cuda/linear_rounded.h"

#include <algorithm>

#include "lowbit/runtime/cuda/tensor_maps.h"
#include "lowbit/tensor/codebook.h"

namespace lowbit::cuda {

namespace {

constexpr int kTileBox = 8;  // tiles of 16 rows that a block copies at once

template <typename T>
const T* upload(RoundedPiece& piece, const std::vector<T>& values, cudaStream_t stream) {
  const size_t bytes = values.size() * sizeof(T);
  piece.storage.push_back(allocate(bytes, "outlier columns"));
  void* to = piece.storage.back().get();
  LOWBIT_CUDA(cudaMemcpyAsync(to, values.data(), bytes, cudaMemcpyHostToDevice, stream));
  LOWBIT_CUDA(cudaStreamSynchronize(stream));  // `values` may be gone before the copy
  return static_cast<const T*>(to);
}

void view_outliers(const QTensor& weight, int units, RoundedPiece& piece, cudaStream_t stream) {
  const std::vector<int32_t>& columns = weight.outliers->columns;
  std::vector<uint32_t> bits(static_cast<size_t>(units) * (kUnitCols / 32));
  for (const int32_t k : columns) bits[static_cast<size_t>(k / 32)] |= uint32_t{1} << (k % 32);
  piece.outliers.count = static_cast<int>(columns.size());
  piece.outliers.columns = upload(piece, columns, stream);
  piece.outliers.bits = upload(piece, bits, stream);
}

// The outliers' weights, packed as a linear layer of halves.
PackedWeight pack_halves(std::span<const LinearWeight> parts, cudaStream_t stream) {
  std::vector<LinearWeight> halves;
  for (const LinearWeight& part : parts) {
    halves.push_back({part.name, part.weight.outliers->weight, {}});
  }
  return choose_layout(halves[0], false, "f16").pack(halves, stream);
}

RoundedMaps maps_of(const PackedMatrix& m, const PackedMatrix* halves) {
  const int64_t tiles = (m.rows + kTileRows - 1) / kTileRows;
  const int unit_bytes = lane_words(m.storage) * 512;
  RoundedMaps maps = {};
  maps.codes = map_of_bytes(m.codes, tiles, int64_t{m.units} * unit_bytes, kTileBox, unit_bytes);
  if (m.records > 1) {
    maps.records = map_of_bytes(m.scales, tiles, int64_t{m.records} * m.record_bytes, kTileBox,
                                m.record_bytes);
  }
  if (halves != nullptr) {
    const int half_bytes = lane_words(Storage::kF16) * 512;
    maps.outliers = map_of_bytes(halves->codes, tiles, int64_t{halves->units} * half_bytes,
                                 kTileBox, half_bytes * kOutlierCols / kUnitCols);
  }
  return maps;
}

// Which linear_rounded can hold, with the outliers beside it.
bool holds(const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  const bool code = scheme.code == Code::kInt || scheme.code == Code::kE4M3;
  const bool groups = scheme.group_size >= weight.cols || scheme.group_size % kUnitCols == 0;
  return code && scheme.zero == Zero::kNone && groups && weight.cols < kMostRoundedCols;
}

}  // namespace

bool rounds_fast(const QTensor& weight, const LinearEnvironment& environment) {
  const std::string& layout = environment.forced_layout;
  const bool packed = layout.empty() || layout == "q4" || layout == "q8" || layout == "e4m3";
  return weight.scheme.input_bits != 0 && !environment.exact && environment.rounded && packed &&
         holds(weight);
}

RoundedPiece make_rounded(std::span<const LinearWeight> parts, const PackedWeight& weight,
                          const LinearEnvironment& environment) {
  RoundedPiece piece;
  const QTensor& first = parts[0].weight;
  if (first.scheme.input_bits == 0 || environment.exact) return piece;
  const PackedMatrix& m = weight.matrix;
  piece.input_bits = first.scheme.input_bits;
  piece.limit = first.scheme.code == Code::kE4M3
                    ? kE4M3Max
                    : static_cast<float>((1 << (piece.input_bits - 1)) - 1);
  piece.rounding = first.scheme.code == Code::kE4M3 ? Rounding::kE4M3
                   : m.storage == Storage::kInt4    ? Rounding::kInt4
                                                    : Rounding::kInt8;
  if (first.outliers) {
    view_outliers(first, (m.cols + kUnitCols - 1) / kUnitCols, piece, environment.stream);
  }
  piece.fast = rounds_fast(first, environment);
  if (!piece.fast) return piece;
  if (first.outliers) piece.halves = pack_halves(parts, environment.stream);
  piece.maps = maps_of(m, first.outliers ? &piece.halves.matrix : nullptr);
  return piece;
}

void multiply_rounded(const PackedMatrix& matrix, const RoundedPiece& piece, const float* x,
                      int tokens, float* y, int64_t y_stride, LinearEnvironment& environment) {
  LinearEnvironment& e = environment;
  const int outlier_units = (piece.outliers.count + kOutlierCols - 1) / kOutlierCols;
  RoundedInput input;
  input.stride = (int64_t{tokens} + kRoundedTokens - 1) / kRoundedTokens * kRoundedTokens;
  const auto columns = static_cast<size_t>(input.stride);
  const size_t row_units = static_cast<size_t>(matrix.units + outlier_units);
  input.codes =
      static_cast<uint8_t*>(e.prepared.reserve(columns * row_units * kUnitCols, e.stream));
  input.outliers = input.codes + columns * static_cast<size_t>(matrix.units) * kUnitCols;
  input.scales = static_cast<float*>(e.row_scales.reserve(2 * columns * sizeof(float), e.stream));
  input.outlier_scales = input.scales + columns;
  launch_round_inputs(matrix, x, tokens, piece.rounding, piece.limit, piece.outliers, input,
                      e.stream);
  const RoundedPlan plan = plan_rounded(matrix, tokens, e.processors);
  RoundedShare share;
  const int64_t partials = rounded_partials(plan, matrix);
  if (partials > 0) {
    share.partials = static_cast<float*>(
        e.partials.reserve(static_cast<size_t>(partials) * sizeof(float), e.stream));
    share.flags = e.zeroed_flags(rounded_flags(e.processors));
  }
  launch_linear_rounded(matrix, piece.maps, piece.outliers.count, input, tokens, plan, share, y,
                        y_stride, e.stream);
}

PlainlyRounded round_plainly(const RoundedPiece& piece, const float* x, int tokens, int cols,
                             LinearEnvironment& environment) {
  LinearEnvironment& e = environment;
  const auto count = static_cast<size_t>(tokens) * static_cast<size_t>(cols);
  auto* codes = static_cast<float*>(e.plain_codes.reserve(count * sizeof(float), e.stream));
  auto* scales = static_cast<float*>(
      e.plain_scales.reserve(static_cast<size_t>(tokens) * sizeof(float), e.stream));
  launch_round_plainly(cols, x, tokens, piece.rounding, piece.limit, piece.outliers, codes, scales,
                       e.stream);
  return {codes, scales};
}

}  // namespace lowbit::cuda
