// Output as a GGUF file: ggml's block types, llama.cpp's names and metadata.
#include <algorithm>
#include <cctype>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/gguf_names.h"
#include "lowbit/checkpoint/gguf_tokenizer.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/gguf_model.h"
#include "lowbit/quantize/output.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

class GgufOutput final : public Output {
 public:
  GgufOutput(const OutputJob& job, bool single_file) : job_(job), single_file_(single_file) {
    type_ = parse_format(job.options.format).type;
    for (char& c : type_) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }

  void check() const override { metadata(); }

  void write_vector(const PlanItem& item, const std::vector<float>& values,
                    PartWriter& part) override {
    check_finite(item.name, values, 0);
    part.begin(gguf_tensor_name(item.name), "F32", {static_cast<int64_t>(values.size())});
    part.write(std::span(reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4));
  }

  void write_matrix(const PlanItem& item, const LinearWeight& weight, PartWriter& part) override {
    const std::vector<int64_t> order = row_order(item);
    const auto source_row = [&](int64_t row) { return order.empty() ? row : order[row]; };
    const uint64_t begin = part.offset();
    write_rows(gguf_tensor_name(item.name + ".weight"), weight.weight, item.name, encoder(item),
               source_row, job_.pool, part);
    if (item.quantize) part.count_linear(item.rows * item.cols, begin);
    if (weight.bias.empty()) return;
    std::vector<float> bias(weight.bias.size());
    for (size_t row = 0; row < bias.size(); ++row) bias[row] = weight.bias[source_row(row)];
    write_vector({PlanItem::Kind::kVector, item.name + ".bias", item.rows, 1, false}, bias, part);
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
  // The HF row of each GGUF row; empty if they are the same.
  std::vector<int64_t> row_order(const PlanItem& item) const {
    const bool rotated = item.name.ends_with(".q_proj") || item.name.ends_with(".k_proj");
    if (!rotated || !gguf_permutes_rows(gguf_architecture(job_.config))) return {};
    return hf_rows_in_gguf_order(item.rows, job_.config.head_dim);
  }

  // Embedding and head cost little and matter much: 8 bits where blocks have 4. Rows that are no
  // whole number of blocks stay F16.
  const RowEncoder& encoder(const PlanItem& item) const {
    const bool linear = item.kind == PlanItem::Kind::kLinear && item.name != "lm_head";
    std::string type = item.quantize ? type_ : linear ? "F16" : type_ == "F16" ? "F16" : "Q8_0";
    const RowEncoder& encoder = row_encoder(type);
    return item.cols % encoder.block_elems == 0 ? encoder : row_encoder("F16");
  }

  GgufPairs metadata() const {
    const fs::path path = fs::path(job_.checkpoint.path()).lexically_normal();
    const fs::path last = path.has_filename() ? path : path.parent_path();
    GgufPairs pairs = gguf_model_metadata(
        job_.config, (fs::is_directory(last) ? last.filename() : last.stem()).string(), type_);
    for (auto& pair : tokenizer_to_gguf(job_.checkpoint.tokenizer())) {
      pairs.push_back(std::move(pair));
    }
    return pairs;
  }

  OutputJob job_;
  bool single_file_;
  std::string type_;  // "Q4_0"
};

}  // namespace

std::unique_ptr<Output> make_gguf_output(const OutputJob& job, bool single_file) {
  return std::make_unique<GgufOutput>(job, single_file);
}

}  // namespace lowbit
