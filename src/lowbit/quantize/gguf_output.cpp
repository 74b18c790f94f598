// Output as a GGUF file: ggml's block types, llama.cpp's names and metadata.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/gguf_names.h"
#include "lowbit/checkpoint/gguf_tokenizer.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/ggml_blocks.h"
#include "lowbit/quantize/gguf_model.h"
#include "lowbit/quantize/gguf_part.h"
#include "lowbit/quantize/gguf_recipe.h"
#include "lowbit/quantize/output.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

class GgufOutput final : public Output {
 public:
  GgufOutput(const OutputJob& job, bool single_file)
      : job_(job),
        single_file_(single_file),
        recipe_(gguf_recipe(parse_format(job.options.format).type)) {
    const QuantizeMethod& method = quantize_method(job.options.method);
    if (method.name == std::string("rtn") || method.name == std::string("rtn-search")) return;
    quantizer_ = method.make();
    request_ = method.scheme({job.options.bits, job.options.group_size, job.options.symmetric});
    holds_codes_ = ggml_type_of(request_) != nullptr;
    LOWBIT_CHECK(method.reorders == nullptr || !method.reorders(job.options.method_options),
                 "GGUF cannot hold columns in another order; use --act-order static");
  }

  void check() const override {
    metadata();
    if (holds_codes_) check_group_size(job_.plan, request_.group_size);
    if (quantizer_ == nullptr || recipe_.group_size != 0 || request_.group_size == 0) return;
    check_group_size(job_.plan, request_.group_size);
    for (const PlanUnit& unit : job_.plan.units) {
      for (const PlanItem& item : unit.items) {
        if (item.quantize) check_groups(item);
      }
    }
  }

  std::vector<std::string> notices() const override {
    std::map<std::pair<std::string, std::string>, std::pair<int, int64_t>> substitutes;
    for (const PlanUnit& unit : job_.plan.units) {
      for (const PlanItem& item : unit.items) {
        if (item.kind == PlanItem::Kind::kVector) continue;
        const std::string wanted = wanted_ggml_type(recipe_, item, job_.config);
        const std::string type = ggml_type_for_columns(wanted, item.cols);
        if (type == wanted) continue;
        auto& [count, cols] = substitutes[{wanted, type}];
        ++count;
        cols = item.cols;
      }
    }
    std::vector<std::string> notices;
    for (const auto& [types, found] : substitutes) {
      const auto& [wanted, type] = types;
      const auto& [count, cols] = found;
      notices.push_back(concat(count, count == 1 ? " matrix is " : " matrices are ", type,
                               " instead of ", wanted, ": blocks of ",
                               row_encoder(wanted).block_elems, " do not divide their columns (",
                               cols, ")"));
    }
    return notices;
  }

  void write_vector(const PlanItem& item, const std::vector<float>& values,
                    PartWriter& part) override {
    check_finite(item.name, values, 0);
    part.begin(gguf_tensor_name(item.name), "F32", {static_cast<int64_t>(values.size())});
    part.write(std::span(reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4));
  }

  void write_matrix(const PlanItem& item, const LinearWeight& weight, PartWriter& part) override {
    const bool by_method = quantizer_ != nullptr && item.quantize;
    if (by_method && holds_codes_) {
      return write_quantized(item, quantize(item, weight.weight), weight.bias, part);
    }
    const std::vector<int64_t> order = row_order(item);
    const auto source_row = [&](int64_t row) { return order.empty() ? row : order[row]; };
    const uint64_t begin = part.offset();
    const QTensor made = by_method ? quantize(item, weight.weight) : QTensor();
    write_rows(gguf_tensor_name(item.name + ".weight"), by_method ? made : weight.weight, item.name,
               encoder(item), source_row, job_.pool, part);
    if (item.quantize) part.count_linear(item.rows * item.cols, begin);
    write_bias(item, weight.bias, part);
  }

  QuantScheme scheme(const PlanItem& item) const override {
    return item.quantize ? request_ : dense_scheme(Code::kF16);
  }

  // Codes as the method chose them, a few MiB of rows at a time.
  void write_quantized(const PlanItem& item, const QTensor& weight, const std::vector<float>& bias,
                       PartWriter& part) override {
    const RowEncoder& encoder = row_encoder(recipe_.type);
    const std::vector<int64_t> order = row_order(item);
    const int64_t row_bytes = encoder.row_bytes(item.cols);
    const int64_t chunk = std::max<int64_t>(1, (int64_t{4} << 20) / row_bytes);
    const uint64_t begin = part.offset();
    part.begin(gguf_tensor_name(item.name + ".weight"), encoder.type, {item.rows, item.cols});
    std::vector<uint8_t> bytes;
    std::atomic<bool> fits = true;
    for (int64_t first = 0; first < item.rows; first += chunk) {
      const int64_t count = std::min(chunk, item.rows - first);
      bytes.resize(static_cast<size_t>(count * row_bytes));
      job_.pool.parallel_for(count, [&](int64_t i, int) {
        const int64_t row = order.empty() ? first + i : order[static_cast<size_t>(first + i)];
        if (!store_codes(weight, row, bytes.data() + i * row_bytes)) fits = false;
      });
      part.write(bytes);
    }
    LOWBIT_CHECK(fits, item.name, ": a scale or minimum is too large for fp16");
    part.count_linear(item.rows * item.cols, begin);
    write_bias(item, bias, part);
  }

  std::unique_ptr<Checkpoint> open_part(const PartFile& file) const override {
    return std::make_unique<GgufPart>(file, [this](const std::string& module, int64_t rows) {
      return permutes(module) ? gguf_rows_in_hf_order(rows, job_.config.head_dim)
                              : std::vector<int64_t>();
    });
  }

  void assemble(const std::vector<PartFile>& parts, const fs::path& result) override {
    std::vector<StoredTensor> tensors;
    const std::vector<float> factors = gguf_rope_factors(job_.config);
    if (!factors.empty()) {
      std::vector<uint8_t> bytes(factors.size() * 4);
      std::memcpy(bytes.data(), factors.data(), bytes.size());
      tensors.push_back({"rope_freqs.weight",
                         "F32",
                         {static_cast<int64_t>(factors.size())},
                         Bytes::own(std::move(bytes))});
    }
    for (const PartFile& file : parts) {
      for (StoredTensor& tensor : tensors_of(file.part, file.path)) {
        tensors.push_back(std::move(tensor));
      }
    }
    fault_point("gguf");
    if (single_file_) return write_gguf(result, metadata(), tensors);
    fs::create_directory(result);
    write_gguf(result / "model.gguf", metadata(), tensors);
    fault_point("model card");
    write_file_atomic(result / "README.md", model_card(job_, job_.options.format));
  }

 private:
  bool permutes(const std::string& module) const {
    const bool rotated = module.ends_with(".q_proj") || module.ends_with(".k_proj");
    return rotated && gguf_permutes_rows(gguf_architecture(job_.config));
  }

  // The HF row of each GGUF row; empty if they are the same.
  std::vector<int64_t> row_order(const PlanItem& item) const {
    if (!permutes(item.name)) return {};
    return hf_rows_in_gguf_order(item.rows, job_.config.head_dim);
  }

  void write_bias(const PlanItem& item, const std::vector<float>& values, PartWriter& part) {
    if (values.empty()) return;
    const std::vector<int64_t> order = row_order(item);
    std::vector<float> bias = values;
    for (size_t row = 0; row < order.size(); ++row) {
      bias[row] = values[static_cast<size_t>(order[row])];
    }
    write_vector({PlanItem::Kind::kVector, item.name + ".bias", item.rows, 1, false}, bias, part);
  }

  RowEncoder encoder(const PlanItem& item) const {
    RowEncoder encoder =
        row_encoder(ggml_type_for_columns(wanted_ggml_type(recipe_, item, job_.config), item.cols));
    const bool searches = job_.options.method == "rtn-search";
    if (searches && encoder.search != nullptr) encoder.encode = encoder.search;
    return encoder;
  }

  // Blocks hold one scale, so they lie within one group.
  void check_groups(const PlanItem& item) const {
    const RowEncoder encoder = this->encoder(item);
    LOWBIT_CHECK(request_.group_size % encoder.block_elems == 0 || encoder.block_elems == 1,
                 item.name, " is written in blocks of ", encoder.block_elems, " weights (",
                 encoder.type, "), which groups of ", request_.group_size,
                 " do not hold; leave --group-size out, or choose gguf:q2_0 and groups of 64");
  }

  // What the encoders of ternary and binary types take without loss.
  QTensor quantize(const PlanItem& item, const QTensor& weight) const {
    QuantScheme scheme = request_;
    if (recipe_.group_size != 0) {
      const int64_t block = encoder(item).block_elems;
      scheme.group_size = block > 1 ? block : item.cols;
    }
    return quantizer_->quantize({item.name, item.rows, item.cols, dequantize(weight), &job_.pool},
                                for_shape(scheme, item.rows, item.cols));
  }

  GgufPairs metadata() const {
    const fs::path path = fs::path(job_.checkpoint.path()).lexically_normal();
    const fs::path last = path.has_filename() ? path : path.parent_path();
    GgufPairs pairs = gguf_model_metadata(
        job_.config, (fs::is_directory(last) ? last.filename() : last.stem()).string(),
        recipe_.file_type);
    for (auto& pair : tokenizer_to_gguf(job_.checkpoint.tokenizer())) {
      pairs.push_back(std::move(pair));
    }
    return pairs;
  }

  OutputJob job_;
  bool single_file_;
  const GgufRecipe& recipe_;
  std::unique_ptr<Quantizer> quantizer_;  // null: the encoders fit weights themselves
  QuantScheme request_;
  bool holds_codes_ = false;  // the type has what the method makes as it is
};

}  // namespace

std::unique_ptr<Output> make_gguf_output(const OutputJob& job, bool single_file) {
  return std::make_unique<GgufOutput>(job, single_file);
}

}  // namespace lowbit
