// lowbit bench quantize: how long a method takes for a model of a known shape, without files.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "bench_machine.h"
#include "calibration_options.h"
#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/calibrated_blocks.h"
#include "lowbit/quantize/device_blocks.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/report/table.h"
#include "measured_model.h"

namespace lowbit::app {

namespace {

struct QuantizeBench {
  MeasuredModel measured;
  QuantizeOptions options;  // method, bits, group size, backend, threads, calibration
  bool json = false;
};

// A block as a method left it, in the place of its part.
class QuantizedBlock final : public Checkpoint {
 public:
  QuantizedBlock(const Checkpoint& original, std::array<LinearWeight, kBlockLinears> linears)
      : original_(original), linears_(std::move(linears)) {}

  const std::string& path() const override { return original_.path(); }
  const std::string& format() const override { return original_.format(); }
  const Json& config() const override { return original_.config(); }
  const Json& generation_config() const override { return original_.generation_config(); }
  TokenizerSpec tokenizer() const override { return original_.tokenizer(); }
  const std::vector<TensorInfo>& tensors() const override { return original_.tensors(); }
  LinearWeight load_linear(const std::string& module, int64_t, int64_t) const override {
    for (const LinearWeight& linear : linears_) {
      if (linear.name == module) return linear;
    }
    fail(ErrorKind::kInvalidArgument, "no linear ", module);
  }
  std::vector<float> load_vector(const std::string& name, int64_t size) const override {
    return original_.load_vector(name, size);
  }
  void release(const std::string&) const override {}

 private:
  const Checkpoint& original_;
  std::array<LinearWeight, kBlockLinears> linears_;
};

// Seconds of each phase.
struct BlockTimes {
  double quantize = 0, advance = 0;
};

class BenchRun {
 public:
  BenchRun(const QuantizeBench& bench, const Checkpoint& checkpoint)
      : bench_(bench),
        checkpoint_(checkpoint),
        config_(parse_model_config(checkpoint.config(), checkpoint.generation_config(),
                                   checkpoint.path())),
        method_(quantize_method(bench.options.method)),
        pool_(bench.options.threads),
        device_(make_quantize_device(bench.options.backend, bench.options.threads)) {
    LOWBIT_CHECK(!method_.calibrates() || device_ != nullptr, "bench quantize has --method ",
                 method_.name, " on --backend cuda only");
  }

  std::vector<BlockTimes> run() {
    if (method_.calibrates()) prepare();
    std::vector<BlockTimes> times;
    // Making random weights is not a part of it: all blocks have the same.
    load_block_linears(checkpoint_, config_, 0);
    for (int64_t index = 0; index < config_.num_hidden_layers; ++index) {
      times.push_back(method_.calibrates() ? calibrated(index) : plain(index));
    }
    return times;
  }
  double prepare_seconds() const { return prepare_seconds_; }
  int64_t weights() const { return weights_; }

 private:
  // Calibration data and what the embedding makes of it.
  void prepare() {
    const CalibrationOptions& wanted = bench_.options.calibration;
    uint64_t state = 1;
    for (int64_t s = 0; s < wanted.samples; ++s) {
      std::vector<int32_t>& window = data_.windows.emplace_back();
      for (int64_t t = 0; t < wanted.seqlen; ++t) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        window.push_back(
            static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(config_.vocab_size)));
      }
    }
    load_embedding(checkpoint_, config_);
    const Stopwatch watch;
    blocks_ = std::make_unique<DeviceBlocks>(*device_, checkpoint_, config_, data_, pool_);
    device_->wait();
    prepare_seconds_ = watch.seconds();
  }

  QuantScheme scheme_of(const LinearWeight& linear) const {
    const QuantizeOptions& options = bench_.options;
    return for_shape(method_.scheme({options.bits, options.group_size, options.symmetric, 16}),
                     linear.weight.rows, linear.weight.cols);
  }

  BlockTimes plain(int64_t index) {
    const auto linears = load_block_linears(checkpoint_, config_, index);
    const std::unique_ptr<Quantizer> quantizer = method_.make();
    const Stopwatch watch;
    for (const LinearWeight& linear : linears) {
      const QTensor& weight = linear.weight;
      std::vector<float> values;
      if (!device_) values = dequantize(weight);
      quantizer->quantize(
          {linear.name, weight.rows, weight.cols, values, &pool_, device_.get(), &weight},
          scheme_of(linear));
      weights_ += weight.rows * weight.cols;
    }
    return {watch.seconds(), 0};
  }

  BlockTimes calibrated(int64_t index) {
    auto linears = load_block_linears(checkpoint_, config_, index);
    BlockSchemes schemes;
    for (size_t i = 0; i < kBlockLinears; ++i) schemes[i] = scheme_of(linears[i]);
    const auto quantizer = method_.make_block(bench_.options.method_options);
    Stopwatch watch;
    BlockResult result = blocks_->quantize(
        *quantizer, index, linears, schemes, [](double, const std::string&) {},
        [](const std::string&) {});
    BlockTimes times{watch.seconds(), 0};
    for (size_t i = 0; i < kBlockLinears; ++i) {
      weights_ += result[i].rows * result[i].cols;
      linears[i].weight = std::move(result[i]);
    }
    // Past the last block nothing needs activations.
    if (index + 1 == config_.num_hidden_layers) return times;
    watch = Stopwatch();
    blocks_->advance(QuantizedBlock(checkpoint_, std::move(linears)), index);
    device_->wait();
    times.advance = watch.seconds();
    return times;
  }

  const QuantizeBench& bench_;
  const Checkpoint& checkpoint_;
  ModelConfig config_;
  const QuantizeMethod& method_;
  ThreadPool pool_;
  std::unique_ptr<QuantizeDevice> device_;
  CalibrationData data_;
  std::unique_ptr<DeviceBlocks> blocks_;
  double prepare_seconds_ = 0;
  int64_t weights_ = 0;
};

void print_times(const QuantizeBench& bench, const BenchRun& run,
                 const std::vector<BlockTimes>& times) {
  double quantize = 0, advance = 0;
  for (const BlockTimes& t : times) quantize += t.quantize, advance += t.advance;
  const double total = run.prepare_seconds() + quantize + advance;
  const auto blocks = static_cast<double>(times.size());
  if (bench.json) {
    OrderedJson out;
    out["model"] = bench.measured.model;
    out["method"] = bench.options.method;
    out["backend"] = bench.options.backend;
    out["blocks"] = times.size();
    out["weights"] = run.weights();
    out["prepare_seconds"] = run.prepare_seconds();
    out["quantize_seconds"] = quantize;
    out["advance_seconds"] = advance;
    out["seconds"] = total;
    std::printf("%s\n", dump_json(out, 2).c_str());
    return;
  }
  Table table({"model", "method", "backend", ">blocks", ">weights", ">s a block", ">before",
               ">quantizing", ">passing on", ">total s"});
  table.add({bench.measured.model, bench.options.method, bench.options.backend,
             concat(times.size()), human_count(static_cast<double>(run.weights())),
             fixed((quantize + advance) / blocks, 3), fixed(run.prepare_seconds(), 2),
             fixed(quantize, 2), fixed(advance, 2), fixed(total, 2)});
  std::printf("%s", table.text().c_str());
}

}  // namespace

void add_bench_quantize(CLI::App& bench) {
  auto command = std::make_shared<QuantizeBench>();
  command->measured.format = "bf16";
  command->options.calibration.samples = 128;
  command->options.group_size = 128;
  CLI::App& sub = *bench.add_subcommand(
      "quantize", "Seconds that a method takes for all blocks of a model, without writing files");
  sub.footer(
      "Example: lowbit bench quantize --shape llama-3.1-8b --random-weights --method gptq "
      "--backend cuda --samples 128 --seqlen 2048");
  command->measured.add_to(sub);
  QuantizeOptions& options = command->options;
  sub.add_option("--method", options.method, "As `lowbit quantize`")->capture_default_str();
  sub.add_option("--bits", options.bits, "Bits per weight")
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
  sub.add_option("--group-size", options.group_size, "Weights that share a scale; -1: a row")
      ->check(CLI::IsMember({-1, 32, 64, 128}))
      ->capture_default_str();
  sub.add_flag_callback(
      "--asym", [&options] { options.symmetric = false; }, "With zero points");
  add_quantize_backend_option(sub, options);
  add_calibration_method_options(sub, options);
  sub.add_option("--samples", options.calibration.samples, "Windows of random tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  sub.add_option("--seqlen", options.calibration.seqlen, "Tokens of a window")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  sub.add_option("-t,--threads", options.threads, "Threads (0: all)")->check(CLI::Range(0, 1024));
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] {
    const std::unique_ptr<Checkpoint> checkpoint = command->measured.open();
    BenchRun run(*command, *checkpoint);
    const std::vector<BlockTimes> times = run.run();
    print_times(*command, run, times);
  });
}

}  // namespace lowbit::app
