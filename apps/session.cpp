#include "session.h"

#include <chrono>
#include <iostream>
#include <iterator>
#include <random>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/trace.h"
#include "lowbit/base/utf8.h"

namespace lowbit::app {

const std::map<std::string, DType>& kv_cache_types() {
  static const std::map<std::string, DType> types = {
      {"auto", DType::kF16}, {"fp16", DType::kF16}, {"f16", DType::kF16},
      {"fp32", DType::kF32}, {"f32", DType::kF32},  {"fp8", DType::kE4M3},
      {"int8", DType::kI8},  {"q8_0", DType::kI8},  {"fp8_e4m3", DType::kE4M3},
      {"int4", DType::kI4}};
  return types;
}

void RunOptions::add_to(CLI::App& command, bool context_options) {
  command.add_option("-t,--threads", threads, "Threads (0: all cores this process may use)")
      ->check(CLI::Range(0, 1024));
  command
      .add_option("--backend", backend, "Where to run: cpu, cuda, or ref (slow, the definition)")
      ->check(CLI::IsMember(backend_names()))
      ->capture_default_str();
  command
      .add_option(
          "--activations", activations,
          "Inputs of low-bit layers: f32, int8 (in groups of 32), or default: as the checkpoint "
          "says, int8 where it says nothing")
      ->check(CLI::IsMember({"default", "f32", "int8"}))
      ->capture_default_str();
  command
      .add_option("--kv-cache-dtype,--cache-type", kv_cache_dtype,
                  "Key/value cache: fp16 (f16; auto), fp32, or in less memory, with some loss: fp8 "
                  "(fp8_e4m3) or int8 (q8_0), half; int4, 2/7")
      ->check(CLI::IsMember(kv_cache_types()))
      ->type_name("DTYPE")
      ->capture_default_str();
  command.add_flag("--sync-each-kernel", sync_each_kernel,
                   "cuda: wait for each kernel, so that an error names the one that failed (slow)");
  if (!context_options) return;
  command
      .add_option("-c,--ctx-size", context, "Context in tokens (0: the model's own, at most 8192)")
      ->check(CLI::Range(int64_t{0}, limits::kContext));
  command.add_option("-b,--batch-size", batch, "Tokens per pass while reading the prompt")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
}

DType RunOptions::kv_dtype() const { return kv_cache_types().at(kv_cache_dtype); }

std::unique_ptr<Backend> RunOptions::make() const {
  BackendOptions options;
  options.threads = threads;
  options.sync_each_kernel = sync_each_kernel;
  if (activations == "f32") options.activations = Activations::kF32;
  if (activations == "int8") options.activations = Activations::kInt8;
  return make_backend(backend, options);
}

Session::Session(const std::string& model, const RunOptions& options) {
  const double start = now_seconds();
  checkpoint_ = open_checkpoint(model);
  load(options);
  load_seconds_ = now_seconds() - start;
}

Session::Session(std::unique_ptr<Checkpoint> checkpoint, const RunOptions& options)
    : checkpoint_(std::move(checkpoint)) {
  const double start = now_seconds();
  load(options);
  load_seconds_ = now_seconds() - start;
}

void Session::load(const RunOptions& options) {
  spec_ = checkpoint_->tokenizer();
  tokenizer_ = std::make_unique<Tokenizer>(spec_);
  backend_ = options.make();
  ModelOptions model_options;
  model_options.context = options.context;
  model_options.max_batch = options.batch;
  model_ = std::make_unique<Model>(*checkpoint_, *backend_, model_options);
}

TraceFile::TraceFile(const std::string& path) {
  if (path.empty()) return;
  file_ = std::make_unique<FileWriter>(path);
  trace::start();
}

void TraceFile::write() {
  if (!file_) return;
  file_->write(trace::finish());
  file_->close();
}

void add_trace_option(CLI::App& command, std::string& path) {
  command
      .add_option("--trace", path,
                  "Write what every thread did when to this file, for ui.perfetto.dev")
      ->type_name("FILE");
}

void SamplingOptions::add_to(CLI::App& command) {
  command.add_option("--temp,--temperature", params.temperature, "Temperature (0: greedy)")
      ->capture_default_str();
  command.add_option("--top-k", params.top_k, "Keep the k likeliest tokens (0: all)")
      ->capture_default_str();
  command
      .add_option("--top-p", params.top_p, "Keep the likeliest tokens of this total probability")
      ->capture_default_str();
  command
      .add_option("--min-p", params.min_p,
                  "Keep tokens at least this likely relative to the likeliest")
      ->capture_default_str();
  command
      .add_option("--repeat-penalty", params.repeat_penalty,
                  "Divide the logits of recent tokens by this (1: off)")
      ->capture_default_str();
  command
      .add_option("--repeat-last-n", params.repeat_last_n,
                  "Recent tokens for the repeat penalty (-1: all)")
      ->capture_default_str();
  command.add_option("--typical", params.typical_p, "Locally typical sampling (1: off)")
      ->capture_default_str();
  command
      .add_option("--presence-penalty", params.presence_penalty,
                  "Subtract from the logits of tokens that the answer has")
      ->capture_default_str();
  command
      .add_option("--frequency-penalty", params.frequency_penalty,
                  "Subtract this as often as the answer has them")
      ->capture_default_str();
  command.add_option("-s,--seed", seed, "Seed of the sampler (-1: a new one, printed)")
      ->capture_default_str();
}

SamplingParams SamplingOptions::resolve() const {
  SamplingParams resolved = params;
  resolved.seed = seed >= 0 ? static_cast<uint64_t>(seed) : std::random_device()();
  validate(resolved, limits::kVocabSize);
  return resolved;
}

void add_model_option(CLI::App& command, std::string& model) {
  command
      .add_option("-m,--model", model,
                  "Model: a folder, a .gguf file, or ORG/NAME in the Hugging Face cache")
      ->required()
      ->type_name("MODEL");
}

std::string read_text(const std::string& path) {
  if (path != "-") return read_text_file(path);
  std::string text((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  check_utf8(text, "standard input");
  return text;
}

double now_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace lowbit::app
