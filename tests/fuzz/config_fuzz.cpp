// JSON from outside, and what reads it before a model is made: shard indices and quantization
// configs.
#include <string_view>

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/checkpoint/hf_checkpoint.h"
#include "lowbit/checkpoint/shards.h"
#include "lowbit/model/config.h"

namespace {

template <typename Work>
void attempt(Work work) {
  try {
    work();
  } catch (const lowbit::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] {
    const lowbit::Json document = lowbit::parse_json(text, "fuzz");
    lowbit::dump_json(document);
    attempt([&] { lowbit::parse_weight_map(document, "fuzz"); });
    attempt([&] { lowbit::parse_model_config(document, {}, "fuzz"); });
    attempt([&] { lowbit::parse_model_config(document, document, "fuzz"); });
    if (!document.is_object()) return;
    for (const lowbit::Json& config : {lowbit::find_quantization_config(document, {}, {}),
                                       lowbit::find_quantization_config({}, document, {}),
                                       lowbit::find_quantization_config({}, {}, document)}) {
      attempt([&] { lowbit::detect_checkpoint_format(config, "fuzz"); });
    }
  });
  return 0;
}
