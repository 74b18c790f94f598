#include "auto_options.h"

#include <charconv>
#include <cstdio>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/bench/layer_timer.h"
#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/mix_solution.h"
#include "lowbit/report/table.h"

namespace lowbit::app {

namespace {

constexpr const char* kGroup = "Method auto";

// "1%" and "0.01" are the same.
double share_of(const std::string& option, const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const bool percent = error == std::errc() && rest + 1 == end && *rest == '%';
  if (error != std::errc() || (rest != end && !percent) || !(value >= 0 && value <= 1000)) {
    throw CLI::ValidationError(option, concat("\"", text, "\" is no share such as 1%"));
  }
  if (!percent && value >= 1) {
    throw CLI::ValidationError(option, concat(text, " is ", 100 * value, "%; write ", text, "%"));
  }
  return percent ? value / 100 : value;
}

void add_share(CLI::App& sub, const std::string& name, double& share, const std::string& text) {
  sub.add_option_function<std::string>(
         name, [&share, name](const std::string& value) { share = share_of(name, value); }, text)
      ->type_name("PERCENT")
      ->group(kGroup);
}

std::string total_line(const char* what, const MixTotals& totals) {
  std::string line = concat(what, ": ", fixed(totals.bits(), 3), " bits per weight, ",
                            human_bytes(static_cast<double>(totals.bytes)), ", expected loss ",
                            fixed(totals.loss, 4), " nats a token");
  if (totals.seconds > 0) line += concat(", ", fixed(totals.seconds * 1e3, 3), " ms a token");
  return line + "\n";
}

void print_choice(const MixPlan& mix, const QuantScheme& uniform) {
  Table table({"layer", "scheme", ">KiB", ">us", ">loss", "why (loss in 1/1000 nats a token)"});
  for (const MixUnit& unit : mix.units) {
    const MixOption& choice = unit.choice();
    table.add({unit.name, name_of(choice.scheme),
               fixed(static_cast<double>(choice.bytes) / 1024, 0),
               choice.seconds > 0 ? fixed(choice.seconds * 1e6, 1) : "-",
               fixed(choice.loss * 1e3, 3), unit.why});
  }
  std::string text = concat("auto: ", mix.goal.empty() ? "as planned" : mix.goal,
                            "; weights rounded by ", mix.method, "\n", table.text());
  text += total_line("chosen", mix.totals());
  const std::optional<MixTotals> plain = mix.uniform(uniform);
  if (plain) text += total_line(concat("uniform ", name_of(uniform)).c_str(), *plain);
  std::fprintf(stderr, "%s%s\n", text.c_str(), mix.summary().c_str());
}

}  // namespace

void add_auto_options(CLI::App& sub, AutoOptions& options, AutoCommand& command) {
  sub.add_option("--auto-method", options.method,
                 "Method that rounds the weights: rtn, rtn-search, gptq, awq, autoround or best")
      ->capture_default_str()
      ->group(kGroup);
  sub.add_option("--target-bits", options.target_bits,
                 "Bits per weight of the quantized layers, scales included (default: what --bits, "
                 "--group-size and --sym or --asym have)")
      ->check(CLI::Range(1.0, 16.0))
      ->group(kGroup);
  sub.add_option("--target-size", options.target_bytes,
                 "Size of all tensors, those in 16 bits included (\"100MiB\")")
      ->transform(CLI::AsSizeValue(false))
      ->group(kGroup);
  add_share(sub, "--max-ppl-increase", options.max_ppl_increase,
            "Rather the fastest mix whose perplexity is expected to rise by no more (\"1%\")");
  add_share(sub, "--max-slowdown", options.max_slowdown,
            "How much slower than uniform layers a mix of the same size may be (default: 5%)");
  sub.add_flag("--ignore-speed", command.ignore_speed,
               "Do not measure speed: the choice then is the same in every run")
      ->group(kGroup);
  sub.add_option("--auto-schemes", options.schemes,
                 "Schemes to choose from, such as w3_g64,w4_g64,w4_g32_zero")
      ->delimiter(',')
      ->group(kGroup);
  sub.add_option("--auto-plan", command.plan,
                 "Take this choice, an earlier result's auto_plan.json, and measure nothing")
      ->type_name("FILE")
      ->group(kGroup);
}

void prepare_auto(QuantizeOptions& options, const AutoCommand& command) {
  const std::string& plan = command.plan;
  AutoOptions& wanted = options.method_options.automatic;
  if (options.method != "auto") {
    LOWBIT_CHECK(plan.empty() && wanted.target_bits == 0 && wanted.target_bytes == 0 &&
                     wanted.max_ppl_increase == 0 && wanted.schemes.empty(),
                 "--target-bits, --target-size, --max-ppl-increase, --auto-schemes and --auto-plan "
                 "are for --method auto, not ",
                 options.method);
    return;
  }
  if (!plan.empty()) {
    wanted.plan = std::make_shared<const MixPlan>(
        mix_plan_from_json(read_json(plan, limits::kJsonBytes), plan));
  } else if (!command.ignore_speed) {
    wanted.seconds_of = [timer = std::function<double(int64_t, int64_t, const QuantScheme&)>(),
                         threads = options.threads](int64_t rows, int64_t cols,
                                                    const QuantScheme& scheme) mutable {
      if (!timer) timer = layer_timer(threads);
      return timer(rows, cols, scheme);
    };
  }
  QuantizeOptions uniform = options;
  if (uniform.group_size == 0) uniform.group_size = 64;
  wanted.chosen = [scheme = mix_reference(uniform)](const MixPlan& mix) {
    print_choice(mix, scheme);
  };
}

}  // namespace lowbit::app
