#include "lowbit/runtime/cpu/gemm.h"

#include <gtest/gtest.h>

#include "lowbit/runtime/cpu/isa.h"
#include "support/random.h"

namespace lowbit::cpu {
namespace {

struct Product {
  int64_t m, n, k;
  bool a_transposed, b_transposed;
};
constexpr Product kProducts[] = {{1, 1, 1, false, false},    {6, 16, 8, false, false},
                                 {28, 64, 300, false, true}, {33, 50, 257, true, false},
                                 {5, 31, 513, true, true},   {230, 800, 20, false, true},
                                 {115, 3, 600, true, false}};

MatrixView view(const std::vector<float>& values, int64_t rows, int64_t cols, bool transpose) {
  return transpose ? transposed(values.data(), rows) : rows_of(values.data(), cols);
}

// c must hold what is added to.
std::vector<float> product(const Product& p, Gemm& gemm, bool accumulate) {
  const std::vector<float> a = test::gaussian(static_cast<size_t>(p.m * p.k), 1);
  const std::vector<float> b = test::gaussian(static_cast<size_t>(p.k * p.n), 2);
  std::vector<float> c = test::gaussian(static_cast<size_t>(p.m * p.n), 3);
  gemm.multiply(p.m, p.n, p.k, view(a, p.m, p.k, p.a_transposed), view(b, p.k, p.n, p.b_transposed),
                c.data(), p.n, accumulate);
  return c;
}

std::vector<float> expected(const Product& p, bool accumulate) {
  const std::vector<float> a = test::gaussian(static_cast<size_t>(p.m * p.k), 1);
  const std::vector<float> b = test::gaussian(static_cast<size_t>(p.k * p.n), 2);
  std::vector<float> c = test::gaussian(static_cast<size_t>(p.m * p.n), 3);
  const MatrixView va = view(a, p.m, p.k, p.a_transposed), vb = view(b, p.k, p.n, p.b_transposed);
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = accumulate ? c[i * p.n + j] : 0;
      for (int64_t q = 0; q < p.k; ++q) {
        sum += double{va.data[i * va.row_stride + q * va.column_stride]} *
               vb.data[q * vb.row_stride + j * vb.column_stride];
      }
      c[i * p.n + j] = static_cast<float>(sum);
    }
  }
  return c;
}

TEST(Gemm, MultipliesEveryFormOnEveryInstructionSet) {
  ThreadPool pool(2);
  std::vector<std::string> isas = available_isas();
  isas.emplace_back();
  for (const std::string& isa : isas) {
    Gemm gemm(&pool, isa);
    const double most = std::string(gemm.isa()) == "amx" ? 8e-6 : 1e-6;  // split in two bf16
    for (const Product& p : kProducts) {
      for (const bool accumulate : {false, true}) {
        EXPECT_LT(test::relative_error(product(p, gemm, accumulate), expected(p, accumulate)), most)
            << gemm.isa() << " " << p.m << " x " << p.n << " x " << p.k;
      }
    }
  }
}

TEST(Gemm, MultipliesAMatrixByItself) {
  ThreadPool pool(2);
  Gemm gemm(&pool);
  for (const int64_t m : {1, 50, 333}) {
    const Product p = {m, m, 300, true, false};
    const std::vector<float> x = test::gaussian(static_cast<size_t>(m * p.k), 1);
    std::vector<float> c(static_cast<size_t>(m * m)), whole(c.size());
    gemm.multiply_self(m, p.k, transposed(x.data(), m), c.data());
    gemm.multiply(m, m, p.k, transposed(x.data(), m), rows_of(x.data(), m), whole.data(), m);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j <= i; ++j) ASSERT_EQ(c[i * m + j], whole[i * m + j]) << i << ", " << j;
    }
  }
}

TEST(Gemm, PlainTilesAgree) {
  const std::vector<float> a = test::gaussian(4 * 9, 1), b = test::gaussian(9 * 8, 2);
  std::vector<float> c(4 * 8, 1.f), sums(4 * 8, 1.f);
  plain_gemm_tile(9, a.data(), b.data(), c.data(), 8, true);
  for (int i = 0; i < 32; ++i) {
    for (int k = 0; k < 9; ++k) sums[i] += a[k * 4 + i / 8] * b[k * 8 + i % 8];
  }
  EXPECT_LT(test::relative_error(c, sums), 1e-6);
}

TEST(Gemm, ResultsDoNotDependOnThreadsOrOnOtherRows) {
  ThreadPool pool(3);
  Gemm one, three(&pool);
  for (const Product& p : kProducts) EXPECT_EQ(product(p, one, false), product(p, three, false));

  const Product whole = {230, 40, 300, false, false}, part = {100, 40, 300, false, false};
  const std::vector<float> c = product(whole, three, false);
  // The same a and b: a's first rows are the same random numbers, b is seeded apart.
  const std::vector<float> first(c.begin(), c.begin() + part.m * part.n);
  EXPECT_EQ(product(part, one, false), first);
}

TEST(Gemm, NothingToSumIsZero) {
  Gemm gemm;
  std::vector<float> c(4, 5.f);
  gemm.multiply(2, 2, 0, {}, {}, c.data(), 2);
  EXPECT_EQ(c, std::vector<float>(4, 0.f));
}

}  // namespace
}  // namespace lowbit::cpu
