// Activation scales: the largest magnitude of every input column of every linear over calibration
// data, as SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) and MixQ use them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/calibration.h"

namespace lowbit {

// By module: "model.layers.0.self_attn.q_proj", "lm_head". Each [cols].
using ActScales = std::map<std::string, std::vector<float>>;

// SmoothQuant's .pt files (torch_file.h), or safetensors with a vector for each module. Throws
// kCorruptFile naming file and module if values are negative or not finite.
ActScales read_act_scales(const fs::path& path);
// safetensors, fp32.
void write_act_scales(const fs::path& path, const ActScales& scales);

// One pass through the original model, block after block, with a progress line.
ActScales measure_act_scales(const Checkpoint& checkpoint, const ModelConfig& config,
                             const CalibrationData& data, ThreadPool& pool);

// The scales of one module. Throws kInvalidArgument if there are none for it, or not `cols`.
const std::vector<float>& act_scales_of(const ActScales& scales, const std::string& module,
                                        int64_t cols);

}  // namespace lowbit
