// lowbit chat: a conversation in the terminal.
#include <editline/readline.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>

#include "chat_prompt.h"
#include "commands.h"
#include "lowbit/base/check.h"
#include "lowbit/base/utf8.h"
#include "lowbit/engine/generate.h"
#include "session.h"

namespace lowbit::app {

namespace {

struct ChatCommand {
  std::string model, system;
  RunOptions run;
  SamplingOptions sampling;
  GenerateOptions generate;
};

constexpr const char* kHelp =
    "/clear starts over, /quit (or ctrl-D) leaves, ctrl-C stops an answer, /help prints this\n";

// One line from the user; nothing at end of input. Line editing and history on a terminal only.
std::optional<std::string> read_line(bool terminal) {
  if (!terminal) {
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  char* raw = readline("> ");
  if (raw == nullptr) return std::nullopt;
  const std::string line = raw;
  if (!line.empty()) add_history(raw);
  std::free(raw);
  return line;
}

class Conversation {
 public:
  Conversation(ChatCommand& command, Session& session)
      : command_(command),
        prompt_(session.tokenizer_spec(), session.tokenizer()),
        generator_(session.model(), session.tokenizer(), command.run.kv_dtype()) {
    clear();
  }

  void clear() {
    messages_ = OrderedJson::array();
    if (!command_.system.empty()) {
      messages_.push_back({{"role", "system"}, {"content", command_.system}});
    }
  }

  // Streams the answer to standard output. A question that does not fit is forgotten again.
  void answer(const std::string& question) {
    messages_.push_back({{"role", "user"}, {"content", question}});
    clear_interrupt();
    try {
      const GenerateResult result = generator_.generate(
          prompt_.encode(messages_), command_.generate, [](const std::string& text) {
            std::fwrite(text.data(), 1, text.size(), stdout);
            std::fflush(stdout);
            return !interrupted();
          });
      messages_.push_back({{"role", "assistant"}, {"content", result.text}});
      if (result.finish_reason == FinishReason::kCancelled) std::printf(" [stopped]");
      if (result.finish_reason == FinishReason::kLength) {
        const auto length = static_cast<int64_t>(result.ids.size());
        const bool asked = length == command_.generate.max_tokens;
        std::printf("%s", asked ? " [cut at -n]" : " [context full; /clear]");
      }
    } catch (const Error& error) {
      messages_.erase(messages_.size() - 1);
      std::fprintf(stderr, "error: %s\n", error.what());
    }
    std::printf("\n");
    clear_interrupt();
  }

 private:
  ChatCommand& command_;
  ChatPrompt prompt_;
  Generator generator_;
  OrderedJson messages_;
};

void execute(ChatCommand& command) {
  command.generate.sampling = command.sampling.resolve();
  command.generate.cancelled = interrupted;
  check_utf8(command.system, "the system message");
  Session session(command.model, command.run);
  Conversation conversation(command, session);
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) {
    std::printf("%s, %s\n%s", command.model.c_str(), session.backend().description().c_str(),
                kHelp);
    using_history();
  }
  while (const std::optional<std::string> line = read_line(terminal)) {
    if (line->empty()) continue;
    if (*line == "/quit" || *line == "/exit") return;
    if (*line == "/clear") {
      conversation.clear();
    } else if (*line == "/help") {
      std::printf("%s", kHelp);
    } else if (line->front() == '/') {
      std::fprintf(stderr, "unknown command %s; %s", line->c_str(), kHelp);
    } else if (find_invalid_utf8(*line) != std::string::npos) {
      std::fprintf(stderr, "error: this line is not valid UTF-8\n");
    } else {
      conversation.answer(*line);
    }
  }
}

}  // namespace

void add_chat(CLI::App& program) {
  auto command = std::make_shared<ChatCommand>();
  CLI::App& sub = *program.add_subcommand("chat", "Talk to a model in the terminal");
  sub.footer("Example: lowbit chat -m model.gguf --system 'You are a terse assistant.'");
  add_model_option(sub, command->model);
  sub.add_option("--system", command->system, "System message");
  sub.add_option("-n,--n-predict", command->generate.max_tokens,
                 "Tokens per answer at most (-1: until it ends or the context is full)")
      ->capture_default_str();
  command->run.add_to(sub);
  command->sampling.add_to(sub);
  sub.callback([command] { execute(*command); });
}

}  // namespace lowbit::app
