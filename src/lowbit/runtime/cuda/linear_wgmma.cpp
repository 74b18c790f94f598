#include "lowbit/runtime/cuda/linear_wgmma.h"

#include <limits>

namespace lowbit::cuda {

namespace {

// A way to multiply: tiles of rows x columns, one in each pair of multiprocessors at a time. What a
// round of such tiles takes on an H200, in microseconds: for itself, and for each unit of 128
// columns of the weight, with codes of up to 8 bits or of 16.
struct Way {
  bool split;
  int rows, columns;
  double round, unit8, unit16;
};
constexpr Way kWays[] = {
    {true, 64, 16, 0.2, 0.14, 0.26},    {true, 64, 32, 1.5, 0.15, 0.29},
    {true, 64, 64, 3.0, 0.20, 0.38},    {false, 128, 128, 1.0, 0.75, 0.60},
    {false, 256, 128, 1.0, 1.25, 1.05},
};

int tiles_of(int count, int size) { return (count + size - 1) / size; }

const Way& choose(const PackedMatrix& m, int columns, int processors) {
  const Way* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const Way& way : kWays) {
    const int rounds = tiles_of(tiles_of(m.rows, way.rows) * tiles_of(columns, way.columns),
                                std::max(1, processors / 2));
    const double unit = lane_words(m.storage) == 8 ? way.unit16 : way.unit8;
    const double time = rounds * (way.round + m.units * unit);
    if (time < least) least = time, best = &way;
  }
  return *best;
}

}  // namespace

bool wgmma_serves(const PackedMatrix& matrix, const LinearEnvironment& environment) {
  const int64_t tile_row_bytes = int64_t{matrix.units} * lane_words(matrix.storage) * 512;
  if (!environment.wgmma || tile_row_bytes > std::numeric_limits<int32_t>::max()) return false;
  if (!environment.forced_kernel.empty()) return environment.forced_kernel == "wgmma";
  const bool dense = matrix.record_bytes == 0;
  return dense || (matrix.fold == 8 && matrix.storage != Storage::kTable4);
}

void multiply_wgmma(const PackedMatrix& matrix, const LinearInput& input, float* y,
                    int64_t y_stride, LinearEnvironment& environment) {
  LinearEnvironment& e = environment;
  const size_t units = static_cast<size_t>(matrix.units);
  const auto columns = static_cast<size_t>(tiles_of(input.columns(), kWideColumns)) * kWideColumns;
  WideInput wide;
  wide.stride = static_cast<int64_t>(columns);
  wide.values = static_cast<uint16_t*>(
      e.prepared.reserve(columns * units * kUnitCols * sizeof(uint16_t), e.stream));
  wide.scales = static_cast<float*>(e.row_scales.reserve(columns * sizeof(float), e.stream));
  wide.sums = static_cast<float*>(
      e.group_sums.reserve(columns * units * (kUnitCols / 16) * sizeof(float), e.stream));
  launch_prepare_wide(matrix, input, wide, e.stream);
  const Way& way = choose(matrix, input.columns(), e.processors);
  if (way.split) {
    launch_linear_split(matrix, input, wide, way.columns, y, y_stride, e.stream);
  } else {
    // A cluster's two blocks take the rows.
    launch_linear_wide(matrix, input, wide, way.rows / 2, y, y_stride, e.processors, e.stream);
  }
}

}  // namespace lowbit::cuda
