// lowbit run: one prompt, one answer on standard output.
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "chat_prompt.h"
#include "commands.h"
#include "drafting.h"
#include "lowbit/base/check.h"
#include "lowbit/engine/generate.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct RunCommand {
  std::string model, prompt, file, system, trace;
  bool has_prompt = false;
  RunOptions run;
  SamplingOptions sampling;
  GenerateOptions generate;
  DraftOptions draft;
  bool chat = false;
  bool json = false;
};

std::string prompt_text(const RunCommand& command) {
  if (!command.file.empty()) return read_text(command.file);
  if (command.has_prompt) {
    check_utf8(command.prompt, "the prompt");
    return command.prompt;
  }
  LOWBIT_CHECK(isatty(STDIN_FILENO) == 0,
               "no prompt; give -p TEXT or -f FILE, or pipe text in (or try lowbit chat)");
  return read_text("-");
}

std::vector<int32_t> prompt_ids(const RunCommand& command, const Session& session) {
  const std::string text = prompt_text(command);
  if (!command.chat) return session.tokenizer().encode(text);
  OrderedJson messages = OrderedJson::array();
  if (!command.system.empty())
    messages.push_back({{"role", "system"}, {"content", command.system}});
  messages.push_back({{"role", "user"}, {"content", text}});
  return ChatPrompt(session.tokenizer_spec(), session.tokenizer()).encode(messages);
}

double rate(double tokens, double seconds) { return seconds > 0 ? tokens / seconds : 0; }

void print_json(const std::vector<int32_t>& prompt, const GenerateResult& result, uint64_t seed) {
  OrderedJson out;
  out["prompt_tokens"] = result.prompt_tokens;
  out["prompt_ids"] = prompt;
  out["ids"] = result.ids;
  out["text"] = result.text;
  out["finish_reason"] = name_of(result.finish_reason);
  out["seed"] = seed;
  out["draft_tokens"] = result.draft_tokens;
  out["accepted_tokens"] = result.accepted_tokens;
  out["prefill_tok_s"] = rate(static_cast<double>(result.prompt_tokens), result.prefill_seconds);
  out["decode_tok_s"] = rate(static_cast<double>(result.ids.size()) - 1, result.decode_seconds);
  std::printf("%s\n", dump_json(out).c_str());
}

void execute(RunCommand& command) {
  command.generate.sampling = command.sampling.resolve();
  command.generate.cancelled = interrupted;
  Session session(command.model, command.run);
  const std::vector<int32_t> ids = prompt_ids(command, session);
  Drafting drafting(command.draft, command.run, session, 1);
  Generator generator(session.model(), session.tokenizer(), command.run.kv_dtype(),
                      drafting.make());
  TraceFile trace(command.trace);
  const GenerateResult result =
      generator.generate(ids, command.generate, [&](const std::string& text) {
        if (!command.json) {
          std::fwrite(text.data(), 1, text.size(), stdout);
          std::fflush(stdout);
        }
        return !interrupted() && std::ferror(stdout) == 0;
      });
  trace.write();
  if (command.json) {
    print_json(ids, result, command.generate.sampling.seed);
  } else if (isatty(STDOUT_FILENO) == 1) {
    std::printf("\n");
  }
  const double generated = static_cast<double>(result.ids.size());
  std::fprintf(stderr,
               "\nload %.2f s | prompt %lld tokens, %.1f tok/s | answer %.0f tokens, %.1f tok/s | "
               "%s | seed %llu | %s\n",
               session.load_seconds(), static_cast<long long>(result.prompt_tokens),
               rate(static_cast<double>(result.prompt_tokens), result.prefill_seconds), generated,
               rate(generated - 1, result.decode_seconds), name_of(result.finish_reason),
               static_cast<unsigned long long>(command.generate.sampling.seed),
               session.backend().description().c_str());
  print_acceptance(result.draft_tokens, result.accepted_tokens, result.ids.size(), stderr);
  if (interrupted()) throw Exit{130};
}

}  // namespace

void add_run(CLI::App& program) {
  auto command = std::make_shared<RunCommand>();
  CLI::App& sub = *program.add_subcommand("run", "Complete a prompt, or answer it with --chat");
  sub.footer("Example: lowbit run -m model.gguf -p 'Once upon a time' -n 64 --temp 0");
  add_model_option(sub, command->model);
  auto* prompt = sub.add_option("-p,--prompt", command->prompt, "The prompt")->type_name("TEXT");
  sub.add_option("-f,--file", command->file, "A file with the prompt (-: standard input)")
      ->excludes(prompt);
  sub.add_option("-n,--n-predict,--predict", command->generate.max_tokens,
                 "Tokens to generate at most (-1: until the model ends or the context is full)")
      ->capture_default_str();
  command->run.add_to(sub);
  command->sampling.add_to(sub);
  command->draft.add_to(sub);
  sub.add_option("--stop", command->generate.stop, "Text that ends the answer (may be repeated)")
      ->allow_extra_args(false);
  sub.add_flag("--ignore-eos", command->generate.ignore_eos, "Go on after an end token");
  sub.add_flag("--special", command->generate.special_tokens, "Show special tokens in the text");
  auto* chat =
      sub.add_flag("--chat", command->chat, "Put the prompt into the model's chat template");
  sub.add_option("--system", command->system, "System message of the chat")->needs(chat);
  add_trace_option(sub, command->trace);
  sub.add_flag("--json", command->json, "Print one JSON object instead of text");
  sub.callback([command, prompt] {
    command->has_prompt = prompt->count() > 0;
    execute(*command);
  });
}

}  // namespace lowbit::app
