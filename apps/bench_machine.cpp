// lowbit bench kernels and lowbit bench roofline: what this machine can do, and what of it the
// kernels use.
#include "bench_machine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "lowbit/base/file.h"
#include "lowbit/bench/kernels.h"
#include "lowbit/bench/random_model.h"
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

void print_device(const Machine& machine) {
  std::printf("%s\n", machine.cpu.c_str());
  Table table({"limit", ">at most", "unit"});
  for (const MachineLimit& limit : machine.reads) {
    table.add(
        {concat("read ", limit.name, " (", human_bytes(static_cast<double>(limit.bytes)), ")"),
         fixed(limit.all, 0), "GB/s"});
  }
  for (const MachineLimit& limit : machine.peaks) {
    table.add({limit.name, fixed(limit.all / 1e3, 1), "TOP/s"});
  }
  std::printf("%s\n", table.text().c_str());
}

void print_machine(const Machine& machine) {
  if (machine.isas == "cuda") {
    print_device(machine);
    return;
  }
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

// all: what a GPU multiplies at is measured, not looked up.
Machine limits_of(const Backend& backend, int threads, bool all) {
  if (backend.name() == "cuda") {
    Machine machine = measure_cuda_machine(all);
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
  const Machine machine = limits_of(*backend, command.threads, false);
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
  std::string model, shape, svg, backend = "cpu";
  int threads = 0;
  bool json = false;
};

// 4-bit weights in the groups that each backend is best at.
QuantScheme roofline_scheme(const std::string& backend) {
  return int_scheme(4, backend == "cuda" ? 128 : 32);
}

// The linears of a model, or of a known shape, on this machine.
std::vector<RooflinePoint> measure_layers(const RooflineCommand& command, const Machine& machine,
                                          Backend& backend) {
  RandomModelOptions random;
  random.shape = command.shape;
  random.layers = 1;
  random.format = random.head = format_by_name("w4_g128");
  const auto checkpoint =
      command.shape.empty() ? open_checkpoint(command.model) : make_random_model(random);
  const ModelConfig config =
      parse_model_config(checkpoint->config(), checkpoint->generation_config(), command.model);
  std::vector<RooflinePoint> points;
  for (const LinearShape& shape : fused_linears(config)) {
    for (const int64_t tokens : {int64_t{1}, int64_t{16}, int64_t{512}}) {
      const KernelRow row = measure_layer(backend, machine, {shape.name, shape.rows, shape.cols},
                                          roofline_scheme(command.backend), tokens);
      points.push_back({concat(shape.name, " ", shape.rows, " x ", shape.cols, ", ", tokens,
                               tokens == 1 ? " token" : " tokens"),
                        tokens, linear_intensity(row.rows, row.cols, row.weight_bytes, tokens),
                        row.gop_s()});
    }
  }
  return points;
}

void run_roofline(const RooflineCommand& command) {
  const auto backend = bench_backend(command.backend, command.threads, "default");
  const Machine machine = limits_of(*backend, command.threads, true);
  std::vector<RooflinePoint> points;
  if (!command.model.empty() || !command.shape.empty()) {
    points = measure_layers(command, machine, *backend);
  }
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
  Table table({concat("layer (", name_of(roofline_scheme(command.backend)), ")"),
               ">operations/byte", ">GOP/s"});
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
  sub.footer(
      "Example: lowbit bench roofline -m model.gguf --svg roofline.svg\n"
      "         lowbit bench roofline --backend cuda --shape llama-3.1-8b");
  auto* model = sub.add_option("-m,--model", command->model, "Model whose layers are measured");
  sub.add_option("--shape", command->shape, "Known model whose layers are measured")
      ->check(CLI::IsMember(random_model_shapes()))
      ->excludes(model);
  sub.add_option("--svg", command->svg, "Draw to this file");
  sub.add_option("--backend", command->backend, "The machine's processor, or its first GPU")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  sub.add_option("-t,--threads", command->threads, "Threads; 0: all")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  sub.add_flag("--json", command->json, "Print JSON");
  sub.callback([command] { run_roofline(*command); });
}

}  // namespace lowbit::app
