// Choosing a scheme for each layer: the knapsack, what sensitivity predicts, and how a choice is
// made, kept and read.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/quantize/calibrated_blocks.h"
#include "lowbit/quantize/divergence_loss.h"
#include "lowbit/quantize/knapsack.h"
#include "lowbit/quantize/mix_solution.h"
#include "lowbit/quantize/sensitivity.h"
#include "support/files.h"
#include "support/random.h"
#include "support/tiny_model.h"

namespace lowbit {
namespace {

using Items = std::vector<std::vector<KnapsackOption>>;

struct Sum {
  double cost = 0, value = 0;
};

Sum sum_of_choice(const Items& items, const std::vector<size_t>& chosen) {
  Sum sum;
  for (size_t i = 0; i < items.size(); ++i) {
    sum.cost += items[i].at(chosen[i]).cost;
    sum.value += items[i].at(chosen[i]).value;
  }
  return sum;
}

// Every combination; infinity if none fits.
double least_value(const Items& items, double budget, size_t from = 0) {
  if (budget < 0) return std::numeric_limits<double>::infinity();
  if (from == items.size()) return 0;
  double least = std::numeric_limits<double>::infinity();
  for (const KnapsackOption& option : items[from]) {
    least = std::min(least, option.value + least_value(items, budget - option.cost, from + 1));
  }
  return least;
}

Items random_items(test::Random& random, bool whole) {
  Items items(1 + random.below(6));
  for (auto& options : items) {
    options.resize(1 + random.below(5));
    for (KnapsackOption& option : options) {
      option.cost = static_cast<double>(12 * random.below(40)) + (whole ? 0 : 0.37);
      option.value = static_cast<double>(random.below(1000)) / 7;
    }
  }
  return items;
}

TEST(Knapsack, EqualsTryingEverything) {
  test::Random random(3);
  int possible = 0;
  for (int round = 0; round < 300; ++round) {
    const Items items = random_items(random, true);
    const double budget = static_cast<double>(random.below(1200));
    const double least = least_value(items, budget);
    const std::vector<size_t> chosen = solve_knapsack(items, budget);
    EXPECT_EQ(chosen.empty(), std::isinf(least));
    if (chosen.empty()) continue;
    ++possible;
    const Sum sum = sum_of_choice(items, chosen);
    EXPECT_LE(sum.cost, budget);
    EXPECT_NEAR(sum.value, least, 1e-9);
  }
  EXPECT_GT(possible, 100);
}

TEST(Knapsack, KeepsToTheBudgetWhereCostsAreFractions) {
  test::Random random(4);
  for (int round = 0; round < 100; ++round) {
    const Items items = random_items(random, false);
    const double budget = static_cast<double>(random.below(1200)) + 0.5;
    const std::vector<size_t> chosen = solve_knapsack(items, budget);
    if (chosen.empty()) {
      EXPECT_TRUE(std::isinf(least_value(items, budget)));
      continue;
    }
    const Sum sum = sum_of_choice(items, chosen);
    EXPECT_LE(sum.cost, budget + 1e-9);
    EXPECT_LE(sum.value, least_value(items, budget * (1 - 1e-3)) + 1e-9);
  }
}

constexpr int64_t kTokens = 24;

struct TinySetup {
  TinySetup()
      : checkpoint({{"model_type", "llama"},
                    {"vocab_size", 64},
                    {"hidden_size", 64},
                    {"intermediate_size", 64},
                    {"num_hidden_layers", 2},
                    {"num_attention_heads", 2},
                    {"num_key_value_heads", 1},
                    {"max_position_embeddings", 64},
                    {"rms_norm_eps", 1e-5},
                    {"tie_word_embeddings", false}}),
        config(parse_model_config(checkpoint.config(), nullptr, "test")),
        pool(2) {
    test::Random random(1);
    for (int w = 0; w < 64; ++w) {
      data.windows.emplace_back();
      for (int64_t t = 0; t < kTokens; ++t) {
        data.windows.back().push_back(static_cast<int32_t>(random.below(64)));
      }
    }
  }

  // What leaves the last block, with weights changed by change(block, n, weights).
  template <typename Change>
  std::vector<float> run(const Change& change) {
    const auto rope =
        std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, kTokens));
    const auto windows = static_cast<int64_t>(data.windows.size());
    HiddenStates states(windows, kTokens, config.hidden_size);
    embed_samples(checkpoint, config, data, {&states}, pool);
    std::vector<float> x, y;
    for (int64_t w = 0; w < windows; ++w) {
      x.insert(x.end(), states.sample(w).begin(), states.sample(w).end());
    }
    y.resize(x.size());
    for (int64_t b = 0; b < config.num_hidden_layers; ++b) {
      BlockWeights block = load_block_weights(checkpoint, config, b);
      for (size_t n = 0; n < kBlockLinears; ++n) change(b, n, block.linears[n].weight);
      BlockTrace trace;
      DecoderBlock(block, rope, pool).forward({windows, kTokens}, x, trace, y);
      x.swap(y);
    }
    return x;
  }

  test::TinyCheckpoint checkpoint;
  ModelConfig config;
  CalibrationData data;
  ThreadPool pool;
};

// Each kind of linear changed at random, by itself: predicted and measured divergence.
TEST(Sensitivity, PredictsTheDivergenceOfRandomChanges) {
  TinySetup tiny;
  std::array<std::array<std::vector<float>, kBlockLinears>, 2> fisher;
  const SensitivityOptions options{.windows = 64, .tokens = kTokens};
  measure_sensitivity(
      tiny.checkpoint, tiny.config, tiny.data, options, tiny.pool,
      [&](int64_t b, const BlockWeights&, const BlockFisher& f) { fisher[b] = f; }, [](double) {});
  const LinearWeight head = tiny.checkpoint.load_linear("lm_head", 64, 64);
  DivergenceLoss loss(tiny.checkpoint.load_vector("model.norm.weight", 64), 1e-5f,
                      dequantize(head.weight), tiny.pool);
  const std::vector<float> target = tiny.run([](int64_t, size_t, std::vector<float>&) {});
  std::vector<float> unused(target.size());
  for (size_t n = 0; n < kBlockLinears; ++n) {
    double predicted = 0, measured = 0;
    for (int round = 0; round < 4; ++round) {
      const std::vector<float> x = tiny.run([&](int64_t b, size_t index, std::vector<float>& w) {
        if (index != n) return;
        const std::vector<float> d = test::gaussian(w.size(), 7 * round + b);
        for (size_t i = 0; i < w.size(); ++i) {
          const float step = 0.01f * d[i];
          predicted += 0.5 * fisher[b][n][i] * step * step;
          w[i] += step;
        }
      });
      measured += loss.differentiate(x, target, unused);
    }
    EXPECT_GT(measured, 1e-6) << n;
    EXPECT_NEAR(predicted / measured, 1, 0.4) << n;
  }
}

TEST(Sensitivity, DoesNotDependOnThreadsOrWhereStatesAreKept) {
  TinySetup tiny;
  std::vector<float> seen[2];
  for (const bool other : {false, true}) {
    ThreadPool pool(other ? 3 : 1);
    SensitivityOptions options{.windows = 3, .tokens = 16};
    if (other) options.memory_bytes = 0;
    test::TemporaryFolder folder;
    options.spill = fs::path(folder / "");
    measure_sensitivity(
        tiny.checkpoint, tiny.config, tiny.data, options, pool,
        [&](int64_t, const BlockWeights&, const BlockFisher& f) {
          for (const auto& values : f)
            seen[other].insert(seen[other].end(), values.begin(), values.end());
        },
        [](double) {});
  }
  EXPECT_EQ(seen[0], seen[1]);
}

TEST(RoundingLosses, FallWithBitsAndAreNothingWhereNothingDependsOnWeights) {
  ThreadPool pool(2);
  const BlockWeights::Linear linear{"w", 3, 64, test::gaussian(3 * 64, 1), {}};
  std::vector<QuantScheme> schemes;
  for (const int bits : {2, 3, 4, 6, 8}) schemes.push_back(int_scheme(bits, 32));
  std::vector<float> fisher(3 * 64, 2.f);
  const std::vector<double> losses = rounding_losses(linear, fisher, schemes, pool);
  for (size_t i = 1; i < losses.size(); ++i) EXPECT_LT(losses[i], losses[i - 1] / 2) << i;
  std::fill(fisher.begin(), fisher.end(), 0.f);
  for (const double loss : rounding_losses(linear, fisher, schemes, pool)) EXPECT_EQ(loss, 0);
}

// Of matrices with rows of all sizes, some rows tell of all.
TEST(RoundingLosses, AreEstimatedFromSomeRows) {
  ThreadPool pool(2);
  constexpr int64_t kRows = 1000, kCols = 64;
  BlockWeights::Linear linear{"w", kRows, kCols, test::gaussian(kRows * kCols, 1), {}};
  std::vector<float> fisher(linear.weight.size());
  test::Random random(5);
  for (int64_t row = 0; row < kRows; ++row) {
    const float size = std::pow(10.f, static_cast<float>(random.below(5)));
    for (int64_t k = 0; k < kCols; ++k) fisher[row * kCols + k] = size;
  }
  const QuantScheme scheme = int_scheme(3, 32);
  const double estimate = rounding_losses(linear, fisher, {scheme}, pool)[0];
  double exact = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    const auto from = linear.weight.begin() + row * kCols;
    const BlockWeights::Linear one{"w", 1, kCols, {from, from + kCols}, {}};
    const std::vector<float> of_row(fisher.begin() + row * kCols,
                                    fisher.begin() + (row + 1) * kCols);
    exact += rounding_losses(one, of_row, {scheme}, pool)[0];
  }
  EXPECT_NEAR(estimate / exact, 1, 0.05);
}

MixPlan planned(const std::vector<double>& sensitivities, double w5_seconds = 0) {
  MixPlan mix;
  for (size_t i = 0; i < sensitivities.size(); ++i) {
    MixUnit unit;
    unit.name = unit.modules.emplace_back("module" + std::to_string(i));
    unit.weights = 64 * 64;
    unit.cols = 64;
    for (const int bits : {3, 4, 5}) {
      const double seconds = w5_seconds == 0 ? 0 : bits == 5 ? w5_seconds : 1e-6 * bits;
      unit.options.push_back({int_scheme(bits, 64), sensitivities[i] * std::pow(4.0, -bits),
                              seconds, 64 * 8 * bits + 128});
    }
    mix.units.push_back(unit);
  }
  return mix;
}

int bits_of(const MixPlan& mix, size_t unit) { return mix.units[unit].choice().scheme.bits; }

QuantizeOptions w4() {
  QuantizeOptions options;
  options.group_size = 64;
  return options;
}

TEST(Mix, GivesMoreBitsToWhatIsSensitive) {
  MixPlan mix = planned({1, 1000, 30, 30});
  solve_mix(mix, w4(), 0);
  EXPECT_EQ(bits_of(mix, 0), 3);
  EXPECT_EQ(bits_of(mix, 1), 5);
  EXPECT_EQ(bits_of(mix, 2), 4);
  EXPECT_EQ(mix.totals().bytes, mix.uniform(int_scheme(4, 64))->bytes);
  EXPECT_LT(mix.totals().loss, mix.uniform(int_scheme(4, 64))->loss);
  EXPECT_NE(mix.units[0].why.find("w4_g64 saves"), std::string::npos) << mix.units[0].why;
  EXPECT_NE(mix.units[1].why.find("w4_g64 costs"), std::string::npos) << mix.units[1].why;
}

TEST(Mix, IsNoSlowerThanUniformLayersMayBe) {
  MixPlan mix = planned({1, 1000, 30, 30}, 50e-6);
  QuantizeOptions options = w4();
  solve_mix(mix, options, 0);
  EXPECT_LE(mix.totals().seconds, 1.05 * mix.uniform(int_scheme(4, 64))->seconds);
  for (size_t i = 0; i < 4; ++i) EXPECT_NE(bits_of(mix, i), 5);
  options.method_options.automatic.max_slowdown = 10;
  solve_mix(mix, options, 0);
  EXPECT_EQ(bits_of(mix, 1), 5);
}

TEST(Mix, TakesTheFastestWithinALoss) {
  MixPlan mix = planned({0.1, 100, 1, 1}, 50e-6);
  QuantizeOptions options = w4();
  options.method_options.automatic.max_ppl_increase = 0.6;
  solve_mix(mix, options, 0);
  EXPECT_LE(mix.totals().loss, std::log(1.6));
  EXPECT_EQ(bits_of(mix, 0), 3);
  EXPECT_EQ(bits_of(mix, 1), 4);
  options.method_options.automatic.max_ppl_increase = 1e-4;
  try {
    solve_mix(mix, options, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("least loss"), std::string::npos) << error.what();
  }
}

TEST(Mix, SaysWhichSizesArePossible) {
  const MixPlan mix = planned({1, 2, 3, 4});
  QuantizeOptions options = w4();
  options.method_options.automatic.target_bits = 2.5;
  try {
    check_mix_size(mix, options, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("smallest is 3.25, the largest 5.25"),
              std::string::npos)
        << error.what();
  }
  options.method_options.automatic.target_bits = 0;
  options.method_options.automatic.target_bytes = 1 << 20;
  EXPECT_NO_THROW(check_mix_size(mix, options, 0));
  try {
    check_mix_size(mix, options, 1 << 20);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("1.0 MiB of it stay in 16 bits"), std::string::npos)
        << error.what();
  }
}

TEST(Mix, ComesBackFromJson) {
  MixPlan mix = planned({1, 1000, 30, 30}, 7e-6);
  solve_mix(mix, w4(), 0);
  mix.method = "gptq";
  const MixPlan read = mix_plan_from_json(parse_json(dump_json(to_json(mix)), "text"), "plan");
  EXPECT_EQ(to_json(read), to_json(mix));
}

TEST(Mix, RefusesAPlanThatIsNone) {
  for (const char* text :
       {"[]", "{}", R"({"layers": 3})", R"({"layers": [3]})", R"({"layers": [{}]})",
        R"({"layers": [{"modules": []}]})", R"({"layers": [{"modules": [1], "scheme": "w4_g64"}]})",
        R"({"layers": [{"modules": ["a"]}]})",
        R"({"layers": [{"modules": ["a"], "scheme": "w9_g64"}]})",
        R"({"layers": [{"modules": ["a"], "scheme": "w4_g64", "options": [1]}]})",
        R"({"layers": [{"modules": ["a"], "scheme": 4}]})"}) {
    EXPECT_THROW(mix_plan_from_json(parse_json(text, "text"), "plan"), Error) << text;
  }
  const Json least = parse_json(R"({"layers": [{"modules": ["a"], "scheme": "w3_g32_zero"}]})", "");
  EXPECT_EQ(mix_plan_from_json(least, "plan").units[0].choice().scheme,
            int_scheme(3, 32, Zero::kInt));
}

}  // namespace
}  // namespace lowbit
