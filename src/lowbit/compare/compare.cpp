#include "lowbit/compare/compare.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/base/child_process.h"
#include "lowbit/base/version.h"
#include "lowbit/bench/layer_timer.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/compare/stages.h"
#include "lowbit/eval/logits_file.h"
#include "lowbit/quantize/fingerprint.h"
#include "lowbit/quantize/output.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/report/table.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

namespace {

// The files beneath a checkpoint, as the quantize pipeline knows them again.
Json files_of(const std::string& checkpoint) {
  return fingerprint(resolve_model(checkpoint), QuantizeOptions{}, {}).at("model");
}

bool needs_calibration(const QuantizeOptions& options) {
  return quantize_method(options.method).calibrates() && options.act_scales.empty();
}

// Where to quantize: on the device that measures, if the method computes there.
std::string backend_for(const QuantizeOptions& options, const std::string& measuring) {
  const QuantizeMethod& method = quantize_method(options.method);
  const std::string format =
      parse_format(options.format.empty() ? method.format : options.format).name;
  const bool there =
      method.calibrates() || (method.on_device && format != "gguf" && format != "safetensors");
  return there && measuring == "cuda" ? measuring : options.backend;
}

// "gptq, 4 bits, group 64, symmetric"
std::string describe(const QuantizeOptions& options) {
  if (parse_format(options.format).name == "gguf") {
    return concat(options.method, ", ", options.format);
  }
  const QuantScheme scheme =
      quantize_method(options.method)
          .scheme({options.bits, options.group_size == 0 ? 64 : options.group_size,
                   options.symmetric, options.input_bits});
  std::string text = concat(options.method, ", ", scheme.bits, " bits");
  if (scheme.group_size > 0) text += concat(", group ", scheme.group_size);
  if (scheme.zero != Zero::kNone) text += ", asymmetric";
  if (scheme.input_bits > 0) text += concat(", inputs ", scheme.input_bits, " bits");
  return text;
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d", &parts);
  return text;
}

Json to_json(const WindowOptions& options, Activations activations) {
  const int64_t context =
      options.context > 0 ? options.context : find_protocol(options.protocol).context;
  return {{"protocol", options.protocol},
          {"context", context},
          {"chunks", options.chunks},
          {"activations", name_of(activations)}};
}

// The block a module is in, or -1.
int64_t block_of(const std::string& module) {
  constexpr std::string_view kLayers = ".layers.";
  const size_t found = module.find(kLayers);
  int64_t block = -1;
  if (found == std::string::npos) return block;
  std::from_chars(module.data() + found + kLayers.size(), module.data() + module.size(), block);
  return block < limits::kLayers ? block : -1;
}

std::vector<double> by_block(const std::vector<std::pair<std::string, double>>& errors) {
  std::vector<double> squares, counts;
  for (const auto& [module, error] : errors) {
    const int64_t block = block_of(module);
    if (block < 0) continue;
    const auto index = static_cast<size_t>(block);
    if (index >= squares.size()) squares.resize(index + 1), counts.resize(index + 1);
    squares[index] += error * error;
    counts[index] += 1;
  }
  for (size_t i = 0; i < squares.size(); ++i) squares[i] = std::sqrt(squares[i] / counts[i]);
  return squares;
}

struct Row {
  std::string name;
  std::string checkpoint;                // empty until it is made
  const RecipeMethod* method = nullptr;  // null: the checkpoint was there
  bool source = false;
};

class Comparer {
 public:
  explicit Comparer(const CompareJob& job)
      : job_(job),
        stages_(job.report.empty() ? fs::path() : job.report / "work"),
        text_sha256_(sha256(job.text)) {
    list_rows();
    for (const Row& row : rows_) {
      if (row.method != nullptr && needs_calibration(row.method->options)) {
        calibration_sha256_ = sha256(calibration_text(job.calibration));
        break;
      }
    }
    source_files_ = files_of(job.models.front());
  }

  Comparison run() {
    comparison_.title = job_.recipe.name;
    comparison_.description = job_.recipe.description;
    for (const Row& row : rows_) {
      ++number_;
      comparison_.rows.push_back(measure(row));
      if (row.source) state_conditions();
      if (!job_.report.empty()) write_report();
    }
    return comparison_;
  }

 private:
  // Names of given checkpoints make way for those of methods, which are folders too.
  void list_rows() {
    std::set<std::string> taken;
    for (const RecipeMethod& method : job_.recipe.methods) taken.insert(method.name);
    for (const std::string& model : job_.models) {
      const fs::path path(model);
      const fs::path last = path.has_filename() ? path.filename() : path.parent_path().filename();
      std::string name = last.string();
      for (int i = 2; !taken.insert(name).second; ++i) name = concat(last.string(), " (", i, ")");
      rows_.push_back({name, model, nullptr, rows_.empty()});
    }
    for (const RecipeMethod& method : job_.recipe.methods) {
      rows_.push_back({method.name, "", &method, false});
    }
  }

  std::string label(const Row& row, const std::string& stage) const {
    return concat("[", number_, "/", rows_.size(), "] ", row.name, ": ", stage);
  }

  // Every stage runs in a process of its own, so that its peak memory is its own, the next one
  // finds the machine as this one did, and one that the system kills costs only its row. This
  // process never loads a model: a child counts what its parent had when it was forked.
  Json in_child(const Row& row, const std::string& stage, const std::function<Json()>& work) {
    LOWBIT_CHECK_KIND(!job_.interrupted(), ErrorKind::kIo, "interrupted");
    const std::string what = concat(row.name, ", ", stage);
    return parse_json(run_in_child(what, [&] { return dump_json(work()); }), what);
  }

  Json stage(const Row& row, const std::string& stage, const Json& conditions,
             const std::function<Json()>& work, bool reusable = true) {
    const Json* found = stages_.find(row.name, stage, conditions);
    if (found != nullptr && reusable) return *found;
    const std::string changes = stages_.changes(row.name, stage, conditions);
    job_.say(label(row, stage) + (changes.empty() ? "" : concat(" again (", changes, ")")));
    const Json result = in_child(row, stage, work);
    stages_.add(row.name, stage, conditions, result);
    return result;
  }

  ComparisonRow measure(const Row& row) {
    ComparisonRow out;
    out.name = row.name;
    out.source = row.source;
    try {
      fill(row, out);
    } catch (const Error& error) {
      if (row.source || job_.interrupted()) throw;
      job_.say(concat(label(row, "failed: "), error.what()));
      out.notes.emplace_back(error.what());
      out.failed = true;
    }
    return out;
  }

  void fill(const Row& row, ComparisonRow& out) {
    std::string checkpoint = row.checkpoint;
    if (row.method != nullptr) {
      out.description = describe(row.method->options);
      checkpoint = make(row, out);
    }
    Json conditions = {
        {"lowbit", kVersion},
        {"checkpoint", row.source ? source_files_ : files_of(checkpoint)},
        {"backend", job_.measure.backend},
        {"threads", job_.measure.threads},
        {"batch", job_.measure.batch},
        {"kv", job_.measure.kv_dtype == DType::kF32   ? "f32"
               : job_.measure.kv_dtype == DType::kF16 ? "f16"
                                                      : kv_name_of(job_.measure.kv_dtype)}};
    fill_speed(row, checkpoint, conditions, out);
    fill_quality(row, checkpoint, conditions, out);
    if (!job_.report.empty()) fill_layers(row, checkpoint, conditions, out);
  }

  // Quantizes, unless that is done; returns the checkpoint's path.
  std::string make(const Row& row, ComparisonRow& out) {
    QuantizeOptions options = row.method->options;
    options.threads = job_.measure.threads;
    options.backend = backend_for(options, job_.measure.backend);
    options.calibration.path = job_.calibration;
    fs::path path = job_.report / "models" / row.name;
    if (parse_format(options.format).name == "gguf") path += ".gguf";
    const Json conditions = quantize_conditions(options);
    // What is there, whole or half, is of the options that were begun with last.
    const bool same = stages_.find(row.name, "begin", conditions) != nullptr;
    const Json* made = stages_.find(row.name, "quantize", conditions);
    Json summary;
    if (same && made != nullptr && path_exists(path)) {
      summary = *made;
    } else {
      const std::string changes = stages_.changes(row.name, "begin", conditions);
      job_.say(label(row, "quantize") + (changes.empty() ? "" : concat(" again (", changes, ")")));
      options.force = !same || path_exists(path);
      if (!same) stages_.add(row.name, "begin", conditions, nullptr);
      std::error_code error;
      fs::create_directories(path.parent_path(), error);
      LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot make ", path.parent_path().string(), ": ",
                        error.message());
      summary = in_child(row, "quantize", [&] { return quantize(path.string(), options); });
      stages_.add(row.name, "quantize", conditions, summary);
    }
    out.quantize_seconds = json_double(summary, "seconds", kNotMeasured, "summary");
    out.quantize_peak_mib = json_double(summary, "peak_mib", kNotMeasured, "summary");
    out.quantize_resumed = json_bool(summary, "resumed", false, "summary");
    for (const Json& notice : summary.at("notices")) out.notes.push_back(notice);
    return path.string();
  }

  Json quantize(const std::string& path, QuantizeOptions options) const {
    if (quantize_method(options.method).mixes) {
      options.method_options.automatic.seconds_of = layer_timer(options.threads);
    }
    const QuantizeSummary summary = quantize_checkpoint(job_.models.front(), path, options);
    return {{"seconds", summary.seconds},
            {"peak_mib", peak_memory_mib()},
            {"resumed", summary.resumed},
            {"notices", summary.notices}};
  }

  Json quantize_conditions(const QuantizeOptions& options) const {
    Json conditions = fingerprint(resolve_model(job_.models.front()), options, {});
    if (!options.act_scales.empty()) {
      conditions["act_scales"] = sha256(read_file(options.act_scales, limits::kJsonBytes));
    }
    if (needs_calibration(options)) {
      conditions["calibration"] = {{"text", calibration_sha256_},
                                   {"samples", options.calibration.samples},
                                   {"seqlen", options.calibration.seqlen},
                                   {"seed", options.calibration.seed},
                                   {"isa", cpu::Gemm().isa()}};
    }
    return conditions;
  }

  void fill_speed(const Row& row, const std::string& checkpoint, Json conditions,
                  ComparisonRow& out) {
    const LatencyOptions& speed = job_.recipe.speed;
    conditions["speed"] = {{"prompt", speed.prompt_tokens.front()},
                           {"decode", speed.decode_tokens},
                           {"repetitions", speed.repetitions},
                           {"activations", name_of(job_.recipe.speed_activations)}};
    const Json result = stage(row, "speed", conditions, [&] {
      return measure_speed(checkpoint, speed, job_.recipe.speed_activations, job_.measure);
    });
    out.format = result.at("format");
    out.bits_per_weight = json_double(result, "bits_per_weight", kNotMeasured, "speed");
    out.file_mib = json_double(result, "file_mib", kNotMeasured, "speed");
    out.peak_mib = json_double(result, "peak_mib", kNotMeasured, "speed");
    out.prefill_tok_s = json_double(result, "prefill_tok_s", kNotMeasured, "speed");
    out.decode_tok_s = json_double(result, "decode_tok_s", kNotMeasured, "speed");
    if (row.source) machine_ = result.at("machine");
  }

  void fill_quality(const Row& row, const std::string& checkpoint, Json conditions,
                    ComparisonRow& out) {
    const Recipe& recipe = job_.recipe;
    QualityOptions options{job_.text,         recipe.eval, recipe.eval_activations,
                           recipe.divergence, {},          row.source};
    conditions["text"] = text_sha256_;
    conditions["eval"] = to_json(recipe.eval, recipe.eval_activations);
    if (!job_.report.empty()) {
      options.logits = job_.report / "work" / "source.logits";
      conditions["divergence"] = to_json(recipe.divergence, recipe.eval_activations);
      conditions["source"] = source_files_;
    }
    // If the source's predictions have been deleted, they are made again.
    const bool complete = !row.source || job_.report.empty() || logits_there(options.logits);
    const Json result = stage(
        row, "quality", conditions,
        [&] { return measure_quality(checkpoint, options, job_.measure); }, complete);
    out.perplexity = json_double(result, "perplexity", kNotMeasured, "quality");
    out.perplexity_error = json_double(result, "perplexity_error", kNotMeasured, "quality");
    out.kl = json_double(result, "kl", kNotMeasured, "quality");
    out.kl_error = json_double(result, "kl_error", kNotMeasured, "quality");
    out.kl_median = json_double(result, "kl_median", kNotMeasured, "quality");
    out.kl_q99 = json_double(result, "kl_q99", kNotMeasured, "quality");
    out.kl_max = json_double(result, "kl_max", kNotMeasured, "quality");
    out.same_top = json_double(result, "same_top", kNotMeasured, "quality");
    if (result.contains("note")) out.notes.push_back(result["note"]);
    if (row.source) chunks_ = json_int(result, "chunks", 0, "quality");
  }

  static bool logits_there(const fs::path& path) {
    try {
      return LogitsFile(path).vocab_size() > 0;
    } catch (const Error&) {
      return false;
    }
  }

  void fill_layers(const Row& row, const std::string& checkpoint, Json conditions,
                   ComparisonRow& out) {
    conditions["source"] = source_files_;
    const std::string original = row.source ? "" : job_.models.front();
    const Json result = stage(row, "layers", conditions, [&] {
      return check_layers(checkpoint, original, job_.measure.threads);
    });
    out.loads_in = result.at("loads_in");
    for (const Json& problem : result.at("problems")) {
      out.notes.push_back(concat("verify: ", problem.get<std::string>()));
      out.failed = true;
    }
    for (const Json& layer : result.at("layers")) {
      const double error = layer.at(1).is_number() ? layer.at(1).get<double>() : kNotMeasured;
      out.layer_errors.emplace_back(layer.at(0), error);
    }
    out.block_errors = by_block(out.layer_errors);
  }

  void state_conditions() {
    const Recipe& recipe = job_.recipe;
    auto& list = comparison_.conditions;
    const Json eval = to_json(recipe.eval, recipe.eval_activations);
    list.emplace_back("Source", job_.models.front());
    list.emplace_back(
        "Perplexity",
        concat(job_.text_name, " (sha256 ", text_sha256_.substr(0, 12), "), protocol ",
               recipe.eval.protocol, ", ", chunks_, " windows of ", eval["context"].get<int64_t>(),
               " tokens, ", name_of(recipe.eval_activations), " activations"));
    if (!job_.report.empty()) {
      const std::string count =
          recipe.divergence.chunks < 0 ? "all" : concat("the first ", recipe.divergence.chunks);
      list.emplace_back("Divergence",
                        concat("against the source, second halves of ", count, " windows of ",
                               to_json(recipe.divergence, {})["context"].get<int64_t>(),
                               " tokens of the same text"));
    }
    list.emplace_back(
        "Speed",
        concat("one sequence, prompt of ", recipe.speed.prompt_tokens.front(), " tokens, ",
               recipe.speed.decode_tokens, " decoded, median of ", recipe.speed.repetitions, ", ",
               name_of(recipe.speed_activations), " activations"));
    if (!calibration_sha256_.empty()) {
      const CalibrationOptions& data = recipe.methods.front().options.calibration;
      const std::string windows =
          data.samples > 0 ? std::to_string(data.samples) : std::string("at most 128");
      list.emplace_back("Calibration", concat(fs::path(job_.calibration).filename().string(),
                                              " (sha256 ", calibration_sha256_.substr(0, 12), "), ",
                                              windows, " windows of ", data.seqlen, " tokens"));
    }
    list.emplace_back("Machine", machine_);
    list.emplace_back("Made", concat("by lowbit ", kVersion, ", ", today()));
  }

  void write_report() const {
    write_file_atomic(job_.report / "report.json", dump_json(comparison_json(comparison_), 2));
    write_file_atomic(job_.report / "report.csv", comparison_csv(comparison_));
    write_file_atomic(job_.report / "report.md", comparison_markdown(comparison_));
    write_file_atomic(job_.report / "report.html", comparison_html(comparison_));
  }

  const CompareJob& job_;
  Stages stages_;
  std::string text_sha256_, calibration_sha256_;
  Json source_files_;
  std::vector<Row> rows_;
  size_t number_ = 0;  // of the row at hand
  std::string machine_;
  int64_t chunks_ = 0;
  Comparison comparison_;
};

void check_calibration(const CompareJob& job) {
  if (!job.calibration.empty()) return;
  std::string with, without;
  for (const RecipeMethod& method : job.recipe.methods) {
    std::string& names = needs_calibration(method.options) ? with : without;
    names += (names.empty() ? "" : ",") + method.name;
  }
  LOWBIT_CHECK(with.empty(), with, " need text to calibrate with: --calibration FILE",
               without.empty() ? "" : concat("; without it: --methods ", without));
}

}  // namespace

Comparison compare_models(const CompareJob& job) {
  LOWBIT_CHECK(!job.models.empty(), "no model to compare");
  LOWBIT_CHECK(job.recipe.methods.empty() || !job.report.empty(),
               "-o REPORT is missing: a folder for what the methods make");
  check_calibration(job);
  try {
    return Comparer(job).run();
  } catch (const fs::filesystem_error& error) {
    fail(ErrorKind::kIo, error.what());
  }
}

}  // namespace lowbit
