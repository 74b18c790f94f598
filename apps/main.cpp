// lowbit: low-bit inference of large language models. Exit codes: 0 ok, 1 failed, 2 usage,
// 130 interrupted.
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"

namespace lowbit::app {

namespace {

volatile std::sig_atomic_t interrupts = 0;  // how many ctrl-C so far

void on_interrupt(int signal) {
  interrupts = interrupts + 1;
  if (interrupts >= 2) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

constexpr int kFailed = 1;
constexpr int kUsage = 2;

void declare(CLI::App& program) {
  program.set_version_flag("--version", "lowbit " LOWBIT_VERSION);
  program.require_subcommand(1);
  program.footer(
      "MODEL is a folder with config.json and safetensors, a .gguf file, or ORG/NAME in the "
      "Hugging "
      "Face cache.\n\nExample: lowbit run -m SmolLM2-135M-Instruct.Q4_1.gguf --chat -p 'Hello!'");
  program.add_flag_function(
      "--no-progress", [](int64_t) { Progress::enable(false); }, "Show no progress lines");
  program.fallthrough();
  add_run(program);
  add_chat(program);
  add_serve(program);
  add_pull(program);
  add_quantize(program);
  add_act_scales(program);
  add_perplexity(program);
  add_divergence(program);
  add_verify(program);
  add_compare(program);
  add_bench(program);
  add_inspect(program);
  add_tokenize(program);
}

int run(int argc, char** argv) {
  CLI::App program("lowbit: make large language models small, and run them fast", "lowbit");
  declare(program);
  try {
    program.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& done) {  // --help, --version
    return program.exit(done);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "error: %s; see lowbit --help\n", error.what());
    return kUsage;
  } catch (const Exit& exit) {
    return exit.code;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kFailed;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory; a shorter context (-c) or a smaller model fits\n");
    return kFailed;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kFailed;
  }
}

}  // namespace

bool interrupted() { return interrupts > 0; }
void clear_interrupt() { interrupts = 0; }

}  // namespace lowbit::app

int main(int argc, char** argv) {
  std::signal(SIGINT, lowbit::app::on_interrupt);
  std::signal(SIGPIPE, SIG_IGN);
  return lowbit::app::run(argc, argv);
}
