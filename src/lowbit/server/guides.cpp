#include <algorithm>
#include <list>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/grammar/gbnf.h"
#include "lowbit/grammar/json_schema.h"
#include "lowbit/grammar/regex.h"
#include "lowbit/grammar/token_masks.h"
#include "lowbit/server/api_error.h"
#include "lowbit/server/fields.h"
#include "lowbit/server/guide.h"

namespace lowbit::server {

namespace {

using grammar::Builder;
using grammar::Fragment;
using grammar::JsonText;
using grammar::Network;
using grammar::TokenGrammar;

constexpr size_t kKept = 16;  // compiled guides
constexpr size_t kChoices = 4'096;
constexpr size_t kChoiceBytes = 16'384;

// One text that follows a grammar.
class GrammarConstraint final : public TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<TokenGrammar> grammar)
      : grammar_(std::move(grammar)), cursor_(grammar_->begin()) {}

  std::unique_ptr<TokenConstraint> clone() const override {
    return std::make_unique<GrammarConstraint>(*this);
  }
  void allowed(std::span<uint32_t> mask) override { grammar_->allowed(cursor_, mask); }
  void accept(int32_t id) override { grammar_->accept(cursor_, id); }
  bool finished() const override { return grammar_->finished(cursor_); }

 private:
  std::shared_ptr<TokenGrammar> grammar_;
  mutable TokenGrammar::Cursor cursor_;
};

Network one_rule(Builder& builder, Fragment body) {
  const int32_t root = builder.add_rule();
  builder.define(root, body);
  return builder.finish(root);
}

Network choice_network(const std::vector<std::string>& choices) {
  LOWBIT_CHECK(choices.size() <= kChoices, "more than ", kChoices, " choices");
  Builder builder;
  std::vector<Fragment> parts;
  for (const std::string& choice : choices) {
    LOWBIT_CHECK(choice.size() <= kChoiceBytes, "a choice longer than ", kChoiceBytes, " bytes");
    parts.push_back(builder.literal(choice));
  }
  return one_rule(builder, builder.choice(parts));
}

Network network_of(const Guide& guide) {
  Builder builder;
  JsonText json(builder);
  switch (guide.kind) {
    case Guide::Kind::kJsonSchema:
      return one_rule(builder, grammar::json_schema(builder, json, guide.schema));
    case Guide::Kind::kJsonObject:
      return one_rule(builder, json.object());
    case Guide::Kind::kRegex:
      return one_rule(builder, grammar::regex(builder, guide.source, grammar::Anchoring::kWhole,
                                              grammar::Spelling::kPlain));
    case Guide::Kind::kGrammar:
      return grammar::gbnf(guide.source);
    case Guide::Kind::kChoice:
      break;
  }
  return choice_network(guide.choices);
}

// What two guides have in common exactly if they allow the same texts for the same reasons.
std::string key_of(const Guide& guide) {
  std::string key = std::to_string(static_cast<int>(guide.kind)) + "\n" + guide.source + "\n";
  if (guide.kind == Guide::Kind::kJsonSchema) key += dump_json(guide.schema);
  for (const std::string& choice : guide.choices) {
    key += std::to_string(choice.size()) + ":" + choice;
  }
  return sha256(key);
}

// {"name": "f", "arguments": ARGUMENTS} for one tool.
Fragment call_of(Builder& builder, JsonText& json, const OrderedJson& tool, const char* member_name) {
  const OrderedJson& function = tool["function"];
  const OrderedJson* parameters = member(function, "parameters");
  const bool any = parameters == nullptr || parameters->empty();
  const std::string name = dump_json(function["name"]);
  return builder.sequence(
      {builder.literal("{\"name\": " + name + ", \"" + member_name + "\": "),
       any ? json.object() : grammar::json_schema(builder, json, *parameters),
       builder.literal("}")});
}

// `call`, max_calls times at most, with `separator` between them.
Fragment calls_of(Builder& builder, int32_t call, const char* separator, int max_calls) {
  const auto next = [&] {
    return builder.sequence({builder.literal(separator), builder.call(call)});
  };
  return builder.sequence({builder.call(call), builder.repeat(next, 0, max_calls - 1)});
}

Network calls_network(ToolStyle style, const OrderedJson& tools, int max_calls) {
  Builder builder;
  JsonText json(builder);
  const char* arguments = style == ToolStyle::kLlama3Json ? "parameters" : "arguments";
  std::vector<Fragment> parts;
  for (const OrderedJson& tool : tools) {
    parts.push_back(call_of(builder, json, tool, arguments));
  }
  const int32_t call = builder.add_rule();
  builder.define(call, builder.choice(parts));
  switch (style) {
    case ToolStyle::kHermes:
      return one_rule(builder,
                      builder.sequence({builder.literal("<tool_call>\n"),
                                        calls_of(builder, call, "\n</tool_call>\n<tool_call>\n",
                                                 max_calls),
                                        builder.literal("\n</tool_call>")}));
    case ToolStyle::kLlama3Json:
      return one_rule(builder, calls_of(builder, call, "; ", max_calls));
    case ToolStyle::kMistral:
      break;
  }
  return one_rule(builder, builder.sequence({builder.literal("[TOOL_CALLS] ["),
                                             calls_of(builder, call, ", ", max_calls),
                                             builder.literal("]")}));
}

}  // namespace

struct Guides::Impl {
  // Keeps the guides used last.
  template <typename Make>
  std::shared_ptr<const TokenConstraint> compile(const std::string& key, const std::string& param,
                                                 const Make& make) {
    const std::lock_guard lock(mutex);
    const auto found = std::find_if(kept.begin(), kept.end(),
                                    [&](const auto& entry) { return entry.first == key; });
    if (found != kept.end()) {
      kept.splice(kept.begin(), kept, found);
    } else {
      kept.emplace_front(key, build(param, make));
      if (kept.size() > kKept) kept.pop_back();
    }
    return std::make_shared<GrammarConstraint>(kept.front().second);
  }

  template <typename Make>
  std::shared_ptr<TokenGrammar> build(const std::string& param, const Make& make) const {
    try {
      return std::make_shared<TokenGrammar>(make(), trie, ends, vocab_size);
    } catch (const Error& error) {
      throw ApiError(400, std::string("Invalid '") + param + "': " + error.what(), param,
                     "invalid_value");
    }
  }

  std::shared_ptr<const grammar::TokenTrie> trie;
  std::vector<int32_t> ends;
  int64_t vocab_size = 0;
  std::mutex mutex;
  std::list<std::pair<std::string, std::shared_ptr<TokenGrammar>>> kept;
};

Guides::Guides(std::vector<std::string> bytes, std::vector<int32_t> ends, int64_t vocab_size)
    : impl_(std::make_unique<Impl>()) {
  bytes.resize(static_cast<size_t>(vocab_size));  // ids beyond the logits cannot be drawn
  for (const int32_t id : ends) {
    if (id >= 0 && id < vocab_size) bytes[static_cast<size_t>(id)].clear();
  }
  impl_->trie = std::make_shared<grammar::TokenTrie>(bytes);
  impl_->ends = std::move(ends);
  impl_->vocab_size = vocab_size;
}

Guides::~Guides() = default;

std::shared_ptr<const TokenConstraint> Guides::compile(const Guide& guide) {
  return impl_->compile(key_of(guide), guide.param, [&] { return network_of(guide); });
}

std::shared_ptr<const TokenConstraint> Guides::compile_calls(ToolStyle style,
                                                             const OrderedJson& tools,
                                                             int max_calls) {
  const std::string key = sha256("calls\n" + std::to_string(static_cast<int>(style)) + "\n" +
                                 std::to_string(max_calls) + "\n" + dump_json(tools));
  return impl_->compile(key, "tools", [&] { return calls_network(style, tools, max_calls); });
}

}  // namespace lowbit::server
