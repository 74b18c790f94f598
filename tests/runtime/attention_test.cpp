#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/kv_codes.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/input_codes.h"
#include "support/backends.h"
#include "support/random.h"

namespace lowbit {
namespace {

using test::gaussian;
using test::relative_error;

constexpr int64_t kBlocks = 64;
constexpr int64_t kPositions = 640;

struct Case {
  AttentionShape shape;
  DType dtype;
};

// Sequence `id` of `length` tokens; its blocks are scattered over the cache.
SequenceSpan span_of(int id, int64_t first, int64_t position, int64_t count) {
  SequenceSpan span{first, count, position, {}};
  for (int64_t i = 0; i * kBlockTokens < position + count; ++i) {
    span.block_table.push_back(static_cast<int32_t>((id * 20 + i) * 5 % kBlocks));
  }
  return span;
}

// Attends to whole sequences in steps of any chunking. Queries, keys and values are random and
// rotation is the identity or not, as the tables say.
class Harness {
 public:
  Harness(const std::string& backend, const Case& c, int threads = 1,
          Activations activations = Activations::kF32)
      : backend_(make_backend(backend, {threads, activations})), case_(c) {
    const int64_t half = c.shape.head_dim / 2;
    for (int64_t position = 0; position < kPositions; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = double(position) * std::pow(10000.0, -double(i) / double(half));
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    cos_table_ = test::tensor_of(*backend_, cos_, kPositions);
    sin_table_ = test::tensor_of(*backend_, sin_, kPositions);
    cache_ = backend_->make_kv_cache({2, c.shape.kv_heads, c.shape.head_dim, kBlocks, c.dtype});
    // What was never written must never be read; backends of devices see to that themselves.
    if (!test::on_host(*backend_)) return;
    std::fill_n(cache_.data.as<uint8_t>(), cache_.data.bytes(), uint8_t{0xff});  // NaN of any type
  }

  // spans' tokens take their rows from inputs[sequence]; returns the rows attended, in batch order.
  std::vector<float> step(const std::vector<SequenceSpan>& spans,
                          const std::vector<const std::vector<float>*>& inputs) {
    StepBatch batch;
    batch.sequences = spans;
    const int64_t width = case_.shape.qkv_cols();
    std::vector<float> rows;
    for (size_t i = 0; i < spans.size(); ++i) {
      const auto from = inputs[i]->begin() + spans[i].position * width;
      rows.insert(rows.end(), from, from + spans[i].count * width);
    }
    batch.tokens.resize(rows.size() / width);
    Tensor qkv = test::tensor_of(*backend_, rows, batch.size());
    Tensor out = backend_->allocate(batch.size(), case_.shape.q_cols());
    backend_->begin_step(batch);
    backend_->rope_and_attend(qkv, case_.shape, cos_table_, sin_table_, cache_, 1, out);
    return test::values_of(*backend_, out);
  }

  void copy_block(int64_t from, int64_t to) { backend_->copy_block(cache_, from, to); }

  // Of pair `i` at `position`.
  double cos(int64_t position, int64_t i) const {
    return cos_[position * case_.shape.head_dim / 2 + i];
  }
  double sin(int64_t position, int64_t i) const {
    return sin_[position * case_.shape.head_dim / 2 + i];
  }

 private:
  std::unique_ptr<Backend> backend_;
  Case case_;
  std::vector<float> cos_, sin_;  // [kPositions][head_dim / 2]
  Tensor cos_table_, sin_table_;
  KvCache cache_;
};

// What mix_dimensions() does to a query, which a query's product with a mixed key undoes.
void unmix(std::vector<double>& values) {
  std::vector<double> column(values.size());
  std::vector<float> unit(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    std::fill(unit.begin(), unit.end(), 0.f);
    unit[i] = 1;
    mix_dimensions(unit.data(), static_cast<int64_t>(unit.size()), false);
    column[i] = std::inner_product(unit.begin(), unit.end(), values.begin(), 0.0);
  }
  values = column;
}

// Textbook attention over one sequence in double precision.
std::vector<float> naive(const Case& c, const Harness& harness, const std::vector<float>& input,
                         int64_t tokens) {
  const AttentionShape& s = c.shape;
  const int64_t dim = s.head_dim, width = s.qkv_cols();
  const auto rounded = [&](std::vector<double>& values, bool is_key) {
    std::vector<float> exact(values.begin(), values.end());
    std::vector<uint8_t> codes(exact.size());
    if (c.dtype == DType::kF16) {
      for (double& value : values) value = f16_to_f32(f32_to_f16(static_cast<float>(value)));
    } else if (c.dtype == DType::kI8) {
      auto* integers = reinterpret_cast<int8_t*>(codes.data());
      const double scale = round_inputs(exact.data(), dim, 8, integers);
      for (int64_t i = 0; i < dim; ++i) values[i] = scale * integers[i];
    } else if (c.dtype == DType::kE4M3) {
      const double scale = f16_to_f32(round_to_e4m3(exact.data(), dim, codes.data()));
      for (int64_t i = 0; i < dim; ++i) values[i] = scale * e4m3_to_f32(codes[i]);
    } else if (c.dtype == DType::kI4) {
      if (is_key) mix_dimensions(exact.data(), dim, true);
      for (int64_t i = 0; i < dim; i += kKvGroup) {
        const int64_t count = std::min(kKvGroup, dim - i);
        const KvAffine group = round_to_4_bits(exact.data() + i, count, codes.data());
        for (int64_t k = 0; k < count; ++k) values[i + k] = group.value(codes[k]);
      }
      if (is_key) unmix(values);
    }
  };
  const auto head = [&](int64_t token, int64_t first, bool rotate, bool cached) {
    std::vector<double> out(dim);
    const float* at = input.data() + token * width + first;
    for (int64_t i = 0; i < dim; ++i) {
      out[i] = at[i];
      if (rotate) {
        const int64_t pair = i % (dim / 2);
        const double other = i < dim / 2 ? -at[i + dim / 2] : at[i - dim / 2];
        out[i] = at[i] * harness.cos(token, pair) + other * harness.sin(token, pair);
      }
    }
    if (cached) rounded(out, rotate);
    return out;
  };
  std::vector<std::vector<double>> keys, values;  // [tokens][kv_heads]
  for (int64_t i = 0; i < tokens * s.kv_heads; ++i) {
    const int64_t first = s.q_cols() + i % s.kv_heads * dim;
    keys.push_back(head(i / s.kv_heads, first, true, true));
    values.push_back(head(i / s.kv_heads, first + s.kv_cols(), false, true));
  }
  std::vector<float> result(tokens * s.q_cols());
  for (int64_t query = 0; query < tokens; ++query) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t kv = h / (s.heads / s.kv_heads);
      const std::vector<double> q = head(query, h * dim, true, false);
      std::vector<double> out(dim);
      double sum = 0;
      for (int64_t key = 0; key <= query; ++key) {
        if (s.sliding_window > 0 && query - key >= s.sliding_window) continue;
        const std::vector<double>&k = keys[key * s.kv_heads + kv],
              &v = values[key * s.kv_heads + kv];
        const double score = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
        const double weight = std::exp(score / std::sqrt(double(dim)));
        sum += weight;
        for (int64_t i = 0; i < dim; ++i) out[i] += weight * v[i];
      }
      for (int64_t i = 0; i < dim; ++i) {
        result[query * s.q_cols() + h * dim + i] = static_cast<float>(out[i] / sum);
      }
    }
  }
  return result;
}

const Case kCases[] = {
    {{1, 1, 2, 0}, DType::kF32},     {{3, 1, 16, 0}, DType::kF16},   {{6, 2, 64, 0}, DType::kF16},
    {{4, 4, 20, 0}, DType::kF32},    {{4, 2, 128, 0}, DType::kF16},  {{2, 1, 64, 70}, DType::kF16},
    {{4, 2, 24, 1}, DType::kF32},    {{9, 3, 64, 0}, DType::kF16},   {{2, 2, 256, 33}, DType::kF32},
    {{9, 3, 64, 0}, DType::kI8},     {{4, 4, 20, 0}, DType::kI8},    {{4, 2, 128, 40}, DType::kI8},
    {{3, 1, 2, 0}, DType::kI8},      {{9, 3, 64, 0}, DType::kE4M3},  {{4, 4, 20, 0}, DType::kE4M3},
    {{4, 2, 128, 40}, DType::kE4M3}, {{3, 1, 2, 0}, DType::kE4M3},   {{2, 1, 96, 0}, DType::kE4M3},
    {{9, 3, 64, 0}, DType::kI4},     {{4, 4, 20, 0}, DType::kI4},    {{4, 2, 128, 40}, DType::kI4},
    {{3, 1, 2, 0}, DType::kI4},      {{2, 1, 96, 0}, DType::kI4},    {{8, 1, 128, 0}, DType::kI8},
    {{17, 1, 64, 0}, DType::kI4},    {{8, 1, 128, 0}, DType::kE4M3}, {{16, 2, 128, 0}, DType::kI4},
};

class Attention : public ::testing::TestWithParam<std::tuple<std::string, Case>> {};

bool has_cache(const std::string& backend, DType dtype) {
  try {
    make_backend(backend)->make_kv_cache({1, 1, 2, 1, dtype});
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << error.what();
    return false;
  }
}

#define SKIP_WITHOUT_CACHE(backend, dtype) \
  LOWBIT_SKIP_WITHOUT_BACKEND(backend);    \
  if (!has_cache(backend, dtype)) GTEST_SKIP() << backend << " has none of " << kv_name_of(dtype)

TEST_P(Attention, AgreesWithTheTextbook) {
  const auto& [backend, c] = GetParam();
  SKIP_WITHOUT_CACHE(backend, c.dtype);
  Harness harness(backend, c);
  for (const int64_t tokens : {1, 7, 64, 150}) {
    const std::vector<float> input = gaussian(tokens * c.shape.qkv_cols(), 1);
    const std::vector<float> out = harness.step({span_of(0, 0, 0, tokens)}, {&input});
    // A rotated key may round to the neighbouring half, or code.
    EXPECT_LT(relative_error(out, naive(c, harness, input, tokens)), c.dtype == DType::kF32 ? 3e-6
                                                                     : c.dtype == DType::kF16
                                                                         ? 2e-4
                                                                         : 2e-3)
        << tokens;
  }
}

TEST_P(Attention, IsTheSameInChunksInBatchesAndOnAnyNumberOfThreads) {
  const auto& [backend, c] = GetParam();
  SKIP_WITHOUT_CACHE(backend, c.dtype);
  const int64_t q_cols = c.shape.q_cols();
  const std::vector<float> a = gaussian(150 * c.shape.qkv_cols(), 2);
  const std::vector<float> b = gaussian(90 * c.shape.qkv_cols(), 3);
  Harness whole(backend, c);
  const std::vector<float> whole_a = whole.step({span_of(0, 0, 0, 150)}, {&a});
  const std::vector<float> whole_b = whole.step({span_of(1, 0, 0, 90)}, {&b});

  Harness mixed(backend, c, 2);
  std::vector<float> mixed_a, mixed_b;
  const int64_t cuts_a[] = {0, 1, 63, 66, 148, 149, 150}, cuts_b[] = {0, 40, 41, 42, 88, 89, 90};
  for (int i = 0; i < 6; ++i) {
    const int64_t count_a = cuts_a[i + 1] - cuts_a[i], count_b = cuts_b[i + 1] - cuts_b[i];
    const std::vector<float> out = mixed.step(
        {span_of(0, 0, cuts_a[i], count_a), span_of(1, count_a, cuts_b[i], count_b)}, {&a, &b});
    mixed_a.insert(mixed_a.end(), out.begin(), out.begin() + count_a * q_cols);
    mixed_b.insert(mixed_b.end(), out.begin() + count_a * q_cols, out.end());
  }
  EXPECT_EQ(mixed_a, whole_a);
  EXPECT_EQ(mixed_b, whole_b);
}

TEST_P(Attention, CopiesBlocksWithTheirScales) {
  const auto& [backend, c] = GetParam();
  SKIP_WITHOUT_CACHE(backend, c.dtype);
  const std::vector<float> input = gaussian(70 * c.shape.qkv_cols(), 4);
  Harness harness(backend, c);
  harness.step({span_of(0, 0, 0, 69)}, {&input});
  SequenceSpan span = span_of(0, 0, 69, 1);
  const std::vector<float> out = harness.step({span}, {&input});
  for (int32_t& block : span.block_table) {
    harness.copy_block(block, block + 1);
    ++block;
  }
  EXPECT_EQ(harness.step({span}, {&input}), out);
}

INSTANTIATE_TEST_SUITE_P(Backends, Attention,
                         ::testing::Combine(::testing::ValuesIn(backend_names()),
                                            ::testing::ValuesIn(kCases)),
                         [](const auto& info) {
                           const AttentionShape& s = std::get<1>(info.param).shape;
                           return concat(std::get<0>(info.param), "_", s.heads, "_on_", s.kv_heads,
                                         "_of_", s.head_dim, "_window_", s.sliding_window, "_in_",
                                         kv_name_of(std::get<1>(info.param).dtype));
                         });

// Longer than what a kernel merges at once, and with chunks for the kernels of few and of many.
class LongAttention
    : public ::testing::TestWithParam<std::tuple<std::string, AttentionShape, DType>> {
 protected:
  static constexpr int64_t kTokens = 600;
  std::vector<float> whole(const std::string& backend, Activations activations,
                           const std::vector<float>& input) const {
    Harness harness(backend, case_of(), 2, activations);
    return harness.step({span_of(0, 0, 0, kTokens)}, {&input});
  }
  Case case_of() const { return {std::get<1>(GetParam()), std::get<2>(GetParam())}; }
};

std::string name_of_long(const ::testing::TestParamInfo<LongAttention::ParamType>& info) {
  const auto& [backend, s, dtype] = info.param;
  return concat(backend, "_", s.heads, "_on_", s.kv_heads, "_of_", s.head_dim, "_window_",
                s.sliding_window, "_in_", kv_name_of(dtype));
}

TEST_P(LongAttention, AgreesWithTheReference) {
  const std::string backend = std::get<0>(GetParam());
  LOWBIT_SKIP_WITHOUT_BACKEND(backend);
  const std::vector<float> input = gaussian(kTokens * case_of().shape.qkv_cols(), 4);
  const std::vector<float> expected = whole("ref", Activations::kF32, input);
  // In few bits a rotated key may round to the neighbouring code.
  const double flips = case_of().dtype == DType::kF16 ? 0 : 1e-3;
  EXPECT_LT(relative_error(whole(backend, Activations::kF32, input), expected), 2e-4 + flips);
  EXPECT_LT(relative_error(whole(backend, Activations::kDefault, input), expected), 5e-4 + flips);
}

TEST_P(LongAttention, IsTheSameInChunksAndInBatches) {
  const std::string backend = std::get<0>(GetParam());
  LOWBIT_SKIP_WITHOUT_BACKEND(backend);
  const Case c = case_of();
  const int64_t cols = c.shape.q_cols();
  const std::vector<float> a = gaussian(kTokens * c.shape.qkv_cols(), 5);
  const std::vector<float> b = gaussian(kTokens * c.shape.qkv_cols(), 6);
  for (const Activations activations : {Activations::kF32, Activations::kDefault}) {
    const std::vector<float> expected = whole(backend, activations, a);
    Harness mixed(backend, c, 2, activations);
    std::vector<float> found;
    int64_t from = 0, other = 0;
    // A long chunk, one of a tile and a bit, guesses to verify, single tokens; beside others.
    for (const int64_t to : {270, 271, 276, 341, 342, 512, 513, 578, 599, 600}) {
      const int64_t count = to - from, beside = count == 1 ? 1 : count % 90 + 1;
      const std::vector<float> out =
          mixed.step({span_of(1, 0, other, beside), span_of(0, beside, from, count)}, {&b, &a});
      found.insert(found.end(), out.begin() + beside * cols, out.end());
      other += beside;
      from = to;
    }
    EXPECT_EQ(found, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Backends, LongAttention,
    ::testing::Combine(::testing::Values("cpu", "cuda"),
                       ::testing::Values(AttentionShape{4, 2, 64, 0}, AttentionShape{8, 2, 128, 0},
                                         AttentionShape{8, 2, 128, 300},
                                         AttentionShape{3, 1, 64, 65}, AttentionShape{2, 1, 80, 0},
                                         AttentionShape{2, 2, 96, 600},
                                         AttentionShape{2, 1, 256, 0},
                                         AttentionShape{20, 1, 64, 0}),
                       ::testing::Values(DType::kF16)),
    name_of_long);
INSTANTIATE_TEST_SUITE_P(Codes, LongAttention,
                         ::testing::Combine(::testing::Values("cpu", "cuda"),
                                            ::testing::Values(AttentionShape{4, 2, 64, 0},
                                                              AttentionShape{8, 2, 128, 300},
                                                              AttentionShape{2, 1, 80, 0}),
                                            ::testing::Values(DType::kE4M3, DType::kI8,
                                                              DType::kI4)),
                         name_of_long);

class Step : public ::testing::TestWithParam<std::string> {};

TEST_P(Step, RefusesSpansThatDoNotFit) {
  LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
  const std::unique_ptr<Backend> backend = make_backend(GetParam());
  const auto refused = [&](std::vector<SequenceSpan> spans, std::vector<int32_t> logit_rows = {}) {
    EXPECT_THROW(backend->begin_step({{1, 2, 3}, std::move(spans), std::move(logit_rows)}), Error);
  };
  StepBatch good{{1, 2, 3}, {{0, 2, 63, {4, 9}}, {2, 1, 0, {0}}}, {1, 2}};
  EXPECT_NO_THROW(backend->begin_step(good));
  EXPECT_THROW(backend->begin_step({}), Error);
  refused({});
  refused({{0, 2, 0, {0}}});
  refused({{0, 4, 0, {0}}});
  refused({{1, 2, 0, {0}}, {0, 1, 0, {0}}});
  refused({{0, 3, 62, {0}}});
  refused({{0, 3, -1, {0}}});
  refused({{0, 3, INT64_MAX, {0}}});
  refused({{0, 3, 0, {0}}, {3, INT64_MAX, 0, {0}}});
  refused({{0, 3, 0, {0}}}, {3});
  refused({{0, 3, 0, {0}}}, {-1});
}

TEST_P(Step, RefusesCachesOfUnknownTypes) {
  LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
  EXPECT_FALSE(has_cache(GetParam(), DType::kBF16));
  EXPECT_TRUE(has_cache(GetParam(), DType::kF16));
}

TEST_P(Step, RefusesBlocksAndPositionsThatDoNotExist) {
  LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
  const std::unique_ptr<Backend> backend = make_backend(GetParam());
  const AttentionShape shape{1, 1, 2, 0};
  KvCache cache = backend->make_kv_cache({1, 1, 2, 2, DType::kF16});
  Tensor qkv = backend->allocate(1, 6), cos = backend->allocate(70, 1);
  backend->zero(qkv);
  backend->zero(cos);
  const auto rope = [&](int64_t position, std::vector<int32_t> blocks, int64_t layer) {
    const StepBatch batch{{0}, {{0, 1, position, std::move(blocks)}}, {}};
    backend->begin_step(batch);
    backend->rope_and_store(qkv, shape, cos, cos, cache, layer);
  };
  EXPECT_NO_THROW(rope(69, {0, 1}, 0));
  EXPECT_THROW(rope(70, {0, 1}, 0), Error);
  EXPECT_THROW(rope(0, {2}, 0), Error);
  EXPECT_THROW(rope(0, {-1}, 0), Error);
  EXPECT_THROW(rope(0, {0}, 1), Error);
}

INSTANTIATE_TEST_SUITE_P(Backends, Step, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace lowbit
