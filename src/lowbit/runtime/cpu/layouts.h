// Layouts of weights for the CPU kernels: the table of what can be packed how.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/runtime/cpu/arena.h"
#include "lowbit/runtime/cpu/kernels.h"
#include "lowbit/tensor/qtensor.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit::cpu {

// A PackedMatrix with its memory.
struct PackedWeight {
  PackedMatrix matrix;
  Tensor codes, scales, shifts, bias;
  std::vector<int32_t> input_order;  // empty, or as in QTensor

  bool quantized() const { return matrix.scales != nullptr; }
  int64_t bytes() const;  // of codes, scales and shifts
};

// What packing needs: threads, and where the bytes go.
struct Packer {
  ThreadPool& pool;
  WeightArena& arena;
};

struct Layout {
  const char* name;
  bool (*supports)(const QTensor& weight);
  // Packs the rows of `parts`, one after another; they share scheme and input_order and are
  // supported.
  PackedWeight (*pack)(std::span<const LinearWeight> parts, Packer& packer);
};

// The first that supports the weight, or the one called `forced` if that is not empty; throws
// kUnsupported if it does not exist or cannot hold the weight.
//   q4   4-bit codes: up to 4 bits in groups of 16, of multiples of 32, or of whole rows; IQ4_NL
//   q8   8-bit codes: up to 8 bits in the same groups
//   f16, bf16   dense weights of that type (f16: and whatever dequantizes to exact halves)
//   f32  anything
const Layout& choose_layout(const LinearWeight& weight, const std::string& forced);

}  // namespace lowbit::cpu
