// AQLM, additive quantization (Egiazarian et al. 2024, arXiv:2401.06118; Vahe1994/AQLM): a weight
// is a sum of vectors, one from each codebook, times a scale. Of each linear
//
//   codes      [rows / og][cols / ig][C], signed integers of 8, 16 or 32 bits: an index modulo 2^b
//   codebooks  [C][2^b][og][ig]
//   scales     [rows / og][1][1][1]
//
// with C codebooks ("num_codebooks") of b bits ("nbits_per_codebook") and vectors of og rows and ig
// columns ("out_group_size", "in_group_size"): "1x16" and "2x8" in groups of 8. Read only.
#pragma once

#include "lowbit/checkpoint/formats.h"

namespace lowbit {

extern const CheckpointFormat kAqlmFormat;

}  // namespace lowbit
