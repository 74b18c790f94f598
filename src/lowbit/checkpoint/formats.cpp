#include "lowbit/checkpoint/formats.h"

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/aqlm.h"
#include "lowbit/checkpoint/formats/auto_round.h"
#include "lowbit/checkpoint/formats/awq.h"
#include "lowbit/checkpoint/formats/bitsandbytes.h"
#include "lowbit/checkpoint/formats/compressed_floats.h"
#include "lowbit/checkpoint/formats/fp8.h"
#include "lowbit/checkpoint/formats/gptq.h"
#include "lowbit/checkpoint/formats/hqq.h"
#include "lowbit/checkpoint/formats/mixq.h"
#include "lowbit/checkpoint/formats/safetensors_format.h"

namespace lowbit {

std::span<const CheckpointFormat> checkpoint_formats() {
  // To add a format: its file in formats/, and its row here.
  static const CheckpointFormat formats[] = {
      kGptqFormat,       kAwqFormat,          kAutoRoundFormat, kAutoRoundAwqFormat,
      kCompressedFormat, kBitsandbytesFormat, kFp8Format,       kHqqFormat,
      kMixqFormat,       kMixqGpuFormat,      kAqlmFormat,      kSafetensorsFormat,
  };
  return formats;
}

namespace {

std::string known_names() {
  std::string names;
  for (const CheckpointFormat& format : checkpoint_formats()) {
    names += concat(names.empty() ? "" : ", ", format.name);
  }
  return names;
}

}  // namespace

const CheckpointFormat& checkpoint_format(const std::string& name) {
  for (const CheckpointFormat& format : checkpoint_formats()) {
    if (name == format.name) return format;
  }
  fail(ErrorKind::kUnsupported, "no checkpoint format \"", name, "\"; there are ", known_names());
}

const CheckpointFormat& detect_checkpoint_format(const Json& quantization_config,
                                                 const std::string& origin) {
  LOWBIT_CHECK_KIND(quantization_config.is_null() || quantization_config.is_object(),
                    ErrorKind::kCorruptFile, origin, ": quantization_config is not an object");
  for (const CheckpointFormat& format : checkpoint_formats()) {
    if (format.detect(quantization_config)) return format;
  }
  const std::string method =
      json_string(quantization_config, "quant_method", "unnamed", origin).substr(0, 64);
  fail(ErrorKind::kUnsupported, origin, ": quantized with method \"", method,
       "\", which lowbit does not read; it reads ", known_names());
}

}  // namespace lowbit
