#include "lowbit/engine/sequence.h"

#include <tuple>
#include <utility>

#include "lowbit/base/limits.h"

namespace lowbit {

bool RunsBefore::operator()(const Sequence* a, const Sequence* b) const {
  const auto key = [](const Sequence* s) {
    return std::tuple(s->request.request.priority, s->request.id, s->index);
  };
  return key(a) < key(b);
}

Sequence::Sequence(ActiveRequest& of, int choice, Answer new_answer)
    : request(of),
      index(choice),
      number(of.id * limits::kChoices + static_cast<uint64_t>(choice)),
      sampling(of.request.sampling),
      answer(std::move(new_answer)),
      ids(of.request.prompt),
      prompt_tokens(size()) {
  sampling.seed = sibling_seed(sampling.seed, index);
  if (of.request.constraint != nullptr) constraint = of.request.constraint->clone();
  if (index == 0 && of.request.prompt_logprobs >= 0) {
    prompt_logprobs.resize(1);
    prompt_logprobs[0].token.id = ids[0];
  }
}

ActiveRequest::ActiveRequest(RequestId request_id, Request new_request, const Tokenizer& tokenizer,
                             std::span<const int32_t> model_end_tokens, int64_t max_tokens)
    : id(request_id),
      request(std::move(new_request)),
      ends(request, model_end_tokens),
      unfinished(std::max(request.n, request.best_of)) {
  for (int i = 0; i < unfinished; ++i) {
    choices.push_back(
        std::make_unique<Sequence>(*this, i, Answer(tokenizer, request, ends, max_tokens)));
  }
  usage.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (request.best_of > request.n) kept_.resize(choices.size());
}

void ActiveRequest::deliver(Sequence& choice) {
  Output output = choice.answer.take_news();
  output.request = id;
  output.index = choice.index;
  output.prompt_logprobs = std::exchange(choice.prompt_logprobs, {});
  usage.completion_tokens += static_cast<int64_t>(output.ids.size());
  const bool finished = output.finish_reason.has_value();
  if (finished) --unfinished;
  if (!kept_.empty()) {
    const auto tokens = static_cast<double>(std::max<int64_t>(choice.answer.tokens(), 1));
    keep(std::move(output), choice.answer.logprob_sum() / tokens);
    if (unfinished == 0) send_best();
    return;
  }
  output.usage = usage;
  output.last = unfinished == 0;
  send(std::move(output));
}

void ActiveRequest::keep(Output output, double score) {
  Kept& kept = kept_[static_cast<size_t>(output.index)];
  kept.score = score;
  Output& all = kept.output;
  output.text.insert(0, all.text);
  output.ids.insert(output.ids.begin(), all.ids.begin(), all.ids.end());
  output.logprobs.insert(output.logprobs.begin(), all.logprobs.begin(), all.logprobs.end());
  if (output.prompt_logprobs.empty()) output.prompt_logprobs = std::move(all.prompt_logprobs);
  all = std::move(output);
}

void ActiveRequest::send_best() {
  std::vector<PositionLogprobs> prompt_logprobs = std::move(kept_[0].output.prompt_logprobs);
  kept_[0].output.prompt_logprobs.clear();
  std::stable_sort(kept_.begin(), kept_.end(),
                   [](const Kept& a, const Kept& b) { return a.score > b.score; });
  kept_[0].output.prompt_logprobs = std::move(prompt_logprobs);
  for (int i = 0; i < request.n; ++i) {
    Output& output = kept_[static_cast<size_t>(i)].output;
    output.index = i;
    output.usage = usage;
    output.last = i + 1 == request.n;
    send(std::move(output));
  }
}

// A callback that throws has no use for more.
void ActiveRequest::send(Output output) {
  if (!request.on_output) return;
  try {
    request.on_output(std::move(output));
  } catch (...) {
    cancelled = true;
  }
}

}  // namespace lowbit
