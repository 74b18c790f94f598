// attention_few for pages of codes: a file for each type, as compiling one takes a while.
#pragma once

#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

// units: blocks of threads that there is work for, or more.
void launch_few_fp8(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream);
void launch_few_int8(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream);
void launch_few_int4(const AttentionLaunch& a, int64_t units, int processors, cudaStream_t stream);

}  // namespace lowbit::cuda
