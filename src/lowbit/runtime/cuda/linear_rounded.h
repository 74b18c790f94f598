// Linears whose scheme rounds their inputs (tensor/input_codes.h).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "lowbit/runtime/cuda/linear.h"
#include "lowbit/runtime/cuda/rounded.h"

namespace lowbit::cuda {

// How the inputs of a piece are rounded, and what is not: beside its packed weight.
struct RoundedPiece {
  int input_bits = 0;  // 0: as they come
  Rounding rounding = Rounding::kInt8;
  float limit = 0;      // the largest code
  bool fast = false;    // linear_rounded multiplies it
  PackedWeight halves;  // fast: of the outliers, if there are any
  OutlierView outliers;
  std::vector<std::shared_ptr<void>> storage;  // of what `outliers` views
  RoundedMaps maps = {};                       // fast
};

// Whether linear_rounded will multiply the weight, and its outliers beside it: such a weight is
// packed without them.
bool rounds_fast(const QTensor& weight, const LinearEnvironment& environment);

// For neighbouring parts of one scheme with the same outliers, packed as `weight`.
RoundedPiece make_rounded(std::span<const LinearWeight> parts, const PackedWeight& weight,
                          const LinearEnvironment& environment);

// y[t][row] of a fast piece.
void multiply_rounded(const PackedMatrix& matrix, const RoundedPiece& piece, const float* x,
                      int tokens, float* y, int64_t y_stride, LinearEnvironment& environment);

// For other pieces: codes as floats, which are multiplied as any inputs; scales of tokens, by which
// launch_scale_outputs multiplies the result.
struct PlainlyRounded {
  const float *codes, *scales;
};
PlainlyRounded round_plainly(const RoundedPiece& piece, const float* x, int tokens, int cols,
                             LinearEnvironment& environment);

}  // namespace lowbit::cuda
