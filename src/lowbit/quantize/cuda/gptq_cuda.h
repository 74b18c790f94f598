// GPTQ's steps on an NVIDIA GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "lowbit/quantize/quantize_device.h"

namespace lowbit::cuda {

std::unique_ptr<GptqDevice> make_gptq_device(int64_t cols, cudaStream_t stream);

}  // namespace lowbit::cuda
