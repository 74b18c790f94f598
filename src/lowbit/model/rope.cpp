#include "lowbit/model/rope.h"

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr double kMinFactor = 1e-6;
constexpr double kPi = 3.14159265358979323846;

// The object that holds the scaling: rope_scaling if it says anything, else rope_parameters.
const Json& scaling_object(const ConfigReader& config) {
  static const Json kNone = Json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has_value(key) && !config.object()[key].empty()) return config.object()[key];
  }
  return kNone;
}

RopeType rope_type(const std::string& name, const std::string& origin) {
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "llama3") return RopeType::kLlama3;
  if (name == "factors") return RopeType::kFactors;
  fail(ErrorKind::kUnsupported, origin, ": rope type \"", name,
       "\" is not supported; supported are default, linear, llama3");
}

std::vector<double> parse_factors(const ConfigReader& scaling, int64_t head_dim) {
  const Json* list = scaling.has_value("factors") ? &scaling.object()["factors"] : nullptr;
  LOWBIT_CHECK_KIND(
      list != nullptr && list->is_array() && static_cast<int64_t>(list->size()) == head_dim / 2,
      ErrorKind::kCorruptFile, scaling.origin(),
      ": rope \"factors\" must be a list of head_dim / 2 = ", head_dim / 2, " numbers");
  std::vector<double> factors;
  for (const Json& item : *list) {
    const double factor = item.is_number() ? item.get<double>() : 0;
    LOWBIT_CHECK_KIND(factor >= kMinFactor && factor <= kMaxFactor, ErrorKind::kCorruptFile,
                      scaling.origin(), ": rope factor ", item.dump(), " is not a number from ",
                      kMinFactor, " to ", kMaxFactor);
    factors.push_back(factor);
  }
  return factors;
}

// Frequencies whose wavelength exceeds the trained context are divided by `factor`, those well
// within it stay, those between are blended (Llama 3.1).
float llama3_scaled(const RopeConfig& rope, float inv_freq) {
  const auto context = static_cast<double>(rope.original_max_position_embeddings);
  const auto factor = static_cast<float>(rope.factor);
  const float wavelength = static_cast<float>(2 * kPi) / inv_freq;
  if (wavelength < static_cast<float>(context / rope.high_freq_factor)) return inv_freq;
  if (wavelength > static_cast<float>(context / rope.low_freq_factor)) return inv_freq / factor;
  const float smooth =
      (static_cast<float>(context) / wavelength - static_cast<float>(rope.low_freq_factor)) /
      static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * inv_freq / factor + smooth * inv_freq;
}

}  // namespace

RopeConfig parse_rope(const ConfigReader& config, int64_t head_dim,
                      int64_t max_position_embeddings) {
  const ConfigReader scaling(scaling_object(config), config.origin() + " (rope)");
  LOWBIT_CHECK_KIND(!scaling.contains("full_attention") && !scaling.contains("sliding_attention"),
                    ErrorKind::kUnsupported, scaling.origin(),
                    ": a rope of its own per layer type is not supported");
  for (const ConfigReader* reader : {&config, &scaling}) {
    LOWBIT_CHECK_KIND(reader->number("partial_rotary_factor", 0, 1, 1.0) == 1.0,
                      ErrorKind::kUnsupported, reader->origin(),
                      ": partial_rotary_factor other than 1 is not supported");
  }

  RopeConfig rope;
  const std::string old_spelling = scaling.string("type", "default");
  rope.type = rope_type(scaling.string("rope_type", old_spelling), scaling.origin());
  rope.theta = scaling.number("rope_theta", 1.0, kMaxTheta,
                              config.number("rope_theta", 1.0, kMaxTheta, rope.theta));
  if (rope.type == RopeType::kLinear || rope.type == RopeType::kLlama3) {
    rope.factor = scaling.number("factor", kMinFactor, kMaxFactor);
  }
  if (rope.type == RopeType::kLlama3) {
    rope.low_freq_factor = scaling.number("low_freq_factor", kMinFactor, kMaxFactor);
    rope.high_freq_factor = scaling.number("high_freq_factor", kMinFactor, kMaxFactor);
    LOWBIT_CHECK_KIND(rope.high_freq_factor > rope.low_freq_factor, ErrorKind::kCorruptFile,
                      scaling.origin(), ": high_freq_factor ", rope.high_freq_factor,
                      " must exceed low_freq_factor ", rope.low_freq_factor);
    const char* original = "original_max_position_embeddings";
    rope.original_max_position_embeddings =
        config.integer(original, 1, limits::kContext,
                       scaling.integer(original, 1, limits::kContext, max_position_embeddings));
  }
  if (rope.type == RopeType::kFactors) rope.factors = parse_factors(scaling, head_dim);
  return rope;
}

std::vector<float> rope_inv_freq(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> inv_freq(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float base = static_cast<float>(rope.theta);
    float value = 1.0f / static_cast<float>(std::pow(double{base}, double{exponent}));
    if (rope.type == RopeType::kLinear) value /= static_cast<float>(rope.factor);
    if (rope.type == RopeType::kLlama3) value = llama3_scaled(rope, value);
    if (rope.type == RopeType::kFactors) value /= static_cast<float>(rope.factors[i]);
    inv_freq[i] = value;
  }
  return inv_freq;
}

RopeTables rope_tables(const RopeConfig& rope, int64_t head_dim, int64_t positions) {
  const std::vector<float> inv_freq = rope_inv_freq(rope, head_dim);
  RopeTables tables;
  tables.cos.reserve(static_cast<size_t>(positions) * inv_freq.size());
  tables.sin.reserve(static_cast<size_t>(positions) * inv_freq.size());
  for (int64_t position = 0; position < positions; ++position) {
    for (const float frequency : inv_freq) {
      // The angle is rounded to fp32, as models are trained; its cosine is then exact.
      const double angle = static_cast<float>(position) * frequency;
      tables.cos.push_back(static_cast<float>(std::cos(angle)));
      tables.sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return tables;
}

}  // namespace lowbit
