// Quantized linears: a safetensors file whose metadata holds a quantization_config. Every module is
// read by the format that detects it, and again by the second reading of `verify`.
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/verify/plain_weight.h"

namespace {

class FileSource final : public lowbit::TensorSource {
 public:
  FileSource(std::span<const uint8_t> file, const lowbit::SafetensorsHeader& header)
      : file_(file), header_(header) {}
  bool contains(const std::string& name) const override { return header_.tensors.contains(name); }
  lowbit::StoredTensor tensor(const std::string& name) const override {
    const auto it = header_.tensors.find(name);
    LOWBIT_CHECK_KIND(it != header_.tensors.end(), lowbit::ErrorKind::kCorruptFile, name);
    const auto& entry = it->second;
    return {name, entry.dtype, entry.shape,
            lowbit::Bytes::view(nullptr, file_.data() + entry.begin, entry.end - entry.begin)};
  }

 private:
  std::span<const uint8_t> file_;
  const lowbit::SafetensorsHeader& header_;
};

void read_module(const FileSource& source, const lowbit::CheckpointFormat& format,
                 const lowbit::Json& config, const std::string& module) {
  if (!format.quantized(source, module)) return;
  if (format.describe != nullptr) {
    try {
      format.describe(source, config, module);
    } catch (const lowbit::Error&) {
    }
  }
  const lowbit::QTensor weight = format.read(source, config, module);
  lowbit::validate(weight, module);
  if (weight.cols > 65536) return;
  std::vector<float> row(static_cast<size_t>(weight.cols));
  lowbit::dequantize_row(weight, 0, row.data());
  lowbit::dequantize_row(weight, weight.rows - 1, row.data());
  const auto plain = lowbit::plain_weight(source, config, format.name, module);
  if (!plain) return;
  plain(0, 0);
  plain(weight.rows - 1, weight.cols - 1);
}

void read_all(std::span<const uint8_t> file) {
  const lowbit::SafetensorsHeader header = lowbit::parse_safetensors(file, "fuzz");
  const auto text = header.metadata.find("quantization_config");
  if (text == header.metadata.end()) return;
  const lowbit::Json config = lowbit::parse_json(text->second, "fuzz");
  const lowbit::CheckpointFormat& format = lowbit::detect_checkpoint_format(config, "fuzz");
  if (std::string(format.name) == "safetensors") return;
  std::set<std::string> modules;
  for (const auto& [name, entry] : header.tensors) {
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
      modules.insert(name.substr(0, dot));
    }
    if (modules.size() > 64) break;
  }
  const FileSource source(file, header);
  for (const std::string& module : modules) {
    try {
      read_module(source, format, config, module);
    } catch (const lowbit::Error&) {
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    read_all({data, size});
  } catch (const lowbit::Error&) {
  }
  return 0;
}
