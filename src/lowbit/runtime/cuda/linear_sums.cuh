// How the kernels that stream weights multiply: a warp carries its segment's sums through the items
// of one or two tiles, an item being 1 KiB of a tile's codes, two words for each lane.
#pragma once

#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

constexpr int kItemBytes = 1024;

// The sums that a warp carries through its segment of some tiles. kUsual: see is_usual.
template <Storage kStorage, int kFold, bool kUsual, int kTiles>
struct Sums {
  float segment[kTiles][4] = {}, part[kTiles][4] = {};

  // An item of each tile and its record: steps of 16 columns, from `first_step` of their unit on.
  // x: the lane's column at the unit; groups: sums of the lane's columns there.
  __device__ void add(const PackedMatrix& m, const uint8_t* const (&slots)[kTiles],
                      const uint8_t* const (&records)[kTiles], int first_step, const uint16_t* x,
                      const float* groups, int group_stride, const uint32_t* table, int lane) {
    constexpr int kSteps = kUnitSteps * 2 / lane_words(kStorage);
    constexpr int kWordSteps = kSteps / 2;
    const int fold = kFold == 0 ? m.fold : kFold;
    uint4 b, words[kTiles];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int step = first_step + i;
      if (i % 2 == 0) b = *reinterpret_cast<const uint4*>(x + step / 4 * 64 + step % 4 / 2 * 8);
      const uint32_t b0 = i % 2 == 0 ? b.x : b.z, b1 = i % 2 == 0 ? b.y : b.w;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (i % kWordSteps == 0) {
          words[t] = *reinterpret_cast<const uint4*>(slots[t] + i / kWordSteps * 512 + lane * 16);
        }
        uint32_t a[4];
        widen<kStorage>(words[t], kSteps == kUnitSteps ? i : step, table, a);
        multiply<kStorage>(is_scaled(kStorage) ? part[t] : segment[t], a, b0, b1);
      }
      if (!is_scaled(kStorage) || (step + 1) % fold != 0) continue;
      float2 inputs = {};
      if constexpr (is_integer(kStorage)) {
        inputs = *reinterpret_cast<const float2*>(groups + step / fold * group_stride);
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        fold_group<kStorage, kUsual>(m, records[t], step / fold, lane / 4, part[t], inputs,
                                     segment[t]);
        for (float& value : part[t]) value = 0;
      }
    }
  }
};

}  // namespace lowbit::cuda
