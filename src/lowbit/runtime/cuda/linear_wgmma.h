// Products of many tokens on Hopper: which kernel takes them.
#pragma once

#include "lowbit/runtime/cuda/linear.h"

namespace lowbit::cuda {

// Whether the kernels on wgmma multiply such weights. Those with groups of less than 128 columns
// and with tables are multiplied by linear_tile unless LOWBIT_CUDA_LINEAR=wgmma.
bool wgmma_serves(const PackedMatrix& matrix, const LinearEnvironment& environment);

// y[t][row], with the same bits as linear_stream and linear_tile.
void multiply_wgmma(const PackedMatrix& matrix, const LinearInput& input, float* y,
                    int64_t y_stride, LinearEnvironment& environment);

}  // namespace lowbit::cuda
