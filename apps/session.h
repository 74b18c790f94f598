// What most commands share: options that choose a model and how to run it, and the loaded result.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "lowbit/base/file.h"
#include "lowbit/base/text_file.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/engine/sampler.h"
#include "lowbit/model/model.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit::app {

// The names of --kv-cache-dtype.
const std::map<std::string, DType>& kv_cache_types();

struct RunOptions {
  std::string backend = "cpu";
  std::string activations = "default";
  std::string kv_cache_dtype = "auto";
  int threads = 0;
  int64_t context = 0;
  int64_t batch = 512;
  bool sync_each_kernel = false;

  // -t, --backend, --activations, --kv-cache-dtype, and unless the command has its own -c and -b.
  void add_to(CLI::App& command, bool context_options = true);
  DType kv_dtype() const;
  std::unique_ptr<Backend> make() const;  // the backend
};

// A checkpoint, its tokenizer and the model on a backend, in the order they are needed.
class Session {
 public:
  Session(const std::string& model, const RunOptions& options);
  Session(std::unique_ptr<Checkpoint> checkpoint, const RunOptions& options);

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const TokenizerSpec& tokenizer_spec() const { return spec_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  Backend& backend() { return *backend_; }
  Model& model() { return *model_; }
  double load_seconds() const { return load_seconds_; }

 private:
  void load(const RunOptions& options);

  std::unique_ptr<Checkpoint> checkpoint_;
  TokenizerSpec spec_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  double load_seconds_ = 0;
};

// Records what every thread does from construction to write(), if a path is given.
class TraceFile {
 public:
  explicit TraceFile(const std::string& path);
  void write();

 private:
  std::unique_ptr<FileWriter> file_;
};
void add_trace_option(CLI::App& command, std::string& path);

// Sampling options with llama.cpp's names and defaults; seed -1 draws one from the system.
struct SamplingOptions {
  SamplingParams params;
  int64_t seed = -1;

  void add_to(CLI::App& command);
  SamplingParams resolve() const;
};

// Adds "-m, --model MODEL" (required).
void add_model_option(CLI::App& command, std::string& model);
// A text file in UTF-8, or standard input for "-".
std::string read_text(const std::string& path);
// Seconds since some start.
double now_seconds();

}  // namespace lowbit::app
