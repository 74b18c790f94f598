#include "lowbit/checkpoint/hf_checkpoint.h"

#include <cmath>
#include <mutex>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/checkpoint/formats/safetensors_format.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/checkpoint/shards.h"

namespace lowbit {

namespace {

Json read_optional(const fs::path& path) {
  return path_exists(path) ? read_json(path.string()) : Json();
}

Json read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  LOWBIT_CHECK_KIND(
      path_exists(path), ErrorKind::kIo, folder.string(), ": no config.json, so ",
      path_exists(folder / "adapter_config.json")
          ? "this is an adapter, not a whole model; merge it into its base model first"
          : "this is not a Hugging Face model folder; give one, or a .gguf file");
  Json config = read_json(path.string());
  LOWBIT_CHECK_KIND(config.is_object(), ErrorKind::kCorruptFile, path.string(),
                    ": must hold a JSON object");
  return config;
}

// "model.norm.weight" -> {"model.norm", "weight"}
std::pair<std::string, std::string> split_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return {"", name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

class HfCheckpoint final : public Checkpoint {
 public:
  explicit HfCheckpoint(const std::string& folder)
      : path_(folder),
        config_(read_config(folder)),
        generation_config_(read_optional(fs::path(folder) / "generation_config.json")),
        quantization_config_(find_quantization_config(
            config_, read_optional(fs::path(folder) / "quantize_config.json"),
            read_optional(fs::path(folder) / "quant_config.json"))),
        format_(detect_checkpoint_format(quantization_config_, folder)),
        format_name_(format_.name),
        source_(folder) {}

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_name_; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return generation_config_; }
  TokenizerSpec tokenizer() const override { return read_tokenizer_spec(path_); }

  const std::vector<TensorInfo>& tensors() const override {
    std::call_once(listed_, [this] { list_tensors(); });
    return tensors_;
  }
  bool contains(const std::string& name) const override {
    if (source_.contains(name)) return true;
    const auto [module, leaf] = split_name(name);
    return leaf == "weight" && format_.quantized(source_, module);
  }

  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override {
    LinearWeight linear;
    linear.name = module;
    naming_file(module + ".", [&] {
      const bool quantized = format_.quantized(source_, module);
      const CheckpointFormat& format = quantized ? format_ : kSafetensorsFormat;
      linear.weight = format.read(source_, quantization_config_, module);
      const QTensor& weight = linear.weight;
      LOWBIT_CHECK_KIND(weight.rows == rows && weight.cols == cols, ErrorKind::kCorruptFile, module,
                        ".weight is ", weight.rows, " x ", weight.cols, ", config.json says ", rows,
                        " x ", cols);
      validate(weight, module);
    });
    if (source_.contains(module + ".bias")) linear.bias = load_vector(module + ".bias", rows);
    source_.check();
    return linear;
  }

  std::vector<float> load_vector(const std::string& name, int64_t size) const override {
    std::vector<float> values;
    naming_file(name, [&] {
      const StoredTensor tensor = source_.tensor(name);
      LOWBIT_CHECK_KIND(tensor.shape == std::vector<int64_t>{size}, ErrorKind::kCorruptFile,
                        "tensor \"", name, "\" has shape ", dump_json(Json(tensor.shape)),
                        ", config.json says [", size, "]");
      values = dequantize(dense_weight(tensor));
      for (const float value : values) {
        LOWBIT_CHECK_KIND(std::isfinite(value), ErrorKind::kCorruptFile, "tensor \"", name,
                          "\" holds ", value, "; fetch or convert the model again");
      }
    });
    source_.check();
    return values;
  }

  void release(const std::string& module) const override {
    source_.release(module + ".");
    source_.check();
  }

 private:
  // Runs `read`; its errors then begin with the file that holds the first tensor from `name` on.
  template <typename Read>
  void naming_file(const std::string& name, Read read) const {
    try {
      read();
    } catch (const Error& error) {
      const auto it = source_.tensors().lower_bound(name);
      const bool found =
          it != source_.tensors().end() && it->first.compare(0, name.size(), name) == 0;
      fail(error.kind(), found ? source_.file_of(it->first) : path_, ": ", error.what());
    }
  }

  // What the tensors of a quantized module weigh and mean, as one entry.
  TensorInfo quantized_info(const std::string& module) const {
    const auto describe = format_.describe != nullptr ? format_.describe : format_.read;
    QTensor weight;
    naming_file(module + ".", [&] { weight = describe(source_, quantization_config_, module); });
    TensorInfo info{module + ".weight", {weight.rows, weight.cols}, name_of(weight.scheme), 0};
    const std::string prefix = module + ".";
    for (auto it = source_.tensors().lower_bound(prefix);
         it != source_.tensors().end() && it->first.compare(0, prefix.size(), prefix) == 0; ++it) {
      if (it->first == module + ".bias") continue;
      const SafetensorsHeader::Entry& entry = source_.entry(it->first);
      info.bytes += static_cast<int64_t>(entry.end - entry.begin);
    }
    return info;
  }

  void list_tensors() const {
    std::set<std::string> done;  // quantized modules
    for (const auto& [name, file] : source_.tensors()) {
      const auto [module, leaf] = split_name(name);
      if (leaf == "inv_freq") continue;  // old files hold what the config says
      // "<module>.weight.absmax": bitsandbytes' parts of a weight.
      const size_t part = name.find(".weight.");
      if (part != std::string::npos && format_.quantized(source_, name.substr(0, part))) continue;
      if (leaf != "bias" && format_.quantized(source_, module)) {
        if (done.insert(module).second) tensors_.push_back(quantized_info(module));
        continue;
      }
      const SafetensorsHeader::Entry& entry = source_.entry(name);
      tensors_.push_back(
          {name, entry.shape, entry.dtype, static_cast<int64_t>(entry.end - entry.begin)});
    }
  }

  std::string path_;
  Json config_;
  Json generation_config_;
  Json quantization_config_;
  const CheckpointFormat& format_;
  std::string format_name_;
  ShardedSafetensors source_;
  mutable std::once_flag listed_;
  mutable std::vector<TensorInfo> tensors_;
};

}  // namespace

Json find_quantization_config(const Json& config, const Json& quantize_config,
                              const Json& quant_config) {
  Json found;
  std::string default_method;
  if (config.contains("quantization_config") && !config["quantization_config"].is_null()) {
    found = config["quantization_config"];
    if (found.is_object() && (found.contains("load_in_4bit") || found.contains("load_in_8bit"))) {
      default_method = "bitsandbytes";
    }
  } else if (config.contains("compression_config") && !config["compression_config"].is_null()) {
    found = config["compression_config"];
    default_method = "compressed-tensors";
  } else if (!quantize_config.is_null()) {
    found = quantize_config;  // AutoGPTQ's file
    default_method = "gptq";
  } else if (!quant_config.is_null()) {
    found = quant_config;
    const bool mixq = found.is_object() && found.contains("version") && found["version"] == "MIX";
    default_method = mixq ? "mixq" : "awq";
  }
  if (found.is_object() && !found.contains("quant_method") && !default_method.empty()) {
    found["quant_method"] = default_method;
  }
  return found;
}

std::unique_ptr<Checkpoint> open_hf_checkpoint(const std::string& folder) {
  return std::make_unique<HfCheckpoint>(folder);
}

}  // namespace lowbit
