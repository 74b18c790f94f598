// Tables of 4-bit codes for the kernels.
#pragma once

#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/tensor/scheme.h"

namespace lowbit::cpu {

// For kIq4Nl and kE2M1 steps * unit are the values exactly. NF4 and FP4 are rounded to the nearest
// of 127 and 120 steps, by at most 0.4 % of the group's largest weight; multiplications with fp32
// inputs use the values themselves.
const CodeTable& code_table(Code code);

}  // namespace lowbit::cpu
