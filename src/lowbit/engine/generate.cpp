#include "lowbit/engine/generate.h"

#include <algorithm>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/engine/stop_strings.h"

namespace lowbit {

namespace {

// Ids in, text out: to the result and to the caller.
class TextOutput {
 public:
  TextOutput(const Tokenizer& tokenizer, const GenerateOptions& options,
             const TextCallback& on_text, std::string& text)
      : decoder_(tokenizer, !options.special_tokens),
        stops_(options.stop),
        on_text_(on_text),
        text_(text) {}

  void push(int32_t id) { show(stops_.push(decoder_.push(id))); }
  void finish() {
    show(stops_.push(decoder_.finish()));
    show(stops_.finish());
  }
  bool stopped() const { return stops_.stopped(); }
  bool cancelled() const { return cancelled_; }

 private:
  void show(const std::string& piece) {
    if (piece.empty() || cancelled_) return;
    text_ += piece;
    cancelled_ = on_text_ && !on_text_(piece);
  }

  StreamDecoder decoder_;
  StopStrings stops_;
  const TextCallback& on_text_;
  std::string& text_;
  bool cancelled_ = false;
};

}  // namespace

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

Generator::Generator(Model& model, const Tokenizer& tokenizer, DType kv_dtype)
    : model_(model), tokenizer_(tokenizer) {
  const int64_t blocks = (model_.context() + kBlockTokens - 1) / kBlockTokens;
  cache_ = model_.make_kv_cache(blocks, kv_dtype);
  block_table_.resize(static_cast<size_t>(blocks));
  std::iota(block_table_.begin(), block_table_.end(), 0);
  logits_.resize(static_cast<size_t>(model_.config().vocab_size));
}

bool Generator::ends_text(int32_t id) const {
  const std::vector<int32_t>& ends = model_.config().eos_token_ids;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

bool Generator::advance(std::span<const int32_t> ids, const GenerateOptions& options) {
  while (!ids.empty()) {
    if (options.cancelled && options.cancelled()) return false;
    const auto chunk = ids.first(std::min(ids.size(), static_cast<size_t>(model_.max_batch())));
    ids = ids.subspan(chunk.size());

    StepBatch batch;
    batch.tokens.assign(chunk.begin(), chunk.end());
    batch.sequences = {{0, batch.size(), static_cast<int64_t>(cached_ids_.size()), block_table_}};
    if (ids.empty()) batch.logit_rows = {static_cast<int32_t>(batch.size() - 1)};
    const Tensor logits = model_.forward(batch, cache_);
    if (ids.empty()) model_.backend().copy_to_host(logits, logits_);
    cached_ids_.insert(cached_ids_.end(), chunk.begin(), chunk.end());
  }
  return true;
}

FinishReason Generator::decode(std::vector<int32_t> history, const GenerateOptions& options,
                               const TextCallback& on_text, GenerateResult& result) {
  const auto room = model_.context() - static_cast<int64_t>(history.size());
  const int64_t limit = options.max_tokens < 0 ? room : std::min(options.max_tokens, room);
  Sampler sampler(options.sampling);
  TextOutput output(tokenizer_, options, on_text, result.text);
  FinishReason reason = FinishReason::kLength;
  while (static_cast<int64_t>(result.ids.size()) < limit) {
    const int32_t id = sampler.sample(logits_, history, static_cast<int64_t>(history.size()));
    history.push_back(id);
    result.ids.push_back(id);
    const bool end = !options.ignore_eos && ends_text(id);
    if (!end || options.special_tokens) output.push(id);
    if (end || output.stopped()) {
      reason = FinishReason::kStop;
      break;
    }
    if (static_cast<int64_t>(result.ids.size()) == limit) break;
    if (output.cancelled() || !advance({&id, 1}, options)) {
      reason = FinishReason::kCancelled;
      break;
    }
  }
  output.finish();
  return output.cancelled() ? FinishReason::kCancelled : reason;
}

GenerateResult Generator::generate(const std::vector<int32_t>& prompt,
                                   const GenerateOptions& options, const TextCallback& on_text) {
  const auto size = static_cast<int64_t>(prompt.size());
  LOWBIT_CHECK(size > 0, "the prompt is empty; give at least one token");
  LOWBIT_CHECK(size < model_.context(), "the prompt has ", size, " tokens; a context of ",
               model_.context(), " leaves no room for an answer");
  LOWBIT_CHECK(options.max_tokens >= -1, "max_tokens must be -1 (no limit) or more, not ",
               options.max_tokens);
  validate(options.sampling);
  const StopStrings check(options.stop);

  GenerateResult result;
  result.prompt_tokens = size;
  // The last token of the prompt runs in any case: its logits are needed.
  const auto common =
      std::mismatch(prompt.begin(), prompt.end() - 1, cached_ids_.begin(), cached_ids_.end());
  cached_ids_.erase(common.second, cached_ids_.end());
  result.cached_tokens = static_cast<int64_t>(cached_ids_.size());

  const Stopwatch prefill;
  const bool filled =
      advance(std::span(prompt).subspan(static_cast<size_t>(result.cached_tokens)), options);
  result.prefill_seconds = prefill.seconds();
  const Stopwatch decoding;
  result.finish_reason =
      filled ? decode(prompt, options, on_text, result) : FinishReason::kCancelled;
  result.decode_seconds = decoding.seconds();
  return result;
}

}  // namespace lowbit
