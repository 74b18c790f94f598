// The kernels of all instruction sets give the same bits, on the machine's own and on emulated
// registers, so that their indices are tested on machines that lack the instructions.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cpu/isa.h"
#include "lowbit/runtime/cpu/layouts.h"
#include "lowbit/runtime/cpu/linear_amx.h"
#include "lowbit/runtime/cpu/linear_vnni.h"
#include "lowbit/tensor/dtype.h"
#include "support/random.h"
#include "support/weights.h"

namespace lowbit::cpu {
namespace {

// What simd_avx512.h does, one lane after another.
struct Emulated {
  static constexpr int kTiles = 2;
  static constexpr int kTokens = 6;
  struct Int {
    alignas(64) uint8_t byte[64];
  };
  struct Float {
    float lane[16];
  };

  template <typename Function>
  static Int each_byte(const Function& function) {
    Int out;
    for (int i = 0; i < 64; ++i) out.byte[i] = static_cast<uint8_t>(function(i));
    return out;
  }
  template <typename Function>
  static Int each_int(const Function& function) {
    Int out;
    for (int i = 0; i < 16; ++i) {
      const int32_t value = function(i);
      std::memcpy(out.byte + i * 4, &value, 4);
    }
    return out;
  }
  template <typename Function>
  static Float each(const Function& function) {
    Float out;
    for (int i = 0; i < 16; ++i) out.lane[i] = function(i);
    return out;
  }
  static int32_t lane(const Int& v, int i) {
    int32_t value;
    std::memcpy(&value, v.byte + i * 4, 4);
    return value;
  }

  static Int load_codes(const uint8_t* codes, int64_t step) {
    return each_byte([&](int i) { return i < 32 ? codes[i] : codes[step + i - 32]; });
  }
  static Int int_zero() { return ints(0); }
  static Int ints(int value) {
    return each_int([&](int) { return value; });
  }
  static Int bytes(char value) {
    return each_byte([&](int) { return value; });
  }
  static Int repeat(__m128i v) {
    uint8_t table[16];
    std::memcpy(table, &v, 16);
    return each_byte([&](int i) { return table[i % 16]; });
  }
  static Int bit_and(Int a, Int b) {
    return each_byte([&](int i) { return a.byte[i] & b.byte[i]; });
  }
  static Int bit_xor(Int a, Int b) {
    return each_byte([&](int i) { return a.byte[i] ^ b.byte[i]; });
  }
  static Int bit_or(Int a, Int b) {
    return each_byte([&](int i) { return a.byte[i] | b.byte[i]; });
  }
  // Shifts of 16-bit units.
  static Int shift_right(Int v, int by) {
    return each_byte([&](int i) {
      const int unit = v.byte[i / 2 * 2] | v.byte[i / 2 * 2 + 1] << 8;
      return unit >> by >> (i % 2 * 8);
    });
  }
  static Int shift_left(Int v, int by) {
    return each_byte([&](int i) {
      const int unit = v.byte[i / 2 * 2] | v.byte[i / 2 * 2 + 1] << 8;
      return unit << by >> (i % 2 * 8);
    });
  }
  static Int look_up(Int table, Int at) {
    return each_byte([&](int i) { return table.byte[i / 16 * 16 + (at.byte[i] & 15)]; });
  }
  static Int subtract(Int a, Int b) {
    return each_int([&](int i) { return lane(a, i) - lane(b, i); });
  }
  static Int dot(Int sum, Int weights, Int x) {
    return each_int([&](int i) {
      int32_t total = lane(sum, i);
      for (int k = i * 4; k < i * 4 + 4; ++k) total += weights.byte[k] * int8_t(x.byte[k]);
      return total;
    });
  }
  static Int broadcast_quad(const int8_t* x) {
    return each_byte([&](int i) { return x[i % 4]; });
  }
  static Int add_bytes(Int a, Int b) {
    return each_byte([&](int i) { return a.byte[i] + b.byte[i]; });
  }
  static Int repeat_bytes(Int v) {
    return each_byte([&](int i) { return v.byte[i / 4 * 4]; });
  }
  static Int load_ints(const void* at) {
    Int v;
    std::memcpy(v.byte, at, 64);
    return v;
  }
  static void store_ints(void* at, Int v) { std::memcpy(at, v.byte, 64); }
  static Float float_zero() {
    return each([](int) { return 0.f; });
  }
  static Float to_float(Int v) {
    return each([&](int i) { return static_cast<float>(lane(v, i)); });
  }
  static Float multiply(Float a, Float b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Float add(Float a, Float b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Float multiply_add(Float a, Float b, Float c) {
    return each([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static Float broadcast(const float* at) {
    return each([&](int) { return *at; });
  }
  static Float load_floats(const float* at) {
    return each([&](int i) { return at[i]; });
  }
  static void store_floats(float* at, Float v) { std::memcpy(at, v.lane, 64); }
  static Float load_values(const GroupValues& from, int64_t at, int64_t step) {
    return each([&](int i) {
      const int64_t group = at + (i < 8 ? 0 : step), index = group * 8 + i % 8;
      switch (from.form) {
        case GroupValues::Form::kF16:
          return f16_to_f32(static_cast<const uint16_t*>(from.values)[index]);
        case GroupValues::Form::kF32:
          return static_cast<const float*>(from.values)[index];
        case GroupValues::Form::kMultiples:
          break;
      }
      const float super = from.supers[(group >> from.super_shift) * 8 + i % 8];
      return static_cast<float>(static_cast<const int8_t*>(from.values)[index]) * super;
    });
  }
  static Int load_zeros(const uint8_t* zeros, int64_t at, int64_t step) {
    return each_int([&](int i) { return zeros[(at + (i < 8 ? 0 : step)) * 8 + i % 8]; });
  }
  static void store_rows(const PackedMatrix& w, int64_t tile, int64_t step, Float sum, float* y) {
    for (int64_t i = 0; i < std::min<int64_t>(step == 0 ? 8 : 16, w.rows - tile * 8); ++i) {
      y[tile * 8 + i] = sum.lane[i] + (w.bias != nullptr ? w.bias[tile * 8 + i] : 0.f);
    }
  }
};

struct EmulatedTiles {
  static inline int cols_ = 0;

  static void configure(int cols) { cols_ = cols; }
  static void release() { cols_ = 0; }
  template <int kTile>
  static void load_inputs(const int8_t* from) {
    inputs_[kTile] = from;
  }
  template <int kTile>
  static void load_weights(const uint8_t* from) {
    weights_[kTile] = from;
  }
  template <int kTile>
  static void multiply() {
    for (int i = 0; i < 256; ++i) {
      int32_t sum = 0;
      for (int k = 0; k < cols_; ++k) {
        sum += inputs_[kTile][i / 16 * 32 + k] *
               static_cast<int8_t>(weights_[kTile][k / 4 * 64 + i % 16 * 4 + k % 4]);
      }
      products_[kTile][i / 16][i % 16] = sum;
    }
  }
  template <int kTile>
  static void store(Products& products) {
    std::memcpy(products, products_[kTile], sizeof(Products));
  }

 private:
  static inline const int8_t* inputs_[2] = {};
  static inline const uint8_t* weights_[2] = {};
  static inline Products products_[2] = {};
};

constexpr int64_t kTokens = 211;  // 192, 16 and 3

// Int8 inputs with their memory.
struct Input {
  Tensor codes, scales, sums, code_sums, starts;
  Tensor tile_codes, tile_scales, tile_sums, tile_code_sums;
  QuantizedInput view;

  Input(const PackedMatrix& w, const std::vector<float>& x)
      : codes(allocate_host(kTokens, w.blocks * 32, DType::kU8)),
        scales(allocate_host(kTokens, w.blocks)),
        sums(allocate_host(kTokens, w.blocks * 2)),
        code_sums(allocate_host(kTokens, w.blocks * 2)),
        starts(allocate_host(kTokens, w.blocks * 2)),
        tile_codes(allocate_host(kTokens, w.blocks * 32, DType::kU8)),
        tile_scales(allocate_host(kTokens, w.blocks)),
        tile_sums(allocate_host(kTokens, w.blocks * 2)),
        tile_code_sums(allocate_host(kTokens, w.blocks * 2)),
        view{codes.as<int8_t>(),   scales.as<float>(), sums.as<float>(), code_sums.as<float>(),
             starts.as<int32_t>(), start_of(w),        w.blocks,         w.split_blocks ? 16 : 32,
             tile_codes.as<int8_t>(), tile_scales.as<float>(), tile_sums.as<float>(),
             tile_code_sums.as<float>()} {
    for (int64_t token = 0; token < kTokens; ++token) {
      kAvx2Kernels.quantize_input(x.data() + token * w.cols, w.cols, token, view);
    }
    for (int64_t tile = 0; tile < kTokens / kTileTokens; ++tile) arrange_tokens(tile, view);
  }
};

using Product = void (*)(const PackedMatrix&, const QuantizedInput&, Range, Range, float*, int64_t);

std::vector<float> multiply(Product product, const PackedMatrix& w, const Input& input,
                            Range tokens) {
  std::vector<float> y(kTokens * w.rows, -1.f);
  const int64_t tiles = (w.rows + 7) / 8, half = tiles / 2;
  product(w, input.view, {0, half}, tokens, y.data(), w.rows);
  product(w, input.view, {half, tiles}, tokens, y.data(), w.rows);
  return y;
}

class InstructionSets : public ::testing::TestWithParam<QuantScheme> {};

TEST_P(InstructionSets, GiveTheSameBits) {
  if (!detect_features().avx2_fma_f16c) GTEST_SKIP() << "needs AVX2";
  ThreadPool pool(1);
  WeightArena arena;
  Packer packer{pool, arena};
  uint64_t seed = 0;
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},    {7, 40},    {16, 64},   {17, 96},
                                                {65, 257}, {40, 1056}, {24, 2080}, {24, 512}};
  for (const auto& [rows, cols] : shapes) {
    LinearWeight part{"w", test::random_weight(GetParam(), rows, cols, ++seed, seed % 2 == 0), {}};
    if (cols == 512) {  // scales that are held as multiples
      for (size_t i = 0; i < part.weight.scales.size(); ++i) {
        part.weight.scales[i] = 0.0003f * static_cast<float>(1 + i * 7 % 63);
      }
    }
    if (seed % 3 == 0) part.bias = test::gaussian(rows, seed);
    const Layout& layout = choose_layout(part, "");
    const PackedWeight packed = layout.pack({&part, 1}, packer);
    const PackedMatrix& w = packed.matrix;
    const Input input(w, test::gaussian(kTokens * cols, seed + 9));
    const Range all{0, kTokens}, tiled{0, 208};
    const std::vector<float> expected = multiply(kAvx2Kernels.linear_int8, w, input, all);
    const std::string where = concat(layout.name, " ", rows, " x ", cols);
    EXPECT_EQ(multiply(vnni_linear<Emulated>, w, input, all), expected) << "vnni " << where;
    std::vector<float> amx = multiply(amx_linear<Emulated, EmulatedTiles>, w, input, tiled);
    EXPECT_TRUE(std::equal(amx.begin(), amx.begin() + tiled.last * rows, expected.begin()))
        << "amx " << where;
    for (const std::string& isa : available_isas()) {
      EXPECT_EQ(multiply(select_kernels(isa).linear_int8, w, input, all), expected)
          << isa << " " << where;
    }
  }
}

std::vector<QuantScheme> quantized_schemes() {
  std::vector<QuantScheme> schemes = {{Code::kIq4Nl, 4, 1, 32, Zero::kNone},
                                      {Code::kIq4Nl, 4, 1, 16, Zero::kNone},
                                      table_scheme(Code::kNf4, 64),
                                      table_scheme(Code::kE2M1, 16)};
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {16, 32, 64, 128, 1 << 20}) {
      if (bits % 2 == 1 && (group == 64 || group == 128)) continue;
      for (const Zero zero : {Zero::kNone, Zero::kInt, Zero::kOffset}) {
        schemes.push_back(int_scheme(bits, group, zero));
      }
    }
  }
  return schemes;
}

INSTANTIATE_TEST_SUITE_P(Schemes, InstructionSets, ::testing::ValuesIn(quantized_schemes()),
                         [](const auto& info) { return name_of(info.param); });

TEST(InstructionSet, RoundsInputsToTheSameCodes) {
  if (!detect_features().avx2_fma_f16c) GTEST_SKIP() << "needs AVX2";
  for (const int64_t cols : {1, 31, 40, 64, 96, 257, 576}) {
    std::vector<float> x = test::gaussian(kTokens * cols, static_cast<uint64_t>(cols));
    for (size_t i = 0; i < x.size(); i += 7) x[i] *= i % 3 == 0 ? 1000.f : 1e-33f;
    std::fill_n(x.begin() + cols, cols, 0.f);
    for (const bool split : {false, true}) {
      PackedMatrix w;
      w.base = -8;
      w.split_blocks = split;
      w.cols = cols;
      w.blocks = (cols + 31) / 32;
      const Input expected(w, x);
      for (const std::string& isa : available_isas()) {
        const Input found(w, std::vector<float>(x.size()));
        for (int64_t token = 0; token < kTokens; ++token) {
          select_kernels(isa).quantize_input(x.data() + token * cols, cols, token, found.view);
        }
        const auto same = [](const Tensor& a, const Tensor& b, int64_t bytes) {
          return std::memcmp(a.as<uint8_t>(), b.as<uint8_t>(), static_cast<size_t>(bytes)) == 0;
        };
        const int64_t cells = kTokens * w.blocks, parts = split ? 2 : 1;
        EXPECT_TRUE(same(found.codes, expected.codes, cells * 32)) << isa << " " << cols;
        EXPECT_TRUE(same(found.scales, expected.scales, cells * 4)) << isa << " " << cols;
        EXPECT_TRUE(same(found.sums, expected.sums, cells * parts * 4)) << isa << " " << cols;
        EXPECT_TRUE(same(found.code_sums, expected.code_sums, cells * parts * 4)) << isa;
        EXPECT_TRUE(same(found.starts, expected.starts, cells * parts * 4)) << isa;
      }
    }
  }
}

TEST(InstructionSet, ReportsWhatThisMachineRuns) {
  const CpuFeatures features = detect_features();
  const std::vector<std::string> isas = available_isas();
  const auto has = [&](const char* isa) {
    return std::find(isas.begin(), isas.end(), isa) != isas.end();
  };
  EXPECT_EQ(has("avx2"), features.avx2_fma_f16c);
  EXPECT_EQ(has("avx512"), features.avx2_fma_f16c && features.avx512_vnni);
  EXPECT_EQ(has("amx"), features.avx2_fma_f16c && features.avx512_vnni && features.amx_int8);
  for (const char* isa : {"avx2", "avxvnni", "avx512", "amx"}) {
    if (!has(isa)) std::printf("skipped: no %s on this machine\n", isa);
  }
}

}  // namespace
}  // namespace lowbit::cpu
