#include "calibration_options.h"

#include <limits>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit::app {

namespace {

constexpr const char* kGroup = "Calibration";

}  // namespace

void add_calibration_text_options(CLI::App& sub, CalibrationOptions& calibration) {
  sub.add_option("--calibration", calibration.path,
                 "Text that the model should be good at: a file, a .jsonl file with a \"text\" in "
                 "each line, or a folder of such files")
      ->type_name("PATH")
      ->group(kGroup);
  sub.add_option("--samples", calibration.samples,
                 "Windows of the text to use (default: all, at most 128)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group(kGroup);
  sub.add_option("--seqlen", calibration.seqlen, "Tokens of a window")
      ->check(CLI::Range(int64_t{2}, limits::kContext))
      ->capture_default_str()
      ->group(kGroup);
  sub.add_option("--seed", calibration.seed,
                 "Draw the windows at random from the whole text (-1: take the first ones)")
      ->check(CLI::Range(int64_t{-1}, std::numeric_limits<int64_t>::max()))
      ->capture_default_str()
      ->group(kGroup);
}

void add_calibration_method_options(CLI::App& sub, QuantizeOptions& options) {
  sub.add_option("--memory", options.memory_bytes,
                 "Bytes of activations to hold in memory; more are kept beside OUT (\"8GB\")")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->group(kGroup);
  GptqOptions& gptq = options.method_options.gptq;
  sub.add_option("--damp-percent", gptq.damp_percent,
                 "gptq: share of the Hessian's mean diagonal added to its diagonal")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str()
      ->group(kGroup);
  const std::map<std::string, ActOrder> orders = {
      {"none", ActOrder::kNone}, {"static", ActOrder::kStatic}, {"kept", ActOrder::kKept}};
  sub.add_option(
         "--act-order", gptq.act_order,
         "gptq: round columns as they come (none), or those with large inputs first, groups "
         "of neighbours all the same (static), or groups in that order too (kept)")
      ->transform(CLI::CheckedTransformer(orders).description(""))
      ->type_name("none|static|kept")
      ->default_str("static")
      ->group(kGroup);
  sub.add_flag("--search-scale", gptq.search_scale,
               "gptq: search each group's scale for the least error, inputs weighed in")
      ->group(kGroup);
  sub.add_option("--block-size", gptq.block_size, "gptq: columns between two updates of the rest")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->group(kGroup);
  AwqOptions& awq = options.method_options.awq;
  sub.add_flag("!--no-duo-scaling", awq.duo_scaling, "awq: scales from activations alone")
      ->group(kGroup);
  sub.add_flag("!--no-clip", awq.clip, "awq: leave the groups' ranges as they are")->group(kGroup);
  SmoothQuantOptions& smoothquant = options.method_options.smoothquant;
  sub.add_option(
         "--alpha", smoothquant.alpha,
         "smoothquant: how much of the activations' size moves into the weights of q, k, v, "
         "gate and up")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(kGroup);
  sub.add_option(
         "--act-scales", options.act_scales,
         "smoothquant, mixq: largest inputs (.pt or .safetensors) in place of --calibration")
      ->type_name("FILE")
      ->group(kGroup);
  sub.add_option("--outliers", options.method_options.mixq.outliers,
                 "mixq: columns of each layer to keep in fp16, those with the largest inputs")
      ->check(CLI::Range(int64_t{0}, limits::kDimension))
      ->capture_default_str()
      ->group(kGroup);
  AutoRoundOptions& autoround = options.method_options.autoround;
  sub.add_option("--iters", autoround.iterations,
                 "autoround, best: steps of gradient descent per block")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str()
      ->group(kGroup);
  sub.add_option("--batch-size", autoround.batch_size,
                 "autoround, best: windows of one step (default: as many as have 2048 tokens)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group(kGroup);
  sub.add_option("--lr", autoround.learning_rate,
                 "autoround: first step of every rounding offset (default: 1 / iterations, at most "
                 "0.02)")
      ->check(CLI::Range(1e-6, 1.0))
      ->group(kGroup);
  RefineOptions& refine = options.method_options.refine;
  sub.add_option(
         "--refine-steps", refine.steps,
         "best: steps over the whole model after autoround's (default: 300, of 3 bits 400, of "
         "2 bits 600)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group(kGroup);
  sub.add_option("--refine-lr", refine.rate,
                 "best: first step of every rounding offset then (default: 0.001, "
                 "of 2 bits 0.0002)")
      ->check(CLI::Range(1e-6, 1.0))
      ->group(kGroup);
}

void add_quantize_backend_option(CLI::App& sub, QuantizeOptions& options) {
  std::string methods;
  for (const QuantizeMethod& method : quantize_methods()) {
    if (method.on_device) methods += concat(methods.empty() ? "" : ", ", method.name);
  }
  sub.add_option("--backend", options.backend,
                 concat("Where to compute: cpu, or cuda, the first GPU (", methods,
                        " wholly there; other methods that calibrate in part)"))
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
}

}  // namespace lowbit::app
