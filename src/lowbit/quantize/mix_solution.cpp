#include "lowbit/quantize/mix_solution.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lowbit/base/check.h"
#include "lowbit/quantize/knapsack.h"

namespace lowbit {

namespace {

using Values = double (*)(const MixOption& option);

std::string number(double value, const char* format = "%.3g") {
  char text[40];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string mib(int64_t bytes) {
  return number(static_cast<double>(bytes) / (1 << 20), "%.1f MiB");
}

int64_t weights_of(const MixPlan& mix) { return mix.totals().weights; }

// The sum over units of the least, or the most, of something.
double extreme(const MixPlan& mix, Values value, bool most) {
  double total = 0;
  for (const MixUnit& unit : mix.units) {
    double best = value(unit.options.front());
    for (const MixOption& option : unit.options) {
      best = most ? std::max(best, value(option)) : std::min(best, value(option));
    }
    total += best;
  }
  return total;
}

double bytes_value(const MixOption& option) { return static_cast<double>(option.bytes); }
double loss_value(const MixOption& option) { return option.loss; }
double seconds_value(const MixOption& option) { return option.seconds; }

int64_t reference_bytes(const MixPlan& mix, const QuantizeOptions& options) {
  const QuantScheme scheme = mix_reference(options);
  double bits = static_cast<double>(scheme.bits) + 16.0 / static_cast<double>(scheme.group_size);
  if (scheme.zero == Zero::kInt) bits += static_cast<double>(scheme.bits) / scheme.group_size;
  const std::optional<MixTotals> uniform = mix.uniform(scheme);
  return uniform ? uniform->bytes
                 : static_cast<int64_t>(bits * static_cast<double>(weights_of(mix)) / 8);
}

// Bytes that the quantized linears may take.
int64_t size_budget(const MixPlan& mix, const QuantizeOptions& options, int64_t rest_bytes) {
  const AutoOptions& wanted = options.method_options.automatic;
  if (wanted.target_bytes > 0) return wanted.target_bytes - rest_bytes;
  if (wanted.target_bits > 0) {
    return static_cast<int64_t>(wanted.target_bits * static_cast<double>(weights_of(mix)) / 8);
  }
  return reference_bytes(mix, options);
}

// Least of loss + price * seconds within so many bytes; false if there is no such mix.
bool fit_size(MixPlan& mix, int64_t budget, double loss_weight, double price) {
  std::vector<std::vector<KnapsackOption>> items;
  for (const MixUnit& unit : mix.units) {
    items.emplace_back();
    for (const MixOption& option : unit.options) {
      items.back().push_back(
          {static_cast<double>(option.bytes), loss_weight * option.loss + price * option.seconds});
    }
  }
  const std::vector<size_t> chosen = solve_knapsack(items, static_cast<double>(budget));
  if (chosen.empty()) return false;
  for (size_t i = 0; i < chosen.size(); ++i) mix.units[i].chosen = chosen[i];
  return true;
}

// Seconds that uniform layers of at most this size take; 0 if there are none, or speed is unknown.
// The run's own scheme, or else the one with the least loss.
double uniform_seconds(const MixPlan& mix, const QuantizeOptions& options, int64_t budget) {
  std::optional<MixTotals> best = mix.uniform(mix_reference(options));
  if (best && best->bytes <= budget) return best->seconds;
  best.reset();
  for (const MixOption& option : mix.units.front().options) {
    const std::optional<MixTotals> uniform = mix.uniform(option.scheme);
    if (!uniform || uniform->bytes > budget) continue;
    if (!best || uniform->loss < best->loss) best = uniform;
  }
  return best ? best->seconds : 0;
}

// Raises the price of time until the mix is fast enough, then lowers it as far as it stays so.
void limit_time(MixPlan& mix, int64_t budget, double limit) {
  const MixTotals free = mix.totals();
  if (free.seconds <= limit) return;
  fit_size(mix, budget, 0, 1);
  if (mix.totals().seconds > limit) {
    mix.notices.push_back(concat("no mix of this size is as fast as asked for (",
                                 number(limit * 1e6, "%.1f"), " us a token, --max-slowdown); took ",
                                 "the one with the least loss"));
    fit_size(mix, budget, 1, 0);
    return;
  }
  double low = 0, high = std::max(free.loss, 1e-12) / free.seconds;
  constexpr int kSteps = 12;
  for (int i = 0; i < 4 * kSteps; ++i) {
    fit_size(mix, budget, 1, high);
    if (mix.totals().seconds <= limit) break;
    low = high;
    high *= 4;
  }
  for (int i = 0; i < kSteps; ++i) {
    const double middle = (low + high) / 2;
    fit_size(mix, budget, 1, middle);
    (mix.totals().seconds <= limit ? high : low) = middle;
  }
  fit_size(mix, budget, 1, high);
}

void solve_for_size(MixPlan& mix, const QuantizeOptions& options, int64_t rest_bytes) {
  const int64_t budget = size_budget(mix, options, rest_bytes);
  LOWBIT_CHECK(fit_size(mix, budget, 1, 0), "--method auto: no mix fits into ", budget, " bytes");
  const double uniform = uniform_seconds(mix, options, budget);
  const double slower = 1 + options.method_options.automatic.max_slowdown;
  if (uniform > 0) limit_time(mix, budget, uniform * slower);
  mix.goal = concat(
      "the least loss at ",
      number(8.0 * static_cast<double>(budget) / static_cast<double>(weights_of(mix)), "%.4g"),
      " bits per weight");
  if (uniform > 0) {
    mix.goal += concat(", at most ", number(100 * (slower - 1)), " % slower than uniform layers");
  }
}

// The fastest within a rise of perplexity; of equally fast ones the smallest.
void solve_for_loss(MixPlan& mix, double increase) {
  const double budget = std::log1p(increase);
  const double least = extreme(mix, loss_value, false), most = extreme(mix, loss_value, true);
  const auto percent = [](double loss) { return number(100 * std::expm1(loss), "%.3g %%"); };
  LOWBIT_CHECK(least <= budget, "--max-ppl-increase ", number(100 * increase),
               "%: the mix with the least loss is expected to raise perplexity by ", percent(least),
               ", the smallest one by ", percent(most));
  const double seconds = extreme(mix, seconds_value, true), bytes = extreme(mix, bytes_value, true);
  const double of_seconds = seconds > 0 ? 1 / seconds : 0,
               of_bytes = (seconds > 0 ? 1e-3 : 1) / bytes;
  std::vector<std::vector<KnapsackOption>> items;
  for (const MixUnit& unit : mix.units) {
    items.emplace_back();
    for (const MixOption& option : unit.options) {
      items.back().push_back({option.loss, of_seconds * option.seconds +
                                               of_bytes * static_cast<double>(option.bytes)});
    }
  }
  const std::vector<size_t> chosen = solve_knapsack(items, budget);
  for (size_t i = 0; i < chosen.size(); ++i) mix.units[i].chosen = chosen[i];
  mix.goal = concat("the ", seconds > 0 ? "fastest" : "smallest",
                    " with perplexity expected to rise by at most ", number(100 * increase), " %");
}

// What a step from the choice to another option does: "w5_g64 saves 0.12 for 81 KiB".
std::string step_text(const MixOption& from, const MixOption& to) {
  const double loss = 1e3 * (to.loss - from.loss);
  const double kib = static_cast<double>(to.bytes - from.bytes) / 1024;
  return concat(name_of(to.scheme), loss < 0 ? " saves " : " costs ", number(std::fabs(loss)),
                kib >= 0 ? " for " : " and frees ", number(std::fabs(kib), "%.0f"), " KiB (",
                number(std::fabs(loss / kib)), " each)");
}

// The best exchange of bytes for loss on either side of the choice.
void explain(MixUnit& unit) {
  const MixOption& now = unit.choice();
  const MixOption *larger = nullptr, *smaller = nullptr;
  const auto rate = [&](const MixOption& o) {
    return (now.loss - o.loss) / static_cast<double>(o.bytes - now.bytes);
  };
  for (const MixOption& option : unit.options) {
    if (option.bytes > now.bytes && option.loss < now.loss &&
        (larger == nullptr || rate(option) > rate(*larger))) {
      larger = &option;
    }
    if (option.bytes < now.bytes && (smaller == nullptr || rate(option) < rate(*smaller))) {
      smaller = &option;
    }
  }
  unit.why.clear();
  if (larger != nullptr) unit.why = step_text(now, *larger);
  if (smaller != nullptr) unit.why += (unit.why.empty() ? "" : "; ") + step_text(now, *smaller);
  if (unit.options.size() == 1) unit.why = "nothing else to choose from";
}

}  // namespace

QuantScheme mix_reference(const QuantizeOptions& options) {
  return int_scheme(options.bits, options.group_size, options.symmetric ? Zero::kNone : Zero::kInt);
}

void check_mix_size(const MixPlan& mix, const QuantizeOptions& options, int64_t rest_bytes) {
  const AutoOptions& wanted = options.method_options.automatic;
  if (wanted.max_ppl_increase > 0) return;
  const auto least = static_cast<int64_t>(extreme(mix, bytes_value, false)),
             most = static_cast<int64_t>(extreme(mix, bytes_value, true));
  const int64_t budget = size_budget(mix, options, rest_bytes);
  if (budget >= least) return;
  if (wanted.target_bytes > 0) {
    fail(ErrorKind::kInvalidArgument, "--target-size ", mib(wanted.target_bytes),
         " is impossible: with these schemes the smallest is ", mib(least + rest_bytes),
         ", the largest ", mib(most + rest_bytes), "; ", mib(rest_bytes),
         " of it stay in 16 bits (embedding, head, norms)");
  }
  const auto bits = [&](int64_t bytes) {
    return number(8.0 * static_cast<double>(bytes) / static_cast<double>(weights_of(mix)), "%.4g");
  };
  fail(ErrorKind::kInvalidArgument, "--target-bits ", bits(budget),
       " is impossible: with these schemes the smallest is ", bits(least), ", the largest ",
       bits(most));
}

void solve_mix(MixPlan& mix, const QuantizeOptions& options, int64_t rest_bytes) {
  const double increase = options.method_options.automatic.max_ppl_increase;
  for (const MixUnit& unit : mix.units) {
    for (const MixOption& option : unit.options) {
      LOWBIT_CHECK(std::isfinite(option.loss), unit.name, ": the loss of ", name_of(option.scheme),
                   " is not finite; the model overflows on this text");
    }
  }
  if (increase > 0) {
    solve_for_loss(mix, increase);
  } else {
    check_mix_size(mix, options, rest_bytes);
    solve_for_size(mix, options, rest_bytes);
  }
  for (MixUnit& unit : mix.units) explain(unit);
}

}  // namespace lowbit
