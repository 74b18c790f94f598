#include "lowbit/quantize/fingerprint.h"

#include <algorithm>
#include <chrono>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/base/version.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

namespace {

constexpr uint64_t kEnd = uint64_t{1} << 20;  // hashed at both ends of a file
constexpr uint64_t kPlaces = 256;             // and this many pages between them
constexpr uint64_t kPage = 4096;

std::string sample(const fs::path& path) {
  const MappedFile file(path);
  Sha256 hash;
  if (file.size() <= 2 * kEnd + kPlaces * kPage) {
    hash.update(file.bytes());
  } else {
    hash.update(file.bytes().first(kEnd));
    for (uint64_t i = 0; i < kPlaces; ++i) {
      hash.update(file.bytes().subspan((file.size() - kPage) / kPlaces * i, kPage));
    }
    hash.update(file.bytes().last(kEnd));
  }
  file.check();
  return hash.hex();
}

Json describe(const fs::path& path) {
  const auto modified = fs::last_write_time(path).time_since_epoch();
  return {{"size", fs::file_size(path)},
          {"modified", std::chrono::duration_cast<std::chrono::nanoseconds>(modified).count()},
          {"sample", sample(path)}};
}

}  // namespace

Json fingerprint(const fs::path& model, const QuantizeOptions& options,
                 const CalibrationData& calibration) {
  Json files = Json::object();
  if (fs::is_directory(model)) {
    for (const auto& entry : fs::directory_iterator(model)) {
      if (entry.is_regular_file()) {
        files[entry.path().filename().string()] = describe(entry.path());
      }
    }
  } else {
    files[model.filename().string()] = describe(model);
  }
  std::vector<std::string> skip = options.skip;
  std::sort(skip.begin(), skip.end());
  Json result = {{"lowbit", kVersion},
                 {"options",
                  {{"method", options.method},
                   {"bits", options.bits},
                   {"group_size", options.group_size},
                   {"symmetric", options.symmetric},
                   {"input_bits", options.input_bits},
                   {"input_form", static_cast<int>(options.input_form)},
                   {"format", options.format},
                   {"skip", skip},
                   {"shard_bytes", options.shard_bytes}}},
                 {"model", files}};
  if (options.backend != "cpu") result["options"]["backend"] = options.backend;
  const QuantizeMethod& method = quantize_method(options.method);
  if (method.describe != nullptr) {
    result["options"]["method_options"] = method.describe(options.method_options);
  }
  if (!calibration.windows.empty()) {
    result["calibration"] = {
        {"tokens", calibration.sha256},
        {"isa", options.backend == "cpu" ? cpu::Gemm().isa() : options.backend}};
    result["options"]["samples"] = calibration.windows.size();
    result["options"]["seqlen"] = options.calibration.seqlen;
    result["options"]["seed"] = options.method_options.seed;
  }
  return result;
}

}  // namespace lowbit
