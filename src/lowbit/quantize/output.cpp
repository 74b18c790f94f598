#include "lowbit/quantize/output.h"

#include <algorithm>
#include <cstdio>

#include "lowbit/base/check.h"
#include "lowbit/base/version.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/mix_plan.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

constexpr int64_t kChunkBytes = int64_t{4} << 20;  // encoded between two writes

std::string base_name(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

}  // namespace

FormatName parse_format(const std::string& format) {
  const size_t colon = format.find(':');
  if (colon == std::string::npos) return {format, ""};
  return {format.substr(0, colon), format.substr(colon + 1)};
}

std::unique_ptr<Output> make_output(const OutputJob& job, const fs::path& out) {
  const FormatName format = parse_format(job.options.format);
  if (format.name == "gguf") return make_gguf_output(job, out.extension() == ".gguf");
  std::string names = "gguf";
  bool known = false;
  for (const CheckpointFormat& row : checkpoint_formats()) {
    if (row.write != nullptr) names += concat(", ", row.name);
    known = known || format.name == row.name;
  }
  LOWBIT_CHECK(known, "--format ", job.options.format, " does not exist; there are: ", names);
  LOWBIT_CHECK(out.extension() != ".gguf", "-o ", out.string(),
               " has the name of a GGUF file, but ", "--format ", format.name, " writes a folder");
  return make_hf_output(job);
}

QuantScheme Output::scheme(const PlanItem& item) const {
  fail(ErrorKind::kUnsupported, item.name, ": this format quantizes by itself");
}

void Output::write_quantized(const PlanItem& item, const QTensor&, const std::vector<float>&,
                             PartWriter&) {
  scheme(item);
}

std::unique_ptr<Checkpoint> Output::open_part(const PartFile& file) const {
  fail(ErrorKind::kUnsupported, file.path.string(), ": this format quantizes by itself");
}

int64_t same_row(int64_t row) { return row; }

void write_rows(const std::string& tensor, const QTensor& weight, const std::string& name,
                const RowEncoder& encoder, const std::function<int64_t(int64_t)>& source_row,
                ThreadPool& pool, PartWriter& part) {
  part.begin(tensor, encoder.type, {weight.rows, weight.cols});
  const int64_t row_bytes = encoder.row_bytes(weight.cols);
  const int64_t chunk = std::clamp<int64_t>(kChunkBytes / row_bytes, 1, weight.rows);
  std::vector<uint8_t> bytes(static_cast<size_t>(chunk * row_bytes));
  std::vector<std::vector<float>> scratch(pool.size(), std::vector<float>(weight.cols));
  for (int64_t first = 0; first < weight.rows; first += chunk) {
    const int64_t count = std::min(chunk, weight.rows - first);
    pool.parallel_for(count, [&](int64_t index, int thread) {
      std::vector<float>& row = scratch[thread];
      const int64_t source = source_row(first + index);
      dequantize_row(weight, source, row.data());
      check_finite(name, row, source);
      LOWBIT_CHECK(encoder.encode(row, bytes.data() + index * row_bytes), name, ": row ", source,
                   " has weights too large for ", encoder.type);
    });
    part.write(std::span(bytes).first(count * row_bytes));
  }
}

std::string model_card(const OutputJob& job, const std::string& format) {
  const QuantizeOptions& options = job.options;
  const bool quantized = options.bits < 16;
  std::string card =
      concat("---\nbase_model: ", base_name(job.checkpoint.path()), "\ntags:\n- lowbit\n---\n\n# ",
             base_name(job.checkpoint.path()), "\n\n");
  card += "| | |\n|---|---|\n";
  card += concat("| made from | ", base_name(job.checkpoint.path()), " |\n");
  card += concat("| format | ", format, " |\n");
  if (!job.plan.mix.is_null()) {
    const MixPlan mix = mix_plan_from_json(job.plan.mix, kMixPlanFile);
    char bits[16];
    std::snprintf(bits, sizeof(bits), "%.3f", mix.totals().bits());
    card += concat("| method | auto: layers' schemes chosen for ",
                   mix.goal.empty() ? "a plan" : mix.goal, "; ", options.method,
                   " |\n| bits per weight | ", bits, " |\n| layers | ", mix.summary(), " (",
                   kMixPlanFile, " says why) |\n");
  } else if (quantized) {
    card += concat("| method | ", options.method, " |\n| bits | ", options.bits, ", ",
                   options.symmetric ? "symmetric" : "asymmetric", " |\n");
    card += options.group_size > 0   ? concat("| group size | ", options.group_size, " |\n")
            : options.group_size < 0 ? std::string("| group size | one group per row |\n")
                                     : std::string("| group size | one group per matrix |\n");
  }
  std::string kept;
  for (const std::string& module : job.plan.skipped) {
    kept += concat(kept.empty() ? "" : ", ", module);
  }
  if (quantized) card += concat("| in 16 bits | embedding, norms, ", kept, " |\n");
  card += concat("| made by | lowbit ", kVersion, " |\n\n");
  card += "Run it with `lowbit run -m PATH -p \"Hello\"`";
  if (format == "gptq") card += ", vLLM, or transformers with GPTQModel and optimum installed";
  if (format == "compressed-tensors") card += ", vLLM, or transformers with compressed-tensors";
  if (format.starts_with("gguf")) card += " or llama.cpp";
  if (format.starts_with("safetensors")) card += ", vLLM or transformers";
  return card + ".\n";
}

}  // namespace lowbit
