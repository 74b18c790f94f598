#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/quantize/absmean.h"
#include "lowbit/quantize/autoround.h"
#include "lowbit/quantize/awq.h"
#include "lowbit/quantize/block_codes.h"
#include "lowbit/quantize/float_codes.h"
#include "lowbit/quantize/gptq.h"
#include "lowbit/quantize/hqq.h"
#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/mixq.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rtn.h"
#include "lowbit/quantize/smoothquant.h"

namespace lowbit {

namespace {

template <typename Method>
std::unique_ptr<Quantizer> make() {
  return std::make_unique<Method>();
}

std::unique_ptr<Quantizer> make_searching_rtn() {
  return std::make_unique<Rtn>(Rtn::Search::kScale);
}

int64_t group_size(const SchemeRequest& request) {
  return request.group_size > 0 ? request.group_size : 0;
}

int input_bits(const SchemeRequest& request, int usual) {
  const int bits = request.input_bits == 0 ? usual : request.input_bits;
  return bits == 16 ? 0 : bits;
}

QuantScheme integers(const SchemeRequest& request) {
  QuantScheme scheme =
      int_scheme(request.bits, group_size(request), request.symmetric ? Zero::kNone : Zero::kInt);
  scheme.input_bits = input_bits(request, 0);
  if (scheme.input_bits != 0) scheme.input_form = request.input_form;
  return scheme;
}

// One scale a row, and inputs in 8 bits too.
QuantScheme smoothed(const SchemeRequest& request) {
  QuantScheme scheme = int_scheme(8, 0);
  scheme.input_bits = input_bits(request, 8);
  if (scheme.input_bits != 0) scheme.input_form = request.input_form;
  return scheme;
}

QuantScheme mixed(const SchemeRequest& request) {
  LOWBIT_CHECK(request.bits == 4 || request.bits == 8, "--method mixq has --bits 4 and 8, not ",
               request.bits);
  QuantScheme scheme = int_scheme(request.bits, 0);
  scheme.input_bits = input_bits(request, request.bits);
  LOWBIT_CHECK(scheme.input_bits == 0 || scheme.input_bits >= request.bits,
               "--method mixq has no inputs of ", scheme.input_bits, " bits for weights of ",
               request.bits);
  return scheme;
}

QuantScheme float_zeros(const SchemeRequest& request) {
  return int_scheme(request.bits, group_size(request), Zero::kOffset);
}

QuantScheme ternary(const SchemeRequest& request) {
  QuantScheme scheme = int_scheme(2, group_size(request));
  if (request.group_size == 0) scheme.group_rows = 0;
  return scheme;
}
QuantScheme int1(const SchemeRequest& request) {
  QuantScheme scheme = int_scheme(1, group_size(request), Zero::kOffset);
  if (request.group_size == 0) scheme.group_rows = 0;
  return scheme;
}

// A scheme that leaves nothing to choose.
template <QuantScheme (*kScheme)()>
QuantScheme fixed(const SchemeRequest&) {
  return kScheme();
}

template <Code kCode, ScaleForm kForm>
QuantScheme blocks_of_64() {
  return table_scheme(kCode, 64, kForm);
}
template <int kRows, int64_t kCols>
QuantScheme fp8() {
  return fp8_scheme(kRows, kCols);
}
// One scale a row; inputs as 8-bit floats too if asked for (FP8_DYNAMIC).
QuantScheme fp8_rows(const SchemeRequest& request) {
  QuantScheme scheme = fp8_scheme(1, 0);
  if (request.input_bits == 8) {
    scheme.input_bits = 8;
    scheme.input_form = request.input_form;
  }
  return scheme;
}
QuantScheme mxfp8() { return fp8_scheme(1, 32, ScaleForm::kE8M0); }
QuantScheme mxfp4() { return table_scheme(Code::kE2M1, 32, ScaleForm::kE8M0); }
QuantScheme nvfp4() { return table_scheme(Code::kE2M1, 16, ScaleForm::kE4M3); }
QuantScheme int8() { return int_scheme(8, 0); }

template <typename Method, auto kOptions>
std::unique_ptr<BlockQuantizer> make_block(const MethodOptions& options) {
  return std::make_unique<Method>(options.*kOptions);
}

Json describe_gptq(const MethodOptions& options) {
  return {{"damp_percent", options.gptq.damp_percent},
          {"act_order", static_cast<int>(options.gptq.act_order)},
          {"search_scale", options.gptq.search_scale},
          {"block_size", options.gptq.block_size}};
}
bool gptq_reorders(const MethodOptions& options) {
  return options.gptq.act_order == ActOrder::kKept;
}

Json describe_awq(const MethodOptions& options) {
  return {{"duo_scaling", options.awq.duo_scaling},
          {"grid", options.awq.grid},
          {"clip", options.awq.clip}};
}

// The digest of activation scales; null if there are none.
template <typename Scales>
Json digest_of(const Scales& act_scales) {
  if (!act_scales) return nullptr;
  Sha256 hash;
  for (const auto& [module, values] : *act_scales) {
    hash.update(module);
    const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
    hash.update(std::span(bytes, values.size() * sizeof(float)));
  }
  return hash.hex();
}

Json describe_smoothquant(const MethodOptions& options) {
  const SmoothQuantOptions& chosen = options.smoothquant;
  return {{"alpha", chosen.alpha}, {"act_scales", digest_of(chosen.act_scales)}};
}

Json describe_mixq(const MethodOptions& options) {
  return {{"outliers", options.mixq.outliers}, {"act_scales", digest_of(options.mixq.act_scales)}};
}

Json describe_autoround(const MethodOptions& options) {
  return {{"iterations", options.autoround.iterations},
          {"batch_size", options.autoround.batch_size},
          {"learning_rate", options.autoround.learning_rate}};
}

Json describe_best(const MethodOptions& options) {
  Json result = describe_autoround(options);
  result["refine_steps"] = options.refine.steps;
  result["refine_rate"] = options.refine.rate;
  result["refine_range_rate"] = options.refine.range_rate;
  return result;
}

Json describe_auto(const MethodOptions& options) {
  const AutoOptions& wanted = options.automatic;
  const QuantizeMethod& rounds = quantize_method(wanted.method);
  Json result = {{"method", wanted.method},
                 {"target_bits", wanted.target_bits},
                 {"target_bytes", wanted.target_bytes},
                 {"max_ppl_increase", wanted.max_ppl_increase},
                 {"max_slowdown", wanted.max_slowdown},
                 {"measures_speed", wanted.seconds_of != nullptr},
                 {"schemes", wanted.schemes},
                 {"plan", wanted.plan ? Json(sha256(dump_json(to_json(*wanted.plan)))) : Json()}};
  if (rounds.describe != nullptr) result["of_method"] = rounds.describe(options);
  return result;
}

constexpr ScaleForm kPlain = ScaleForm::kFloat, kNested = ScaleForm::kNested;

constexpr QuantizeMethod kMethods[] = {
    {.name = "rtn",
     .format = "gptq",
     .description = "round to nearest: no data needed, seconds",
     .make = make<Rtn>,
     .scheme = integers,
     .on_device = true},
    {.name = "rtn-search",
     .format = "gptq",
     .description = "rtn with each group's scale searched for the least error",
     .make = make_searching_rtn,
     .scheme = integers,
     .on_device = true},
    {.name = "hqq",
     .format = "hqq",
     .description = "half-quadratic: float zero points fitted to the weights, no data",
     .make = make<Hqq>,
     .scheme = float_zeros,
     .fewest_bits = 1,
     .on_device = true},
    {.name = "gptq",
     .format = "gptq",
     .description = "moves rounding errors into weights yet to be rounded (needs --calibration)",
     .make = make<Rtn>,
     .scheme = integers,
     .make_block = make_block<Gptq, &MethodOptions::gptq>,
     .describe = describe_gptq,
     .reorders = gptq_reorders,
     .on_device = true},
    {"awq", "awq", "scales up what large activations meet, clips ranges (needs --calibration)",
     make<Rtn>, integers, make_block<Awq, &MethodOptions::awq>, describe_awq},
    {"smoothquant", "compressed-tensors",
     "int8 with activations' size moved into weights (needs --calibration or --act-scales)",
     make<Rtn>, smoothed, make_block<SmoothQuant, &MethodOptions::smoothquant>,
     describe_smoothquant},
    {"mixq", "mixq",
     "8 or 4 bits, columns with large inputs in fp16 (needs --calibration or --act-scales)",
     make<Rtn>, mixed, make_block<MixQ, &MethodOptions::mixq>, describe_mixq, nullptr, false, 2,
     mixq_module_scheme, true},
    {"autoround", "auto-round",
     "learns roundings and ranges by gradient descent (needs --calibration)", make_searching_rtn,
     integers, make_block<AutoRound, &MethodOptions::autoround>, describe_autoround},
    {"best", "auto-round",
     "autoround, then all blocks at once against the model's predictions (needs --calibration)",
     make_searching_rtn, integers, make_block<AutoRound, &MethodOptions::autoround>, describe_best,
     nullptr, true},
    {"auto", "compressed-tensors",
     "measures speed and loss of each layer in each scheme and takes the best mix of the size "
     "(needs --calibration)",
     make_searching_rtn, integers, nullptr, describe_auto, nullptr, false, 2, nullptr, false, true},
    {"nf4", "bitsandbytes", "bitsandbytes' NormalFloat in blocks of 64", make<BlockCodes>,
     fixed<blocks_of_64<Code::kNf4, kPlain>>},
    {"nf4-double", "bitsandbytes", "nf4 with its scales in 8 bits", make<BlockCodes>,
     fixed<blocks_of_64<Code::kNf4, kNested>>},
    {"fp4", "bitsandbytes", "bitsandbytes' FP4 in blocks of 64", make<BlockCodes>,
     fixed<blocks_of_64<Code::kFp4, kPlain>>},
    {"fp4-double", "bitsandbytes", "fp4 with its scales in 8 bits", make<BlockCodes>,
     fixed<blocks_of_64<Code::kFp4, kNested>>},
    {"ternary", "gguf", "-1, 0 or 1 times the mean magnitude (BitNet b1.58), one scale a matrix",
     make<Ternary>, ternary, nullptr, nullptr, nullptr, false, 1},
    {"int1", "gguf", "-1 or 1 times the mean magnitude of 128", make<Int1>, int1, nullptr, nullptr,
     nullptr, false, 1},
    {"int8", "bitsandbytes", "LLM.int8()'s weights: 8 bits, one scale a row", make<Int8Rows>,
     fixed<int8>},
    {"fp8", "compressed-tensors", "8-bit floats (E4M3), one scale a row", make<FloatCodes>,
     fp8_rows},
    {"fp8-tensor", "fp8", "8-bit floats, one scale a matrix", make<FloatCodes>, fixed<fp8<0, 0>>},
    {"fp8-block", "fp8", "8-bit floats, a scale for 128 x 128", make<FloatCodes>,
     fixed<fp8<128, 128>>},
    {"mxfp8", "compressed-tensors", "8-bit floats, a power of two for 32", make<FloatCodes>,
     fixed<mxfp8>},
    {"mxfp4", "compressed-tensors", "4-bit floats (E2M1), a power of two for 32", make<FloatCodes>,
     fixed<mxfp4>},
    {"nvfp4", "compressed-tensors", "4-bit floats, an 8-bit float scale for 16", make<FloatCodes>,
     fixed<nvfp4>},
};

}  // namespace

std::span<const QuantizeMethod> quantize_methods() { return kMethods; }

const QuantizeMethod& quantize_method(const std::string& name) {
  std::string names;
  for (const QuantizeMethod& method : kMethods) {
    if (name == method.name) return method;
    names += concat(names.empty() ? "" : ", ", method.name);
  }
  fail(ErrorKind::kInvalidArgument, "no quantization method \"", name, "\"; there are: ", names);
}

void check_finite(const std::string& name, std::span<const float> row, int64_t row_index) {
  // x * 0 is 0 for finite x and NaN otherwise: one pass without branches finds most rows clean.
  float sum = 0;
  for (const float value : row) sum += value * 0.f;
  if (sum == 0) return;
  for (size_t column = 0; column < row.size(); ++column) {
    LOWBIT_CHECK(std::isfinite(row[column]), name, ": weight is ", row[column], " at row ",
                 row_index, ", column ", column, "; the checkpoint is damaged or overflowed");
  }
}

}  // namespace lowbit
