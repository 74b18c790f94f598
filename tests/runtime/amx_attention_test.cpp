// attention_amx.h on emulated registers and tiles, so that its indices are tested on machines that
// lack the instructions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "lowbit/runtime/cpu/attention_amx.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/tensor.h"
#include "support/random.h"

namespace lowbit::cpu {
namespace {

float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// What kernels_amx_attention.cpp does, one lane after another.
struct EmulatedLanes {
  struct Float {
    float lane[16];
  };
  struct Int {
    uint32_t lane[16];
  };

  template <typename Function>
  static Float each(const Function& function) {
    Float out;
    for (int i = 0; i < 16; ++i) out.lane[i] = function(i);
    return out;
  }
  static Float floats(float value) {
    return each([&](int) { return value; });
  }
  static Float float_zero() { return floats(0); }
  static Float load_floats(const float* at) {
    return each([&](int i) { return at[i]; });
  }
  static Float load_floats(const float* at, int64_t count) {
    return each([&](int i) { return i < count ? at[i] : 0.f; });
  }
  static Float load_halves(const uint16_t* at) { return load_halves(at, 16); }
  static Float load_halves(const uint16_t* at, int64_t count) {
    return each([&](int i) { return i < count ? f16_to_f32(at[i]) : 0.f; });
  }
  static void store_floats(float* at, Float v) { std::memcpy(at, v.lane, 64); }
  static void store_floats(float* at, Float v, int64_t count) {
    std::memcpy(at, v.lane, static_cast<size_t>(count) * 4);
  }
  static Float add(Float a, Float b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Float subtract(Float a, Float b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Float multiply(Float a, Float b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Float divide(Float a, Float b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static Float multiply_add(Float a, Float b, Float c) {
    return each([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static Float max(Float a, Float b) {
    return each([&](int i) { return std::max(a.lane[i], b.lane[i]); });
  }
  static Float exp(Float v) {
    return each([&](int i) { return std::exp(v.lane[i]); });
  }
  static Float finite_or_zero(Float v) {
    return each([&](int i) { return v.lane[i] == -INFINITY ? 0.f : v.lane[i]; });
  }
  static bool all_one(Float v) {
    return std::all_of(v.lane, v.lane + 16, [](float x) { return x == 1.f; });
  }

  static Int load_ints(const int32_t* at) {
    Int v;
    std::memcpy(v.lane, at, 64);
    return v;
  }
  static void store_ints(float* at, Int v) { std::memcpy(at, v.lane, 64); }
  static Int as_ints(Float v) {
    Int out;
    std::memcpy(out.lane, v.lane, 64);
    return out;
  }
  static Float as_floats(Int v) {
    return each([&](int i) { return as_float(v.lane[i]); });
  }
  static Float between(Int first, Int last, int key, Float v, Float hidden) {
    return each([&](int i) {
      const bool seen =
          static_cast<int>(first.lane[i]) <= key && key < static_cast<int>(last.lane[i]);
      return seen ? v.lane[i] : hidden.lane[i];
    });
  }
  static void transpose(Int (&rows)[16]) {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < i; ++j) std::swap(rows[i].lane[j], rows[j].lane[i]);
    }
  }
  static void store_tile(float* to, const Int (&rows)[16]) { std::memcpy(to, rows, 1024); }

  static uint32_t high(float v) { return as_bits(v) + 0x8000; }
  static uint32_t low(float v) { return high(v - as_float(high(v) & 0xffff0000)); }
  static void split_pairs(Float even, Float odd, Int& highs, Int& lows) {
    for (int i = 0; i < 16; ++i) {
      highs.lane[i] = high(even.lane[i]) >> 16 | (high(odd.lane[i]) & 0xffff0000);
      lows.lane[i] = low(even.lane[i]) >> 16 | (low(odd.lane[i]) & 0xffff0000);
    }
  }
  static void split_row(Float first, Float last, Int& highs, Int& lows) {
    float all[32];
    std::memcpy(all, first.lane, 64);
    std::memcpy(all + 16, last.lane, 64);
    split_pairs(each([&](int i) { return all[2 * i]; }),
                each([&](int i) { return all[2 * i + 1]; }), highs, lows);
  }
};

struct EmulatedBf16 {
  static inline float tiles_[8][256];

  static void configure() { std::fill_n(tiles_[0], 8 * 256, NAN); }
  static void release() {}
  static void fence() {}
  template <int T>
  static void zero() {
    std::fill_n(tiles_[T], 256, 0.f);
  }
  template <int T>
  static void load(const float* from) {
    std::memcpy(tiles_[T], from, 1024);
  }
  template <int T>
  static void store(float* to) {
    std::memcpy(to, tiles_[T], 1024);
  }
  static float half_of(float word, int which) {
    return as_float(which == 0 ? as_bits(word) << 16 : as_bits(word) & 0xffff0000);
  }
  template <int C, int A, int B>
  static void dot() {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        float sums[2] = {};
        for (int k = 0; k < 32; ++k) {
          sums[k % 2] +=
              half_of(tiles_[A][m * 16 + k / 2], k % 2) * half_of(tiles_[B][k / 2 * 16 + n], k % 2);
        }
        tiles_[C][m * 16 + n] += sums[0] + sums[1];
      }
    }
  }
};

struct Case {
  int64_t heads, dim, window, position, queries;
};

TEST(AmxAttention, AgreesWithTheTextbook) {
  for (const Case& c : {Case{3, 64, 0, 0, 70}, Case{1, 20, 0, 5, 3}, Case{2, 128, 70, 100, 60},
                        Case{4, 24, 1, 60, 9}, Case{3, 64, 0, 129, 1}, Case{1, 2, 33, 90, 40}}) {
    const int64_t keys = c.position + c.queries, blocks = (keys + 63) / 64;
    const std::vector<float> q = test::gaussian(c.queries * c.heads * c.dim, 1);
    std::vector<float> cache[2];
    std::vector<uint16_t> halves[2];
    for (int i = 0; i < 2; ++i) {
      cache[i] = test::gaussian(blocks * 64 * c.dim, 2 + static_cast<uint64_t>(i));
      std::fill(cache[i].begin() + keys * c.dim, cache[i].end(), NAN);
      for (float& value : cache[i]) {
        halves[i].push_back(f32_to_f16(value));
        value = f16_to_f32(halves[i].back());
      }
    }
    std::vector<int32_t> table;
    for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(i));
    std::vector<float> out(q.size());
    Tensor scratch = allocate_host(1, AmxScratch::size(c.queries * c.heads, c.dim));
    AttentionTask task;
    task.q = q.data();
    task.out = out.data();
    task.q_stride = task.out_stride = c.heads * c.dim;
    task.queries = c.queries;
    task.heads = c.heads;
    task.head_dim = c.dim;
    task.position = c.position;
    task.window = c.window;
    task.scale = 1.f / std::sqrt(static_cast<float>(c.dim));
    task.keys = reinterpret_cast<const uint8_t*>(halves[0].data());
    task.values = reinterpret_cast<const uint8_t*>(halves[1].data());
    task.block_stride = 64 * c.dim * 2;
    task.block_table = table.data();
    task.scratch = scratch.as<float>();
    attend_with_tiles<EmulatedLanes, EmulatedBf16>(task);

    std::vector<float> expected;
    for (int64_t row = 0; row < c.queries * c.heads; ++row) {
      const int64_t position = c.position + row / c.heads;
      std::vector<double> sums(static_cast<size_t>(c.dim));
      double total = 0;
      for (int64_t key = oldest(task, position); key <= position; ++key) {
        double score = 0;
        for (int64_t i = 0; i < c.dim; ++i) score += q[row * c.dim + i] * cache[0][key * c.dim + i];
        const double weight = std::exp(score * task.scale);
        total += weight;
        for (int64_t i = 0; i < c.dim; ++i) sums[i] += weight * cache[1][key * c.dim + i];
      }
      for (const double sum : sums) expected.push_back(static_cast<float>(sum / total));
    }
    EXPECT_LT(test::relative_error(out, expected), 1e-5) << c.dim << " " << c.window;
  }
}

}  // namespace
}  // namespace lowbit::cpu
