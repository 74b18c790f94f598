// lowbit pull: a model from the Hugging Face hub into the cache.
#include "lowbit/hub/pull.h"

#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/base/json.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct PullCommand {
  hub::PullOptions options;
  std::string token, cache;
  bool json = false;
};

void execute(PullCommand& command) {
  hub::PullOptions& options = command.options;
  options.hub = hub::settings_from_environment();
  if (!command.token.empty()) options.hub.token = command.token;
  if (!command.cache.empty()) options.hub.cache = command.cache;
  options.stop = interrupted;
  hub::PullResult result;
  const double start = now_seconds();
  try {
    result = hub::pull(options);
  } catch (const Error& error) {
    if (!interrupted()) throw;
    std::fprintf(stderr, "interrupted; run again to go on from here\n");
    throw Exit{130};
  }
  const double seconds = now_seconds() - start;
  if (command.json) {
    const OrderedJson out{{"folder", result.folder},   {"commit", result.commit},
                          {"files", result.files},     {"bytes", result.bytes},
                          {"fetched", result.fetched}, {"seconds", seconds}};
    std::printf("%s\n", dump_json(out, 2).c_str());
    return;
  }
  if (result.fetched > 0) {
    const double mib = static_cast<double>(result.fetched) / (1 << 20);
    std::fprintf(stderr, "%.1f MiB in %.1f s (%.1f MiB/s)\n", mib, seconds, mib / seconds);
  }
  std::printf("%s\n", result.folder.c_str());
}

}  // namespace

void add_pull(CLI::App& program) {
  auto command = std::make_shared<PullCommand>();
  hub::PullOptions& options = command->options;
  CLI::App& sub = *program.add_subcommand(
      "pull", "Download a model from the Hugging Face hub into the cache; prints its folder");
  sub.footer(
      "Example: lowbit pull HuggingFaceTB/SmolLM2-135M-Instruct\n"
      "         lowbit pull bartowski/SmolLM2-135M-Instruct-GGUF --include '*Q4_0.gguf'\n"
      "Obeys HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies' variables. "
      "Without\nFILE and --include: safetensors with configuration and tokenizer, or the only GGUF "
      "model.");
  sub.add_option("model", options.repository, "ORG/NAME")->required()->type_name("ORG/NAME");
  sub.add_option("files", options.selection.files, "Files of it")->type_name("FILE");
  sub.add_option("--revision", options.revision, "Branch, tag or commit")->capture_default_str();
  sub.add_option("--include", options.selection.include,
                 "Files that match, such as '*.json' (repeatable)")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  sub.add_option("--exclude", options.selection.exclude, "But not those that match (repeatable)")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  sub.add_option("--max-workers", options.max_workers, "Files at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  sub.add_option("--cache-dir", command->cache, "Cache to use instead of the environment's");
  sub.add_option("--token", command->token,
                 "Token; better in HF_TOKEN, where others cannot see it");
  sub.add_flag("--force-download", options.force, "Fetch also what is there");
  sub.add_flag("--json", command->json, "Print one JSON object");
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app
