#include "lowbit/bench/roofline.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/bench/kernels.h"
#include "lowbit/runtime/cpu/isa.h"

namespace lowbit {
namespace {

Machine small_machine() {
  Machine machine;
  machine.cpu = "test";
  machine.reads = {{"DRAM", 1 << 20, 10, 20}};
  machine.peaks = {{"fp32 FMA (AVX2)", 0, 50, 100}, {"int8 vpmaddubsw (AVX2)", 0, 100, 200}};
  return machine;
}

TEST(Roofline, MeasuresWhatEveryMachineHas) {
  if (!cpu::detect_features().avx2_fma_f16c) GTEST_SKIP() << "needs AVX2";
  const Machine machine = measure_machine({1, 1e-5, 2});
  EXPECT_GT(machine.dram(), 0);
  EXPECT_GT(machine.peak("fp32"), 0);
  EXPECT_GT(machine.peak("int8"), 0);
  EXPECT_EQ(machine.reads.size(), 3u);
  for (const MachineLimit& limit : machine.peaks) EXPECT_GT(limit.one, 0) << limit.name;
}

TEST(Roofline, DrawsLayersAmongLimits) {
  const std::string svg = roofline_svg(small_machine(), {{"down_proj", 16, 30, 150}});
  EXPECT_NE(svg.find("<title>down_proj: 30, 150</title>"), std::string::npos);
  EXPECT_NE(svg.find("DRAM 20.0 GB/s"), std::string::npos);
}

TEST(Roofline, CountsOperationsPerByte) {
  EXPECT_DOUBLE_EQ(linear_intensity(8, 4, 16, 1), 64.0 / (16 + 48));
  EXPECT_DOUBLE_EQ(linear_intensity(8, 4, 16, 2), 128.0 / (16 + 96));
}

TEST(KernelBench, TimesALayerAndItsError) {
  if (!cpu::detect_features().avx2_fma_f16c) GTEST_SKIP() << "needs AVX2";
  const auto backend = make_backend("cpu", {1, Activations::kDefault});
  const KernelRow row =
      measure_layer(*backend, small_machine(), {"o_proj", 48, 64}, int_scheme(4, 32), 4, 1e-4);
  EXPECT_EQ(row.rows, 48);
  EXPECT_EQ(row.tokens, 4);
  EXPECT_GT(row.gop_s(), 0);
  EXPECT_GT(row.share, 0);
  EXPECT_LT(row.error, 2e-2);
}

TEST(KernelBench, NamesWhatThereIsWhenNothingMatches) {
  const auto backend = make_backend("ref", {1, Activations::kF32});
  try {
    measure_kernels(*backend, small_machine(), {"no such row", {1}, 0.1}, [](const KernelRow&) {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("llama-8b down_proj q4_0"), std::string::npos);
  }
}

TEST(KernelBench, KnowsTheLimitOfEachKernel) {
  Machine machine = small_machine();
  machine.peaks.push_back({"int8 vpdpbusd (AVX-512 VNNI)", 0, 1, 300});
  machine.peaks.push_back({"int8 tdpbssd (AMX)", 0, 1, 900});
  EXPECT_EQ(peak_of(machine, "q4_avx2_int8"), 200);
  EXPECT_EQ(peak_of(machine, "q4_avx512_int8"), 300);
  EXPECT_EQ(peak_of(machine, "q4_amx_int8"), 900);
  EXPECT_EQ(peak_of(machine, "f16_amx_f32"), 100);
  machine.peaks.push_back({"16-bit tensor cores (data sheet)", 0, 9000, 9000});
  EXPECT_EQ(peak_of(machine, "q4_cuda"), 9000);
}

}  // namespace
}  // namespace lowbit
