#include "lowbit/engine/generate.h"

#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/stopwatch.h"

namespace lowbit {

namespace {

EngineOptions options_for_one(const Model& model, DType kv_dtype,
                              std::unique_ptr<Drafter> drafter) {
  EngineOptions options;
  options.kv_dtype = kv_dtype;
  options.max_num_seqs = 1;
  // One more than a context needs: where to copy a block that only begins as the prompt does.
  options.kv_blocks = (model.context() + kBlockTokens - 1) / kBlockTokens + 1;
  options.drafter = std::move(drafter);
  return options;
}

Request request_of(const std::vector<int32_t>& prompt, const GenerateOptions& options) {
  Request request;
  request.prompt = prompt;
  request.sampling = options.sampling;
  request.max_tokens = options.max_tokens;
  request.ignore_eos = options.ignore_eos;
  request.stop = options.stop;
  request.skip_special_tokens = !options.special_tokens;
  return request;
}

}  // namespace

Generator::Generator(Model& model, const Tokenizer& tokenizer, DType kv_dtype,
                     std::unique_ptr<Drafter> drafter)
    : engine_(model, tokenizer, options_for_one(model, kv_dtype, std::move(drafter))) {}

GenerateResult Generator::generate(const std::vector<int32_t>& prompt,
                                   const GenerateOptions& options, const TextCallback& on_text) {
  GenerateResult result;
  bool cancelled = false, done = false;
  std::string error;
  const Stopwatch clock;
  double first_token = -1;

  Request request = request_of(prompt, options);
  request.on_output = [&](Output&& output) {
    if (first_token < 0) first_token = clock.seconds();
    result.text += output.text;
    result.ids.insert(result.ids.end(), output.ids.begin(), output.ids.end());
    if (output.finish_reason) result.finish_reason = *output.finish_reason;
    result.prompt_tokens = output.usage.prompt_tokens;
    result.cached_tokens = output.usage.cached_tokens;
    error = output.error;
    done = output.last;
    cancelled = cancelled || (on_text && !output.text.empty() && !on_text(output.text));
  };
  const EngineStats before = engine_.stats();
  const Submission submission = engine_.submit(std::move(request));
  LOWBIT_CHECK_KIND(submission.admission == Admission::kAccepted, ErrorKind::kDevice,
                    "the model cannot run any more: ", before.fault);
  while (!done) {
    cancelled = cancelled || (options.cancelled && options.cancelled());
    if (cancelled) engine_.cancel(submission.id);
    engine_.step();
  }
  LOWBIT_CHECK_KIND(error.empty(), ErrorKind::kInvalidArgument, error);
  if (cancelled) result.finish_reason = FinishReason::kCancelled;
  result.prefill_seconds = first_token;
  result.decode_seconds = clock.seconds() - first_token;
  const EngineStats after = engine_.stats();
  result.draft_tokens = after.draft_tokens - before.draft_tokens;
  result.accepted_tokens = after.accepted_tokens - before.accepted_tokens;
  return result;
}

}  // namespace lowbit
