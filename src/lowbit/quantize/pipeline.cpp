#include "lowbit/quantize/pipeline.h"

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/checkpoint/formats.h"
#include "lowbit/quantize/act_scales.h"
#include "lowbit/quantize/calibrated_blocks.h"
#include "lowbit/quantize/fingerprint.h"
#include "lowbit/quantize/ggml_blocks.h"
#include "lowbit/quantize/gguf_recipe.h"
#include "lowbit/quantize/mix_choice.h"
#include "lowbit/quantize/mix_solution.h"
#include "lowbit/quantize/output.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/refine.h"
#include "lowbit/quantize/work_folder.h"

namespace lowbit {

namespace {

// What a method that makes integers by itself has in groups of 32.
const char* ggml_type_of(const std::string& method, int bits, bool symmetric) {
  if (bits < quantize_method(method).fewest_bits || bits > 8) return nullptr;
  return ggml_type_of(quantize_method(method).scheme({bits, 32, symmetric}));
}

// Whether the recipe's type holds what the method makes.
bool makes(const std::string& method, const GgufRecipe& recipe) {
  if (method == recipe.method) return true;
  if (method == "rtn" || recipe.method != std::string("rtn") || recipe.mix) return false;
  const char* type = ggml_type_of(method, recipe.bits, recipe.symmetric);
  return type != nullptr && type == std::string(recipe.type);
}

// Whether --sym and --asym mean something to it.
bool chooses_symmetry(const std::string& name) {
  const QuantizeMethod& method = quantize_method(name);
  return method.scheme({4, 32, true}) != method.scheme({4, 32, false});
}

// Of the recipes that hold what the method makes.
std::string recipe_names(const std::string& method) {
  std::string names;
  for (const GgufRecipe& recipe : gguf_recipes()) {
    if (makes(method, recipe)) names += concat(names.empty() ? "" : ", ", recipe.name);
  }
  return names;
}

// The recipe of this name; without a name, the method's first, with these bits if it has several.
const GgufRecipe& choose_recipe(const std::string& type, const std::string& method,
                                const QuantizeOptions& options) {
  if (!type.empty()) return gguf_recipe(type);
  const std::string names = recipe_names(method);
  LOWBIT_CHECK(!names.empty(), "--format gguf cannot hold what --method ", options.method,
               " makes; it holds integers in groups of 32, which rtn, rtn-search, hqq, gptq, awq, "
               "autoround and best make");
  for (const GgufRecipe& recipe : gguf_recipes()) {
    if (!makes(method, recipe)) continue;
    const bool own = method == recipe.method && method != "rtn";
    const bool symmetric = recipe.symmetric == options.symmetric || !chooses_symmetry(method);
    if (own || (recipe.bits == options.bits && symmetric)) return recipe;
  }
  fail(ErrorKind::kInvalidArgument, "lowbit cannot write GGUF with ", options.bits, " bits, ",
       options.symmetric ? "symmetric" : "asymmetric", ", by --method ", options.method,
       "; name a type: gguf: with ", names);
}

// A GGUF type decides bits and symmetry, and the other way round.
void choose_gguf_type(const std::string& type, QuantizeOptions& options) {
  const std::string method = options.method == "rtn-search" ? "rtn" : options.method;
  const GgufRecipe& recipe = choose_recipe(type, method, options);
  if (!makes(method, recipe)) {
    const std::string names = recipe_names(method);
    fail(ErrorKind::kInvalidArgument, "gguf:", recipe.name, " is made by --method ", recipe.method,
         ", not ", options.method, names.empty() ? "" : ", which makes gguf: with ", names);
  }
  LOWBIT_CHECK(options.group_size == 0 || options.group_size == recipe.group_size ||
                   recipe.group_size == 0 || recipe.bits == 16,
               "GGUF's ", recipe.name, " has groups of ", recipe.group_size, ", not ",
               options.group_size, "; leave --group-size out");
  options.format = concat("gguf:", recipe.name);
  options.bits = recipe.bits;
  options.symmetric = recipe.symmetric;
  if (recipe.group_size != 0) options.group_size = recipe.group_size;
}

// The method that rounds weights.
const QuantizeMethod& rounding_method(const QuantizeOptions& options) {
  const QuantizeMethod& method = quantize_method(options.method);
  return method.mixes ? quantize_method(options.method_options.automatic.method) : method;
}

// Of a method that mixes schemes.
void check_mixing(const QuantizeOptions& options) {
  const AutoOptions& wanted = options.method_options.automatic;
  const FormatName format = parse_format(options.format);
  LOWBIT_CHECK(format.name != "gguf" && checkpoint_format(format.name).mixed_config != nullptr,
               "--format ", options.format, " has one scheme for all layers; --method ",
               options.method, " writes compressed-tensors");
  const QuantizeMethod& plain = quantize_method("rtn");
  std::string names;
  for (const QuantizeMethod& method : quantize_methods()) {
    if (method.scheme == plain.scheme && !method.mixes)
      names += concat(names.empty() ? "" : ", ", method.name);
  }
  const QuantizeMethod& rounds = rounding_method(options);
  LOWBIT_CHECK(rounds.scheme == plain.scheme && !rounds.mixes, "--auto-method ", wanted.method,
               " does not round to a scheme of one's choice; these do: ", names);
  LOWBIT_CHECK(options.input_bits == 16, "--method ", options.method, " does not round inputs");
  LOWBIT_CHECK(options.group_size > 0, "--method ", options.method,
               " has groups of 32, 64 and 128, not of whole rows");
  const int goals =
      (wanted.target_bits > 0) + (wanted.target_bytes > 0) + (wanted.max_ppl_increase > 0);
  LOWBIT_CHECK(goals <= 1, "--target-size, --target-bits and --max-ppl-increase are three goals; ",
               "give one");
  LOWBIT_CHECK(wanted.target_bits >= 0 && wanted.target_bytes >= 0 &&
                   wanted.max_ppl_increase >= 0 && wanted.max_slowdown >= 0,
               "--method ", options.method, ": goals cannot be negative");
}

void check_input_form(const QuantizeOptions& options, const QuantScheme& scheme) {
  if (options.input_form == InputForm::kToken) return;
  LOWBIT_CHECK(scheme.input_bits != 0 && scheme.input_form == options.input_form, "--method ",
               options.method,
               scheme.input_bits == 0 ? " does not round inputs; give --activation-bits 8"
                                      : " rounds inputs in its own way only",
               ": --activation-scheme is for smoothquant, and, if dynamic, rtn, gptq, awq and "
               "autoround");
  LOWBIT_CHECK(!has_static_inputs(scheme) || options.method == "smoothquant", "--method ",
               options.method, " has no static inputs; smoothquant does");
}

// Everything decided: what the output, the fingerprint and the model card see.
QuantizeOptions resolve(QuantizeOptions options) {
  const QuantizeMethod& method = quantize_method(options.method);
  if (options.format.empty()) options.format = method.format;
  const FormatName format = parse_format(options.format);
  LOWBIT_CHECK(options.method == "rtn" || format.name != "safetensors", "--format ", format.name,
               " is made by --method rtn only, not ", options.method);
  LOWBIT_CHECK(!method.own_format || format.name.starts_with(method.format), "--method ",
               options.method, " needs --format ", method.format, ": --format ", format.name,
               " cannot hold what it makes");
  LOWBIT_CHECK(options.bits >= method.fewest_bits && options.bits <= 8, "--bits ", options.bits,
               " is not possible with --method ", options.method, "; ", method.fewest_bits,
               " to 8 are");
  const int64_t size = options.group_size;
  LOWBIT_CHECK(size == 0 || size == -1 || size == 32 || size == 64 || size == 128, "--group-size ",
               size, " is not possible; 32, 64, 128 and -1 are");
  const bool codes = format.name != "gguf" && format.name != "safetensors";
  LOWBIT_CHECK(codes || options.input_bits == 0 || options.input_bits == 16, "--format ",
               format.name, " cannot say how inputs are rounded");
  if (format.name == "gguf") {
    choose_gguf_type(format.type, options);
  } else if (format.name == "safetensors") {
    LOWBIT_CHECK(format.type.empty() || format.type == "f16" || format.type == "bf16", "no format ",
                 options.format, "; there are safetensors:f16, safetensors:bf16");
    options.format = concat("safetensors:", format.type.empty() ? "f16" : format.type);
    options.bits = 16;
  } else {
    LOWBIT_CHECK(format.type.empty(), "--format ", format.name, " has no types such as ",
                 format.type);
    if (size == 0) options.group_size = 64;
    // Some methods decide for themselves: the model card should say what they do.
    const QuantScheme scheme = method.scheme({options.bits, options.group_size, options.symmetric,
                                              options.input_bits, options.input_form});
    LOWBIT_CHECK(options.input_bits == 0 || options.input_bits == 16 ||
                     scheme.input_bits == options.input_bits,
                 "--method ", options.method, " does not round inputs to ", options.input_bits,
                 " bits; rtn, gptq, awq, autoround, smoothquant and mixq do");
    check_input_form(options, scheme);
    options.input_bits = scheme.input_bits == 0 ? 16 : scheme.input_bits;
    options.bits = scheme.bits;
    options.group_size = scheme.group_size > 0 ? scheme.group_size : -1;
    options.symmetric = scheme.zero == Zero::kNone;
  }
  if (method.mixes) check_mixing(options);
  if (rounding_method(options).refines) {
    RefineOptions& refine = options.method_options.refine;
    refine = chosen_refinement(refine, options.bits);
  }
  LOWBIT_CHECK(
      options.act_scales.empty() || options.method == "smoothquant" || options.method == "mixq",
      "--act-scales is for --method smoothquant and mixq, not ", options.method);
  if (!options.act_scales.empty()) {
    MethodOptions& chosen = options.method_options;
    chosen.smoothquant.act_scales = chosen.mixq.act_scales =
        std::make_shared<ActScales>(read_act_scales(options.act_scales));
  }
  return options;
}

// Where blocks are calibrated, the rest takes no time to speak of.
int64_t work_of(const PlanUnit& unit, bool calibrated) {
  if (calibrated && !unit.is_block) return 0;
  int64_t total = 0;
  for (const PlanItem& item : unit.items) total += item.rows * item.cols;
  return total;
}

Part write_unit(const PlanUnit& unit, const Checkpoint& checkpoint, Output& output,
                const fs::path& path) {
  PartWriter part(path, unit.name);
  for (const PlanItem& item : unit.items) {
    if (item.kind == PlanItem::Kind::kVector) {
      output.write_vector(item, checkpoint.load_vector(item.name, item.rows), part);
    } else {
      output.write_matrix(item, checkpoint.load_linear(item.name, item.rows, item.cols), part);
      checkpoint.release(item.name);
    }
  }
  return part.finish();
}

// The last block that is not finished, after which nothing needs activations; 0 if all are.
size_t last_unfinished(const Plan& plan, const WorkFolder& work) {
  size_t last = 0;
  for (size_t i = 0; i < plan.units.size(); ++i) {
    if (plan.units[i].is_block && work.find(plan.units[i].name) == nullptr) last = i;
  }
  return last;
}

// Learns every block by itself, then all of them together. Drafts are parts of their own, so that a
// run killed during the second pass does not learn the blocks again.
void refine_blocks(const Plan& plan, WorkFolder& work, CalibratedBlocks& calibrated) {
  std::vector<PlanUnit> drafts;
  for (const PlanUnit& unit : plan.units) {
    if (!unit.is_block) continue;
    drafts.push_back(unit);
    drafts.back().name = concat("draft of ", unit.name);
  }
  constexpr int64_t kParts = 100;  // of a block, for the progress line
  const auto blocks = static_cast<int64_t>(drafts.size());
  Progress learning("learning blocks", blocks * kParts, "% of a block");
  for (int64_t b = 0; b < blocks; ++b) {
    const PlanUnit& draft = drafts[static_cast<size_t>(b)];
    const auto report = [&](double share, const std::string& note) {
      learning.update(b * kParts + static_cast<int64_t>(share * kParts), note);
    };
    if (work.find(draft.name) == nullptr) work.commit(calibrated.write(draft, b, report));
    calibrated.advance(draft, b);
  }
  work.flush();
  Progress refining("refining the model", kParts, "%");
  calibrated.refine(drafts, [&](double share, const std::string& note) {
    refining.update(static_cast<int64_t>(share * kParts), note);
  });
}

std::vector<PartFile> write_units(const Plan& plan, const Checkpoint& checkpoint, Output& output,
                                  WorkFolder& work, CalibratedBlocks* calibrated) {
  const bool refines = calibrated != nullptr && calibrated->refines();
  if (refines) refine_blocks(plan, work, *calibrated);
  int64_t total = 0, done = 0;
  for (const PlanUnit& unit : plan.units) {
    if (work.find(unit.name) == nullptr) total += work_of(unit, calibrated != nullptr);
  }
  constexpr int64_t kMillion = 1'000'000;
  Progress progress("quantizing", total / kMillion, "M weights");
  std::vector<PartFile> parts;
  const size_t last = last_unfinished(plan, work);
  int64_t block = 0;
  for (size_t i = 0; i < plan.units.size(); ++i) {
    const PlanUnit& unit = plan.units[i];
    const fs::path path = work.part_path(unit.name);
    const bool by_data = calibrated != nullptr && unit.is_block;
    if (work.find(unit.name) == nullptr) {
      const int64_t weights = work_of(unit, calibrated != nullptr);
      const auto report = [&](double share, const std::string& note) {
        const double now = static_cast<double>(done) + share * static_cast<double>(weights);
        progress.update(static_cast<int64_t>(now) / kMillion,
                        note.empty() ? unit.name : concat(unit.name, ", ", note));
      };
      report(0, "");
      work.commit(by_data && refines ? calibrated->write_refined(unit, block)
                  : by_data          ? calibrated->write(unit, block, report)
                                     : write_unit(unit, checkpoint, output, path));
      done += weights;
    }
    if (by_data && !refines && i < last) calibrated->advance(unit, block);
    block += unit.is_block;
    parts.push_back({*work.find(unit.name), path});
  }
  work.flush();
  return parts;
}

int64_t bytes_of(const fs::path& out) {
  if (!fs::is_directory(out)) return static_cast<int64_t>(fs::file_size(out));
  int64_t total = 0;
  for (const auto& entry : fs::directory_iterator(out)) {
    total += static_cast<int64_t>(entry.file_size());
  }
  return total;
}

// What the methods want; empty if they want nothing.
CalibrationData calibrate(const Checkpoint& checkpoint, const ModelConfig& config,
                          const QuantizeOptions& options) {
  if (options.bits == 16) return {};
  const QuantizeMethod& rounds = rounding_method(options);
  const CalibrationNeeds needs = rounds.make_block == nullptr
                                     ? CalibrationNeeds{.quantized_input = false}
                                     : rounds.make_block(options.method_options)->needs();
  const bool measures =
      quantize_method(options.method).mixes && !options.method_options.automatic.plan;
  if (!needs.quantized_input && !needs.original_input && !needs.target && !measures) return {};
  LOWBIT_CHECK(!options.calibration.path.empty(), "--method ", options.method,
               " needs text to calibrate with: --calibration FILE");
  return load_calibration(options.calibration, Tokenizer(checkpoint.tokenizer()),
                          config.max_position_embeddings);
}

// What can be wrong with a mix before anything is measured.
void check_mix(const ModelConfig& config, const Plan& plan, const QuantizeOptions& options) {
  const std::shared_ptr<const MixPlan> given = options.method_options.automatic.plan;
  Plan unused = plan;
  if (given) return apply_mix(*given, unused);
  check_group_size(plan, options.group_size);
  check_mix_size(outline_mix(config, plan, options), options, bytes_in_16_bits(config, plan));
}

// The mix that the user gave, an earlier run decided on, or this one finds best.
MixPlan decide_mix(const MixJob& job, WorkFolder& work) {
  if (job.options.method_options.automatic.plan) return *job.options.method_options.automatic.plan;
  if (work.decision() == nullptr) work.decide(to_json(choose_mix(job)));
  return mix_plan_from_json(*work.decision(), "the journal");
}

QuantizeSummary run(const std::string& model, const fs::path& out, const QuantizeOptions& options) {
  const auto checkpoint = open_checkpoint(model);
  check_apart(checkpoint->path(), out);
  const ModelConfig config =
      parse_model_config(checkpoint->config(), checkpoint->generation_config(), checkpoint->path());
  Plan plan = make_plan(config, options);
  ThreadPool pool(options.threads);
  const bool mixes = quantize_method(options.method).mixes;
  QuantizeOptions rounding = options;
  rounding.method = rounding_method(options).name;
  const OutputJob job{*checkpoint, config, plan, rounding, pool};
  if (mixes) check_mix(config, plan, options);
  std::unique_ptr<Output> output = make_output(job, out);
  output->check();

  const bool calibrates = options.bits < 16 && rounding_method(options).calibrates();
  const CalibrationData data = calibrate(*checkpoint, config, options);

  WorkFolder work(out, fingerprint(checkpoint->path(), options, data), options.force,
                  options.commit_seconds);
  QuantizeSummary summary;
  summary.resumed = work.resumed();
  if (mixes) {
    const MixPlan mix = decide_mix(
        {*checkpoint, config, plan, options, data, pool, work.part_path("").parent_path()}, work);
    apply_mix(mix, plan);
    output = make_output(job, out);
    output->check();
    summary.notices = mix.notices;
    const auto& chosen = options.method_options.automatic.chosen;
    if (chosen) chosen(mix_plan_from_json(plan.mix, "plan"));
  }
  std::unique_ptr<CalibratedBlocks> calibrated;
  if (calibrates && last_unfinished(plan, work) > 0) {
    calibrated = std::make_unique<CalibratedBlocks>(job, *output, work, data);
  }
  const std::vector<PartFile> parts =
      write_units(plan, *checkpoint, *output, work, calibrated.get());
  const auto add_notices = [&](const std::vector<std::string>& notices) {
    summary.notices.insert(summary.notices.end(), notices.begin(), notices.end());
  };
  add_notices(output->notices());
  if (calibrated) add_notices(calibrated->notices());
  if (!work.assembled()) output->assemble(parts, work.prepare_result());
  work.publish();

  int64_t weights = 0;
  uint64_t bytes = 0;
  for (const PartFile& file : parts) {
    summary.linears += file.part.linears;
    weights += file.part.weights;
    bytes += file.part.quantized_bytes;
  }
  summary.bits_per_weight = weights > 0 ? 8.0 * static_cast<double>(bytes) / weights : 16;
  summary.bytes = bytes_of(out);
  return summary;
}

}  // namespace

QuantizeSummary quantize_checkpoint(const std::string& model, const std::string& out,
                                    const QuantizeOptions& options) {
  const Stopwatch watch;
  try {
    QuantizeSummary summary = run(model, out, resolve(options));
    summary.seconds = watch.seconds();
    return summary;
  } catch (const fs::filesystem_error& error) {
    fail(ErrorKind::kIo, "cannot write ", out, ": ", error.what());
  }
}

}  // namespace lowbit
