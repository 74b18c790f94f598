// Packing of weights for the CUDA kernels: the table of what can be packed how.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/runtime/cuda/kernels.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit::cuda {

// Neighbouring rows in one layout, in device memory: packed, or plain fp32.
struct PackedWeight {
  PackedMatrix matrix;                         // codes == nullptr: plain
  const float* plain = nullptr;                // [rows][cols]
  std::vector<std::shared_ptr<void>> storage;  // of everything above
  int64_t bytes = 0;                           // read to multiply by one token
};

struct Layout {
  const char* name;
  // `exact`: inputs keep all their bits, and so must the weights.
  bool (*supports)(const QTensor& weight, bool exact);
  // Packs the rows of `parts`, one after another; they share scheme and input_order.
  PackedWeight (*pack)(std::span<const LinearWeight> parts, cudaStream_t stream);
};

// The first that supports the weight, or the one called `forced` if that is not empty; throws
// kUnsupported if it does not exist or cannot hold the weight.
//   q4, q8   integers of up to 4 and 8 bits, in groups of 16, 32, 64, multiples of 128, or rows
//   t4       tables of 16 values in the same groups
//   e4m3     8-bit floats in the same groups
//   f16      halves, and what dequantizes to exact halves; without `exact`: whatever fits a half
//   bf16     the same
//   f32      anything, dequantized
const Layout& choose_layout(const LinearWeight& weight, bool exact, const std::string& forced);

}  // namespace lowbit::cuda
