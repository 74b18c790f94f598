// Products of inputs that are rounded to 8 bits or less, token by token: what host code and kernels
// share.
//
//   y[t][n] = (sum over k of code_w[n][k] * code_x[t][k], scaled) * scale_x[t] + outliers + bias
//
// Integer codes with a scale for each row are summed in integers, exactly, in any order. Other sums
// (scales of groups, 8-bit floats) are made in fp32: the products of a unit of 128 columns by the
// tensor cores, units of a piece in order, four pieces of the columns in order. Outliers are
// products of halves that are added to that, 16 columns at a time, in order.
#pragma once

#include <cuda.h>

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

constexpr int pieces_of(bool in_fp32) { return in_fp32 ? 4 : 8; }
constexpr int kOutlierCols = 64;           // of a unit of outliers
constexpr int kRoundedTokens = 256;        // the most columns of inputs of a tile
constexpr int kMostRoundedCols = 1 << 17;  // integers of 8 bits: 2^7 * 2^7 * 2^17 = 2^31

// How inputs are rounded.
enum class Rounding : int { kInt8, kInt4, kE4M3 };

// Inputs as wgmma reads them: rows of 128 bytes, one token's inputs of a unit; eight tokens are a
// KiB, in which the 16-byte parts of a row are exchanged by token % 8.
struct RoundedInput {
  uint8_t* codes = nullptr;         // [units][stride / 8][8][128]
  uint8_t* outliers = nullptr;      // [outlier units][stride / 8][8][128]: halves
  float* scales = nullptr;          // [stride]
  float* outlier_scales = nullptr;  // [stride]: powers of two; if there are outliers
  int64_t stride = 0;               // tokens, up to a multiple of kRoundedTokens
};

// Columns whose inputs are not rounded, in device memory.
struct OutlierView {
  int count = 0;
  const int32_t* columns = nullptr;
  const uint32_t* bits = nullptr;  // of all columns of the units: those that are outliers
};

// x: fp32 [tokens][cols]. limit: the largest code. wide: as linear_rounded takes them, in the order
// of the weight's storage.
void launch_round_inputs(const PackedMatrix& matrix, const float* x, int tokens, Rounding rounding,
                         float limit, const OutlierView& outliers, const RoundedInput& to,
                         cudaStream_t stream);
// The same for kernels that multiply plainly: codes as floats, outliers over the scale as they are.
void launch_round_plainly(int cols, const float* x, int tokens, Rounding rounding, float limit,
                          const OutlierView& outliers, float* codes, float* scales,
                          cudaStream_t stream);
// y[t][n] = y[t][n] * scales[t] + bias[n]
void launch_scale_outputs(const float* scales, const float* bias, int tokens, int rows, float* y,
                          int64_t y_stride, cudaStream_t stream);

// The tiles of a product, of 128 rows in each of a cluster's two blocks x `columns` tokens. The
// first split_tiles are cut into pieces, which split_clusters share; the others are taken whole.
struct RoundedPlan {
  int columns = 0, clusters = 0, row_pairs = 0, column_tiles = 0;
  int split_tiles = 0, split_clusters = 0;
  constexpr int tiles() const { return row_pairs * column_tiles; }
};
RoundedPlan plan_rounded(const PackedMatrix& matrix, int tokens, int processors);

// How copies find the weight: its codes, the scales of groups, and the halves of outliers.
struct RoundedMaps {
  CUtensorMap codes, records, outliers;
};
// outliers: a matrix of halves, or null. Throws kDevice.
RoundedMaps rounded_maps(const PackedMatrix& matrix, const PackedMatrix* outliers);

// Memory that clusters share in a split tile, and flags: zeros between launches.
struct RoundedShare {
  float* partials = nullptr;
  int32_t* flags = nullptr;
};
int64_t rounded_partials(const RoundedPlan& plan, const PackedMatrix& matrix);  // floats
constexpr int rounded_flags(int clusters) { return clusters * 4; }

// Whether linear_rounded multiplies such weights.
bool rounds_fast(const PackedMatrix& matrix);
// A block's shared memory must hold 227 KiB; sm_90a.
void launch_linear_rounded(const PackedMatrix& matrix, const RoundedMaps& maps, int outliers,
                           const RoundedInput& input, int tokens, const RoundedPlan& plan,
                           const RoundedShare& share, float* y, int64_t y_stride,
                           cudaStream_t stream);

}  // namespace lowbit::cuda
