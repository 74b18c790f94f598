// GPTQ's steps on an NVIDIA GPU.
#pragma once

#include <memory>

#include "lowbit/quantize/cuda/transfers.h"
#include "lowbit/quantize/quantize_device.h"

namespace lowbit::cuda {

// `transfers` outlives it.
std::unique_ptr<GptqDevice> make_gptq_device(int64_t cols, Transfers& transfers);

}  // namespace lowbit::cuda
