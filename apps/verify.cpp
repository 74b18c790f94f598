// lowbit verify: whether a checkpoint holds what it claims, and how far it is from its original.
#include "lowbit/verify/verify.h"

#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/report/table.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct VerifyCommand {
  std::string model, original;
  int threads = 0;
  bool json = false;
};

void print_json(const VerifyReport& report) {
  OrderedJson out;
  out["ok"] = report.problems.empty();
  out["format"] = report.format;
  out["tensors"] = report.tensors;
  out["checksums"] = report.checksums;
  out["problems"] = report.problems;
  out["loads_in"] = report.loads_in;
  out["layers"] = OrderedJson::array();
  for (const VerifyReport::Layer& layer : report.layers) {
    OrderedJson row;
    row["module"] = layer.module;
    row["scheme"] = layer.scheme;
    row["read_twice"] = layer.read_twice;
    if (report.compared) {
      row["relative_error"] = layer.relative_error;
      row["cosine"] = layer.cosine;
      row["max_error"] = layer.max_error;
    }
    out["layers"].push_back(row);
  }
  std::printf("%s\n", dump_json(out, 2).c_str());
}

void print_text(const VerifyReport& report) {
  if (report.compared) {
    Table table({"module", "scheme", ">relative error", ">cosine", ">max error"});
    for (const VerifyReport::Layer& layer : report.layers) {
      table.add({layer.module, layer.scheme, fixed(layer.relative_error, 5), fixed(layer.cosine, 6),
                 fixed(layer.max_error, 5)});
    }
    std::printf("%s\n", table.text().c_str());
  }
  size_t twice = 0;
  for (const VerifyReport::Layer& layer : report.layers) twice += layer.read_twice ? 1 : 0;
  std::printf("%s: %lld tensors, %zu matrices, %zu of them quantized and read twice%s\n",
              report.format.c_str(), static_cast<long long>(report.tensors), report.layers.size(),
              twice, report.checksums ? ", checksums compared" : ", no checksums");
  if (!report.loads_in.empty()) std::printf("made for: %s\n", report.loads_in.c_str());
  for (const std::string& problem : report.problems) {
    std::fprintf(stderr, "error: %s\n", problem.c_str());
  }
  if (report.problems.empty()) std::printf("nothing is off\n");
}

void execute(const VerifyCommand& command) {
  const VerifyReport report = verify_checkpoint(command.model, command.original, command.threads);
  command.json ? print_json(report) : print_text(report);
  if (!report.problems.empty()) throw Exit{1};
}

}  // namespace

void add_verify(CLI::App& program) {
  auto command = std::make_shared<VerifyCommand>();
  CLI::App& sub = *program.add_subcommand(
      "verify", "Check a checkpoint: checksums, shapes, numbers, every weight read twice");
  sub.footer("Example: lowbit verify model-w4 --against model");
  sub.add_option("MODEL", command->model, "The checkpoint")->required();
  sub.add_option("--against", command->original, "The original, to print each layer's error");
  sub.add_option("-t,--threads", command->threads, "Threads (0: all)")
      ->check(CLI::NonNegativeNumber);
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app
