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
  Tensor codes, scales, scale_supers, offsets, offset_supers, zeros, bias;
  std::vector<int32_t> input_order;  // empty, or as in QTensor

  // Whether there are kernels for int8 inputs.
  bool multiplies_int8() const {
    return matrix.scales.values != nullptr && matrix.storage != Storage::kE4M3;
  }
  int64_t bytes() const;  // of codes, scales, offsets and zeros
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
//   q2 to q6, q8   integers of up to so many bits (q7: q8), in groups of 16, of multiples of 32, or
//                  of whole rows
//   table4         16 values (IQ4_NL, NF4, FP4, E2M1) in the same groups
//   e4m3           8-bit floats in the same groups
//   f16, bf16   dense weights of that type (f16: and whatever dequantizes to exact halves)
//   f32  anything
const Layout& choose_layout(const LinearWeight& weight, const std::string& forced);

}  // namespace lowbit::cpu
