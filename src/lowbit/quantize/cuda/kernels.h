// What the host code of the CUDA quantizers and their kernels share. Launches enqueue on the
// stream; errors throw kDevice. All matrices are row-major in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lowbit/quantize/group_math.h"

namespace lowbit::cuda {

// The first place where something was wrong, all bits set if nothing was.
struct Faults {
  unsigned long long not_finite;  // index of a weight
  unsigned long long overflow;    // index of a group whose scale fp16 cannot hold
};
constexpr unsigned long long kNoFault = ~0ull;

// Dense 16-bit weights as fp32.
void launch_widen(const uint16_t* from, bool brain, int64_t count, float* to, cudaStream_t stream);
void launch_check_finite(const float* weight, int64_t count, Faults* faults, cudaStream_t stream);

// Groups of columns that follow one another in a row: `groups` of each row from `weight` on, which
// is the first row's first. Group g of row r is entry r * stride_out + g of the results.
struct GroupsView {
  const float* weight = nullptr;
  int64_t row_stride = 0;
  int64_t rows = 0;
  int64_t groups = 0;
  int64_t size = 0;
  int64_t stride_out = 0;

  constexpr int64_t count() const { return rows * groups; }
};
struct GridsOut {
  float* scales = nullptr;
  uint8_t* zeros = nullptr;  // null if symmetric
  Faults* faults = nullptr;
};
// importance: of each of the view's columns, for GridSearch::kWeighted.
void launch_fit_grids(const GroupsView& view, const GridRequest& request, const float* importance,
                      const GridsOut& out, cudaStream_t stream);

// codes[row][column], a byte each, of weights and their groups' grids.
void launch_grid_codes(const GroupsView& view, int bits, const float* scales, const uint8_t* zeros,
                       uint8_t* codes, cudaStream_t stream);
// Bytes to the bit streams of rows. packed: [rows][(cols * bits + 7) / 8]
void launch_pack_codes(const uint8_t* codes, int64_t rows, int64_t cols, int bits, uint8_t* packed,
                       cudaStream_t stream);

// HQQ. scales: codes per unit of weight, until hqq_codes makes weights per code of them; zeros
// become offsets.
struct HqqState {
  float* scales = nullptr;
  float* zeros = nullptr;
  float* magnitudes = nullptr;   // [rows][groups] of errors
  double* row_errors = nullptr;  // [rows]
  double* best = nullptr;        // the least sum so far
  int* stopped = nullptr;        // iterations do nothing any more
};
void launch_hqq_start(const GroupsView& view, int bits, const HqqState& state, cudaStream_t stream);
void launch_hqq_step(const GroupsView& view, int bits, const HqqState& state, cudaStream_t stream);
void launch_hqq_codes(const GroupsView& view, int bits, const HqqState& state, Faults* faults,
                      uint8_t* codes, cudaStream_t stream);

// hessian += x^T x of [tokens][cols], lower half (whole tiles of 128). halves: [tokens][padded
// cols], scratch; exponents: [padded cols], scratch.
constexpr int kMomentTile = 128;
constexpr int64_t padded_columns(int64_t cols) {
  return (cols + kMomentTile - 1) / kMomentTile * kMomentTile;
}
void launch_add_moments(const float* x, int64_t tokens, int64_t cols, uint16_t* halves,
                        int* exponents, double* hessian, cudaStream_t stream);

// In place: the lower half of `a`, [size][stride], is a symmetric matrix H with H = L L^T, its
// upper half becomes inverse(L)^T, diagonal included; the lower half is spoiled. size: a multiple
// of kPanel. panel: kPanel^2 scratch. failed is set if a pivot is not positive.
constexpr int kPanel = 64;
void launch_inverse_cholesky(double* a, int64_t size, double* panel, int* failed,
                             cudaStream_t stream);
// a = H in this order, reversed, plus `damping` on the diagonal; diagonal entries that are 0 count
// as 1, and rows and columns from `cols` on are those of the unit matrix.
void launch_arrange(const double* hessian, int64_t cols, int64_t stride, const int32_t* order,
                    double damping, double* a, int64_t size, cudaStream_t stream);
// factor[i][j] = a[cols - 1 - i][cols - 1 - j], lower half; zeros above.
void launch_take_factor(const double* a, int64_t size, int64_t cols, float* factor,
                        cudaStream_t stream);

// Zeros in the columns that are marked.
void launch_zero_columns(float* weight, int64_t rows, int64_t cols, const uint8_t* marked,
                         cudaStream_t stream);
// permuted[row][step] = weight[row][order[step]]
void launch_permute(const float* weight, int64_t rows, int64_t cols, const int32_t* order,
                    float* permuted, cudaStream_t stream);
// Steps [begin, end) of GPTQ, at most kGptqSteps.
constexpr int kGptqSteps = 128;
struct GptqRound {
  float* permuted = nullptr;  // [rows][cols]
  float* errors = nullptr;    // [rows][kGptqSteps]
  const float* factor = nullptr;
  const int32_t* order = nullptr;
  const float* scales = nullptr;  // [rows][groups]
  const uint8_t* zeros = nullptr;
  uint8_t* codes = nullptr;  // [rows][cols]
  int64_t rows = 0, cols = 0, groups = 0, group_size = 0;
  int bits = 4;
  bool by_step = false;        // groups are of steps, not of columns
  bool codes_by_step = false;  // so are codes
};
void launch_gptq_steps(const GptqRound& round, int64_t begin, int64_t end, cudaStream_t stream);
// Takes their errors out of all later columns.
void launch_gptq_update(const GptqRound& round, int64_t begin, int64_t end, cudaStream_t stream);

}  // namespace lowbit::cuda
