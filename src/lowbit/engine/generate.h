// Generator: one conversation on an engine of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/engine/engine.h"

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
  int64_t cached_tokens = 0;  // of the prompt, reused from the calls before
  double prefill_seconds = 0;
  double decode_seconds = 0;     // for ids.size() - 1 decode steps (the first comes from prefill)
  uint64_t draft_tokens = 0;     // guessed by speculative decoding
  uint64_t accepted_tokens = 0;  // of those, right
};

// Gets whole UTF-8 characters as they come; returning false cancels.
using TextCallback = std::function<bool(const std::string&)>;

// Keeps the KV cache between calls and reuses the longest known prefix.
class Generator {
 public:
  // model and tokenizer must outlive it.
  Generator(Model& model, const Tokenizer& tokenizer, DType kv_dtype = DType::kF16,
            std::unique_ptr<Drafter> drafter = nullptr);

  // Text that could be the beginning of a stop string is held back until it is known not to be.
  // Throws kInvalidArgument if the prompt is empty or leaves no room in the context, a stop string
  // is empty, or a sampling parameter is out of range; kDevice if the forward pass fails.
  GenerateResult generate(const std::vector<int32_t>& prompt, const GenerateOptions& options,
                          const TextCallback& on_text = {});

 private:
  Engine engine_;
};

}  // namespace lowbit
