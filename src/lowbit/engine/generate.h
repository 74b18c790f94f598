// Generation of one sequence: prefill in chunks, decode, stop.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lowbit/engine/request.h"
#include "lowbit/model/model.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct GenerateOptions {
  int64_t max_tokens = -1;        // -1: until the context is full
  std::vector<std::string> stop;  // text that ends the answer; not part of it
  bool ignore_eos = false;
  bool special_tokens = false;  // show special tokens in the text
  SamplingParams sampling;
  // Asked before every forward pass, so that a long prompt can be cancelled too; may be empty.
  std::function<bool()> cancelled;
};

struct GenerateResult {
  std::vector<int32_t> ids;  // generated, the end token included if one was drawn
  std::string text;
  FinishReason finish_reason = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, reused from the call before
  double prefill_seconds = 0;
  double decode_seconds = 0;  // for ids.size() - 1 decode steps (the first comes from prefill)
};

// Gets whole UTF-8 characters as they come; returning false cancels.
using TextCallback = std::function<bool(const std::string&)>;

// One conversation: keeps the KV cache between calls and reuses the common prefix.
class Generator {
 public:
  // model and tokenizer must outlive it.
  Generator(Model& model, const Tokenizer& tokenizer, DType kv_dtype = DType::kF16);

  // Text that could be the beginning of a stop string is held back until it is known not to be.
  // Throws kInvalidArgument if the prompt is empty or leaves no room in the context, a stop string
  // is empty, or a sampling parameter is out of range.
  GenerateResult generate(const std::vector<int32_t>& prompt, const GenerateOptions& options,
                          const TextCallback& on_text = {});

 private:
  // Runs `ids` as the tokens from position cached_ids_.size() on, max_batch at a time, and leaves
  // the logits of the last in logits_. False if cancelled on the way.
  bool advance(std::span<const int32_t> ids, const GenerateOptions& options);
  FinishReason decode(std::vector<int32_t> history, const GenerateOptions& options,
                      const TextCallback& on_text, GenerateResult& result);
  bool ends_text(int32_t id) const;

  Model& model_;
  const Tokenizer& tokenizer_;
  KvCache cache_;
  std::vector<int32_t> block_table_;
  std::vector<int32_t> cached_ids_;  // whose keys and values the cache holds
  std::vector<float> logits_;        // [vocab_size], of the last token
};

}  // namespace lowbit
