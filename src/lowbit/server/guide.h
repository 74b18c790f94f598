// Guides: what a request demands of the shape of its answer, as a constraint on tokens.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/engine/token_constraint.h"
#include "lowbit/server/tool_calls.h"

namespace lowbit::server {

struct Guide {
  enum class Kind { kJsonSchema, kJsonObject, kRegex, kGrammar, kChoice };
  Kind kind = Kind::kJsonObject;
  OrderedJson schema;                // kJsonSchema
  std::string source;                // kRegex, kGrammar
  std::vector<std::string> choices;  // kChoice
  std::string param;                 // the member of the request it stands in, for errors
};

// Compiles guides for one vocabulary and keeps those that were used last. Any thread.
class Guides {
 public:
  // bytes: by token id (see tokenizer/token_bytes.h); ends: ids that end a text. vocab_size: of the
  // model's logits.
  Guides(std::vector<std::string> bytes, std::vector<int32_t> ends, int64_t vocab_size);
  ~Guides();

  // Throws ApiError (400) naming what is not supported or too large.
  std::shared_ptr<const TokenConstraint> compile(const Guide& guide);
  // One to max_calls calls of the tools (as chat has them), written in the model's style.
  std::shared_ptr<const TokenConstraint> compile_calls(ToolStyle style, const OrderedJson& tools,
                                                       int max_calls);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The guide in response_format, structured_outputs or vLLM's older guided_*; none if there is none.
// Throws ApiError (400) on more than one, and on what is not understood.
std::optional<Guide> read_guide(const OrderedJson& body);
// As OpenAI's "json_schema" object holds it, of chat's response_format or responses' text.format.
Guide json_schema_guide(const OrderedJson& holder, const std::string& param);

}  // namespace lowbit::server
