// lowbit bench kernels and lowbit bench roofline: what this machine can do, and what of it the
// kernels use.
#include "bench_machine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "lowbit/base/file.h"
#include "lowbit/bench/kernels.h"
#include "lowbit/bench/roofline.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/report/table.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct KernelsCommand {
  KernelBenchOptions options;
  std::string backend = "cpu";
  std::string isa;
  std::string activations = "default";
  int threads = 0;
  bool json = false;
};

std::unique_ptr<Backend> bench_backend(const std::string& name, int threads,
                                       const std::string& activations) {
  BackendOptions options;
  options.threads = threads;
  options.activations = activations == "f32" ? Activations::kF32 : Activations::kDefault;
  return make_backend(name, options);
}

void print_machine(const Machine& machine) {
  std::printf("%s, %d threads, instruction sets: %s\n", machine.cpu.c_str(), machine.threads,
              machine.isas.c_str());
  Table table({"limit", ">one thread", ">all", "unit"});
  for (const MachineLimit& limit : machine.reads) {
    table.add(
        {concat("read ", limit.name, " (", human_bytes(static_cast<double>(limit.bytes)), ")"),
         fixed(limit.one, 1), fixed(limit.all, 1), "GB/s"});
  }
  for (const MachineLimit& limit : machine.peaks) {
    table.add({limit.name, fixed(limit.one, 0), fixed(limit.all, 0), "GOP/s"});
  }
  std::printf("%s\n", table.text().c_str());
}

OrderedJson to_json(const KernelRow& row) {
  return OrderedJson{{"name", row.name},       {"kernel", row.kernel}, {"rows", row.rows},
                     {"cols", row.cols},       {"tokens", row.tokens}, {"seconds", row.seconds},
                     {"fastest", row.fastest}, {"gb_s", row.gb_s()},   {"gop_s", row.gop_s()},
                     {"share", row.share},     {"error", row.error}};
}

Machine limits_of(const Backend& backend, int threads) {
  if (backend.name() == "cuda") {
    Machine machine = measure_cuda_machine();
    machine.cpu = backend.description();
    machine.threads = backend.threads();
    return machine;
  }
  MachineOptions options;
  options.threads = threads;
  return measure_machine(options);
}

void run_kernels(const KernelsCommand& command) {
  if (!command.isa.empty()) setenv("LOWBIT_CPU_ISA", command.isa.c_str(), 1);
  const auto backend = bench_backend(command.backend, command.threads, command.activations);
  const Machine machine = limits_of(*backend, command.threads);
  OrderedJson list = OrderedJson::array();
  if (!command.json) {
    print_machine(machine);
    std::printf("%-44s %-18s %6s %10s %9s %9s %8s %8s %10s\n", "weight", "kernel", "tokens", "us",
                "GB/s", "GOP/s", "% limit", "% best", "error");
  }
  measure_kernels(*backend, machine, command.options, [&](const KernelRow& row) {
    if (command.json) {
      list.push_back(to_json(row));
      return;
    }
    std::printf("%-44s %-18s %6lld %10.1f %9.2f %9.1f %8.1f %8.1f %10.2e\n", row.name.c_str(),
                row.kernel.c_str(), static_cast<long long>(row.tokens), row.seconds * 1e6,
                row.gb_s(), row.gop_s(), row.share * 100,
                row.share * 100 * row.seconds / row.fastest, row.error);
    std::fflush(stdout);
  });
  if (!command.json) return;
  OrderedJson out;
  out["machine"] = to_json(machine);
  out["backend"] = backend->description();
  out["rows"] = list;
  std::printf("%s\n", dump_json(out, 2).c_str());
}

struct RooflineCommand {
  std::string model, svg;
  int threads = 0;
  bool json = false;
};

// The model's linears on this machine with 4-bit weights of groups of 32.
std::vector<RooflinePoint> measure_layers(const std::string& model, const Machine& machine,
                                          int threads) {
  const auto checkpoint = open_checkpoint(model);
  const ModelConfig config =
      parse_model_config(checkpoint->config(), checkpoint->generation_config(), model);
  const auto backend = bench_backend("cpu", threads, "default");
  std::vector<RooflinePoint> points;
  for (const LinearShape& shape : fused_linears(config)) {
    for (const int64_t tokens : {int64_t{1}, int64_t{16}, int64_t{512}}) {
      const KernelRow row = measure_layer(*backend, machine, {shape.name, shape.rows, shape.cols},
                                          int_scheme(4, 32), tokens);
      points.push_back({concat(shape.name, " ", shape.rows, " x ", shape.cols, ", ", tokens,
                               tokens == 1 ? " token" : " tokens"),
                        tokens, linear_intensity(row.rows, row.cols, row.weight_bytes, tokens),
                        row.gop_s()});
    }
  }
  return points;
}

void run_roofline(const RooflineCommand& command) {
  MachineOptions options;
  options.threads = command.threads;
  const Machine machine = measure_machine(options);
  std::vector<RooflinePoint> points;
  if (!command.model.empty()) points = measure_layers(command.model, machine, command.threads);
  if (!command.svg.empty()) {
    FileWriter file(command.svg);
    file.write(roofline_svg(machine, points));
    file.close();
  }
  if (command.json) {
    OrderedJson out = to_json(machine);
    out["layers"] = OrderedJson::array();
    for (const RooflinePoint& point : points) {
      out["layers"].push_back(OrderedJson{{"name", point.name},
                                          {"tokens", point.tokens},
                                          {"operations_per_byte", point.intensity},
                                          {"gop_s", point.gops}});
    }
    std::printf("%s\n", dump_json(out, 2).c_str());
    return;
  }
  print_machine(machine);
  if (points.empty()) return;
  Table table({"layer (w4_g32)", ">operations/byte", ">GOP/s"});
  for (const RooflinePoint& point : points) {
    table.add({point.name, fixed(point.intensity, 1), fixed(point.gops, 1)});
  }
  std::printf("%s", table.text().c_str());
}

}  // namespace

void add_bench_kernels(CLI::App& bench) {
  auto command = std::make_shared<KernelsCommand>();
  CLI::App& sub =
      *bench.add_subcommand("kernels", "Every linear kernel against this machine's limits");
  sub.footer(
      "Example: lowbit bench kernels --only \"llama-8b down_proj\" --isa avx2\n"
      "         lowbit bench kernels --backend cuda --only \"llama-8b gate_up_proj w4_g128\" "
      "--tokens 1,4,16,32,64,128,256,1024,4096");
  sub.add_option("--only", command->options.only, "Rows whose name contains this");
  sub.add_option("--tokens", command->options.tokens, "Numbers of tokens, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  sub.add_option("--backend", command->backend, "Whose kernels")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  sub.add_option("--isa", command->isa, "Instruction set (as LOWBIT_CPU_ISA)");
  sub.add_option("--activations", command->activations, "Inputs of quantized linears")
      ->check(CLI::IsMember({"default", "f32"}))
      ->capture_default_str();
  sub.add_option("--seconds", command->options.seconds, "Time for each row")
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str();
  sub.add_option("-t,--threads", command->threads, "Threads; 0: all")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  sub.add_flag("--json", command->json, "Print JSON");
  sub.callback([command] { run_kernels(*command); });
}

void add_bench_roofline(CLI::App& bench) {
  auto command = std::make_shared<RooflineCommand>();
  CLI::App& sub = *bench.add_subcommand(
      "roofline", "Read bandwidth and arithmetic peaks, with a model's layers among them");
  sub.footer("Example: lowbit bench roofline -m model.gguf --svg roofline.svg");
  sub.add_option("-m,--model", command->model, "Model whose layers are measured");
  sub.add_option("--svg", command->svg, "Draw to this file");
  sub.add_option("-t,--threads", command->threads, "Threads; 0: all")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  sub.add_flag("--json", command->json, "Print JSON");
  sub.callback([command] { run_roofline(*command); });
}

}  // namespace lowbit::app
