// lowbit tokenize: text to token ids.
#include <cstdio>
#include <memory>

#include "commands.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/tokenizer/tokenizer.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct TokenizeCommand {
  std::string model, prompt, file;
  bool json = false;
  bool no_bos = false;
  bool no_parse_special = false;
};

void execute(const TokenizeCommand& command) {
  const Tokenizer tokenizer(open_checkpoint(command.model)->tokenizer());
  if (command.file.empty()) check_utf8(command.prompt, "the text");
  const std::string text = command.file.empty() ? command.prompt : read_text(command.file);
  const std::vector<int32_t> ids = tokenizer.encode(
      text, {.add_special_tokens = !command.no_bos, .parse_special = !command.no_parse_special});
  if (command.json) {
    std::printf("%s\n", dump_json(OrderedJson{{"tokens", ids.size()}, {"ids", ids}}).c_str());
    return;
  }
  for (const int32_t id : ids) {
    std::printf("%7d  %s\n", id, dump_json(Json(tokenizer.decode(std::span(&id, 1)))).c_str());
  }
}

}  // namespace

void add_tokenize(CLI::App& program) {
  auto command = std::make_shared<TokenizeCommand>();
  CLI::App& sub = *program.add_subcommand("tokenize", "Show the tokens of a text");
  sub.footer("Example: lowbit tokenize -m model.gguf -p 'Hello, world!' --json");
  add_model_option(sub, command->model);
  auto* prompt = sub.add_option("-p,--prompt", command->prompt, "The text")->type_name("TEXT");
  auto* file =
      sub.add_option("-f,--file", command->file, "A file with the text (-: standard input)");
  file->excludes(prompt);
  sub.add_flag("--no-bos", command->no_bos, "Do not add what the tokenizer adds (BOS, EOS)");
  sub.add_flag("--no-parse-special", command->no_parse_special,
               "Take special tokens in the text as plain text");
  sub.add_flag("--json", command->json, "Print one JSON object with `ids`");
  sub.callback([command, prompt, file] {
    if (prompt->count() + file->count() == 0) throw CLI::RequiredError("-p TEXT or -f FILE");
    execute(*command);
  });
}

}  // namespace lowbit::app
