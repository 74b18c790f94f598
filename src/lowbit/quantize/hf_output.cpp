// Output as a Hugging Face folder: gptq, compressed-tensors, or 16-bit safetensors.
#include <algorithm>
#include <cstdio>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checksums.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/hf_config.h"
#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/output.h"
#include "lowbit/quantize/part_checkpoint.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

class HfOutput final : public Output {
 public:
  explicit HfOutput(const OutputJob& job)
      : job_(job),
        quantizes_(job.options.bits < 16),
        format_(checkpoint_format(parse_format(job.options.format).name)),
        dense_(row_encoder(parse_format(job.options.format).type == "bf16" ? "BF16" : "F16")) {
    if (!quantizes_) return;
    const QuantizeMethod& method = quantize_method(job.options.method);
    quantizer_ = method.make();
    request_ = method.scheme({job.options.bits, job.options.group_size, job.options.symmetric,
                              job.options.input_bits, job.options.input_form});
    module_scheme_ = method.module_scheme;
    LOWBIT_CHECK(request_.input_bits == 0 || format_.says_input_bits, "--format ", format_.name,
                 " cannot say that inputs are rounded to ", request_.input_bits,
                 " bits; use --format compressed-tensors, or --activation-bits 16");
    reorders_ = method.reorders != nullptr && method.reorders(job.options.method_options) &&
                request_.group_size > 0;
    LOWBIT_CHECK(!reorders_ || format_.describe_order != nullptr, "--format ", format_.name,
                 " cannot hold columns in another order; use --format gptq, or --act-order static");
    LOWBIT_CHECK(format_.write != nullptr, "lowbit reads --format ", format_.name,
                 " but does not write it");
    LOWBIT_CHECK(!mixed() || format_.mixed_config != nullptr, "--format ", format_.name,
                 " has one scheme for all layers; use --format compressed-tensors");
  }

  void check() const override {
    hf_config(job_.checkpoint, job_.config, dense_.type);
    if (!quantizes_) return;
    if (request_.code == Code::kInt && !mixed()) {
      check_group_size(job_.plan, request_.group_size);
    }
    for (const PlanUnit& unit : job_.plan.units) {
      for (const PlanItem& item : unit.items) {
        if (item.quantize) check_holds(item);
      }
    }
  }

  void write_vector(const PlanItem& item, const std::vector<float>& values,
                    PartWriter& part) override {
    check_finite(item.name, values, 0);
    std::vector<uint8_t> bytes(values.size() * 2);
    LOWBIT_CHECK(dense_.encode(values, bytes.data()), item.name, " has values too large for ",
                 dense_.type);
    part.begin(item.name, dense_.type, {static_cast<int64_t>(values.size())});
    part.write(bytes);
  }

  void write_matrix(const PlanItem& item, const LinearWeight& weight, PartWriter& part) override {
    if (item.quantize) return write_quantized(item, quantize(item, weight), weight.bias, part);
    write_rows(item.name + ".weight", weight.weight, item.name, dense_, same_row, job_.pool, part);
    write_bias(item, weight.bias, part);
  }

  QuantScheme scheme(const PlanItem& item) const override {
    if (!item.quantize) return dense_scheme(Code::kF16);
    const QuantScheme request = item.scheme                 ? *item.scheme
                                : module_scheme_ != nullptr ? module_scheme_(request_, item.name)
                                                            : request_;
    return for_shape(request, item.rows, item.cols);
  }

  void write_quantized(const PlanItem& item, const QTensor& weight, const std::vector<float>& bias,
                       PartWriter& part) override {
    const uint64_t begin = part.offset();
    for (const StoredTensor& tensor : format_.write(item.name, weight)) part.add(tensor);
    part.count_linear(item.rows * item.cols, begin);
    write_bias(item, bias, part);
  }

  std::unique_ptr<Checkpoint> open_part(const PartFile& file) const override {
    return std::make_unique<PartCheckpoint>(file, format_, description());
  }

  void assemble(const std::vector<PartFile>& parts, const fs::path& result) override {
    fs::create_directory(result);
    write_weights(parts, result);
    write_configs(result);
    copy_tokenizer(job_.checkpoint, result);
    fault_point("model card");
    write_file_atomic(result / "README.md", model_card(job_, job_.options.format));
    fault_point("checksums");
    write_checksums(result);
  }

 private:
  bool mixed() const { return !job_.plan.mix.is_null(); }

  // Asks the format itself, with a small weight whose rows leave the same remainders.
  void check_holds(const PlanItem& item) const {
    const int64_t rows = std::min<int64_t>(item.rows, 256 + item.rows % 256);
    if (request_.code != Code::kInt) {
      const std::vector<float> zeros(static_cast<size_t>(rows * item.cols));
      format_.write(item.name, quantizer_->quantize({item.name, rows, item.cols, zeros, &job_.pool},
                                                    request_));
      return;
    }
    QTensor weight;
    weight.scheme = scheme(item);
    weight.rows = rows;
    weight.cols = item.cols;
    weight.codes = Bytes::own(std::vector<uint8_t>(weight.rows * weight.row_bytes()));
    weight.scales.assign(weight.rows * weight.groups(), 1.f);
    if (weight.scheme.zero == Zero::kInt) weight.zeros.assign(weight.scales.size(), 1);
    if (weight.scheme.zero == Zero::kOffset) weight.offsets.assign(weight.scales.size(), -1.f);
    if (reorders_) {
      weight.input_order.resize(static_cast<size_t>(item.cols));
      std::iota(weight.input_order.rbegin(), weight.input_order.rend(), 0);
    }
    format_.write(item.name, weight);
  }

  QTensor quantize(const PlanItem& item, const LinearWeight& weight) const {
    if (job_.device != nullptr) {
      return quantizer_->quantize(
          {item.name, item.rows, item.cols, {}, &job_.pool, job_.device, &weight.weight},
          scheme(item));
    }
    std::vector<float> values(static_cast<size_t>(item.rows * item.cols));
    job_.pool.parallel_for(item.rows, [&](int64_t row, int) {
      dequantize_row(weight.weight, row, values.data() + row * item.cols);
    });
    return quantizer_->quantize({item.name, item.rows, item.cols, values, &job_.pool},
                                scheme(item));
  }

  void write_bias(const PlanItem& item, const std::vector<float>& bias, PartWriter& part) {
    if (bias.empty()) return;
    write_vector({PlanItem::Kind::kVector, item.name + ".bias", item.rows, 1, false}, bias, part);
  }

  // Which modules have which scheme, in the order of the model.
  std::vector<SchemeModules> schemes() const {
    std::vector<SchemeModules> groups;
    for (const PlanUnit& unit : job_.plan.units) {
      for (const PlanItem& item : unit.items) {
        if (!item.quantize) continue;
        const QuantScheme chosen = scheme(item);
        const auto group = std::find_if(groups.begin(), groups.end(),
                                        [&](const SchemeModules& g) { return g.scheme == chosen; });
        if (group == groups.end()) {
          groups.push_back({chosen, {item.name}});
        } else {
          group->modules.push_back(item.name);
        }
      }
    }
    return groups;
  }

  // quantization_config of the result.
  Json description() const {
    Json description = mixed() ? format_.mixed_config(schemes(), job_.plan.skipped)
                               : format_.quantization_config(request_, job_.plan.skipped);
    if (reorders_) format_.describe_order(description);
    return description;
  }

  // Shards of consecutive units, each as full as the limit allows.
  std::vector<std::vector<StoredTensor>> shards(const std::vector<PartFile>& parts) const {
    std::vector<std::vector<StoredTensor>> shards(1);
    int64_t filled = 0;
    for (const PartFile& file : parts) {
      for (StoredTensor& tensor : tensors_of(file.part, file.path)) {
        const auto size = static_cast<int64_t>(tensor.bytes.size);
        if (filled > 0 && filled + size > job_.options.shard_bytes) {
          shards.emplace_back();
          filled = 0;
        }
        filled += size;
        shards.back().push_back(std::move(tensor));
      }
    }
    return shards;
  }

  void write_weights(const std::vector<PartFile>& parts, const fs::path& result) const {
    std::vector<std::vector<StoredTensor>> all = shards(parts);
    if (all.size() == 1) {
      fault_point("shard");
      return write_safetensors(result / "model.safetensors", std::move(all[0]));
    }
    Json map = Json::object();
    int64_t total = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      char name[64];
      std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", i + 1, all.size());
      for (const StoredTensor& tensor : all[i]) {
        map[tensor.name] = name;
        total += static_cast<int64_t>(tensor.bytes.size);
      }
      fault_point("shard");
      write_safetensors(result / name, std::move(all[i]));
    }
    const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
    write_file_atomic(result / "model.safetensors.index.json", dump_json(index, 2) + "\n");
  }

  void write_configs(const fs::path& result) const {
    Json config = hf_config(job_.checkpoint, job_.config, dense_.type);
    if (quantizes_) {
      const Json quantization = description();
      config["quantization_config"] = quantization;
      if (quantization["quant_method"] == "gptq") {
        write_file_atomic(result / "quantize_config.json", dump_json(quantization, 2) + "\n");
      }
      if (quantization["quant_method"] == "mixq") {
        write_file_atomic(result / "quant_config.json", dump_json(quantization, 2) + "\n");
      }
    }
    if (mixed()) {
      fault_point("plan");
      write_file_atomic(result / kMixPlanFile, dump_json(job_.plan.mix, 1) + "\n");
    }
    fault_point("config");
    write_file_atomic(result / "config.json", dump_json(config, 2) + "\n");
  }

  OutputJob job_;
  bool quantizes_;
  const CheckpointFormat& format_;
  const RowEncoder& dense_;
  std::unique_ptr<Quantizer> quantizer_;
  QuantScheme request_;    // group_rows and group_size may be 0: see for_shape()
  bool reorders_ = false;  // weights have an input_order
  QuantScheme (*module_scheme_)(const QuantScheme&, const std::string&) = nullptr;
};

}  // namespace

std::unique_ptr<Output> make_hf_output(const OutputJob& job) {
  return std::make_unique<HfOutput>(job);
}

}  // namespace lowbit
