// MixQ's second copy of a weight, `q_weight`, which its programs multiply up to 32 tokens by
// without rounding the inputs, in the layouts of their GPU kernels:
//
//   I8   [K][N]    8 bits as FasterTransformer's and EETQ's mixed GEMM wants them on sm75 to sm89,
//                  scales q_scale_col (MIXQ: scale_col) [N]
//   I32  [N][K/8]  4 bits plus 8; the fields of a word are columns 0, 2, 4, 6, 1, 3, 5, 7 of eight;
//                  scales q_scale_col [1][N]
//
// MIXQ, the older program, calls a weight itself q_weight: I8 [N][K], or U8 [N][K/2] as `weight`,
// with scales scale_col [1][N].
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

// The weight of q_weight where a checkpoint has no `weight`. Its inputs are not rounded in the
// first two layouts; in the others as `input_bits_of(bits)` says. Outlier columns are not read.
// Without `with_codes`, shape and scheme only. Throws as CheckpointFormat::read.
QTensor read_mixq_copy(const TensorSource& source, const std::string& module,
                       const std::function<int(int bits)>& input_bits_of, bool with_codes);

// q_weight and q_scale_col of a weight that `mixq` holds, in the first two layouts: the same codes
// with the same scales. Throws kInvalidArgument if 8 bits and rows or columns are no multiples of
// 64, or 4 bits and columns no multiple of 8.
std::vector<StoredTensor> write_mixq_copy(const std::string& module, const QTensor& weight);

}  // namespace lowbit
