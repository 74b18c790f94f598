#include "lowbit/engine/model_runner.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/stopwatch.h"

namespace lowbit {

namespace {

// Logits computed at once, but for one of each sequence: a prompt whose logprobs are wanted would
// need a row for each token.
constexpr size_t kRowsAtOnce = 64;

Tensor view_of_rows(const Tensor& tensor, size_t begin, size_t count) {
  Tensor view = tensor;
  view.data = tensor.as<char>() + static_cast<int64_t>(begin) * tensor.cols *
                                      static_cast<int64_t>(size_of(tensor.dtype));
  view.rows = static_cast<int64_t>(count);
  return view;
}

// Whether the mask allows nothing but (some of) `ids`.
bool only(std::span<const uint32_t> mask, std::span<const int32_t> ids) {
  int64_t others = 0;
  for (const uint32_t word : mask) others += std::popcount(word);
  for (auto id = ids.begin(); id != ids.end() && others > 0; ++id) {
    const bool again = std::find(ids.begin(), id, *id) != id;
    if (!again) others -= mask[static_cast<size_t>(*id) / 32] >> (*id % 32) & 1u;
  }
  return others == 0;
}

}  // namespace

ModelRunner::ModelRunner(Model& model, int64_t kv_blocks, DType kv_dtype)
    : model_(model),
      cache_(model.make_kv_cache(kv_blocks, kv_dtype)),
      threads_(model.backend().threads()),
      workspaces_(static_cast<size_t>(threads_.size())) {
  const auto words = static_cast<size_t>(model_.config().vocab_size + 31) / 32;
  for (Workspace& workspace : workspaces_) workspace.mask.resize(words);
}

void ModelRunner::copy_block(int32_t from, int32_t to) {
  model_.backend().copy_block(cache_, from, to);
}

void ModelRunner::run(std::span<Sequence* const> sequences) {
  const StepBatch batch = build(sequences);
  if (rows_.size() <= std::max(kRowsAtOnce, sequences.size())) {
    const Stopwatch forward;
    fetch(model_.forward(batch, cache_), 0);
    model_seconds_ += forward.seconds();
    read_rows(0, rows_.size());
  } else {
    run_in_pieces(batch);
  }
  for (Sequence* sequence : sequences) {
    // The token drawn last has not been run, nor is what stands behind a wrong guess right.
    const int64_t end = sequence->computed + sequence->scheduled;
    const bool drew = end - static_cast<int64_t>(sequence->guess.size()) < sequence->size();
    sequence->computed = std::min(end, sequence->size() - (drew ? 1 : 0));
  }
}

void ModelRunner::run_in_pieces(const StepBatch& batch) {
  Stopwatch forward;
  const Tensor hidden = model_.hidden_states(batch, cache_);
  for (size_t begin = 0; begin < rows_.size(); begin += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, rows_.size() - begin);
    fetch(model_.logits(view_of_rows(hidden, begin, count)), begin);
    model_seconds_ += forward.seconds();
    read_rows(begin, begin + count);
    forward = Stopwatch();
  }
}

LogitQuery ModelRunner::query_of(const Row& row) const {
  const Sequence& sequence = *row.sequence;
  const Request& request = sequence.request.request;
  const int64_t next = row.position + 1;
  const bool wants_logprobs = request.logprobs >= 0 || request.best_of > request.n;
  if (next < sequence.prompt_tokens || wants_logprobs || sequence.constraint != nullptr ||
      !sequence.answer.forbidden().empty()) {
    return {};
  }
  return lowbit::query_of(sequence.sampling, next);
}

// Has the backend answer what draws need to know. Returns false if it does not do such things.
bool ModelRunner::ask(const Tensor& logits, std::span<Row> rows) {
  queries_.clear();
  for (const Row& row : rows) queries_.push_back(query_of(row));
  const auto for_host = [](const LogitQuery& query) {
    return query.kind == LogitQuery::Kind::kAll;
  };
  if (std::all_of(queries_.begin(), queries_.end(), for_host)) return false;
  answers_.resize(rows.size());
  if (!model_.backend().answer(logits, queries_, answers_)) return false;
  threads_.parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t i, int thread) {
    Row& row = rows[static_cast<size_t>(i)];
    Sampler& sampler = workspaces_[static_cast<size_t>(thread)].sampler;
    row.drawn =
        sampler.sample(row.sequence->sampling, answers_[static_cast<size_t>(i)], row.position + 1);
  });
  return true;
}

// The tokens, or the logits, of rows from `first` on.
void ModelRunner::fetch(const Tensor& logits, size_t first) {
  if (logits.rows == 0) return;
  const auto count = static_cast<size_t>(logits.rows), vocab = static_cast<size_t>(logits.cols);
  const std::span<Row> rows = std::span(rows_).subspan(first, count);
  const bool asked = ask(logits, rows);
  const auto drawn = [](const Row& row) { return row.drawn.has_value(); };
  if (std::all_of(rows.begin(), rows.end(), drawn)) return;
  logits_.resize(std::max(logits_.size(), count * vocab));
  if (!asked) {
    model_.backend().copy_to_host(logits, std::span(logits_).first(count * vocab));
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    if (drawn(rows[i])) continue;
    model_.backend().copy_to_host(view_of_rows(logits, i, 1),
                                  std::span(logits_).subspan(i * vocab, vocab));
  }
}

StepBatch ModelRunner::build(std::span<Sequence* const> sequences) {
  StepBatch batch;
  rows_.clear();
  for (Sequence* sequence : sequences) {
    const int64_t first = batch.size();
    const int64_t known = sequence->scheduled - static_cast<int64_t>(sequence->guess.size());
    const auto from = sequence->ids.begin() + sequence->computed;
    batch.tokens.insert(batch.tokens.end(), from, from + known);
    batch.tokens.insert(batch.tokens.end(), sequence->guess.begin(), sequence->guess.end());
    batch.sequences.push_back(
        {first, sequence->scheduled, sequence->computed, sequence->block_table});
    add_rows(*sequence, first, batch);
  }
  return batch;
}

// Rows whose next token is to be drawn, or is of the prompt and its logprob wanted.
void ModelRunner::add_rows(Sequence& sequence, int64_t first_token, StepBatch& batch) {
  const auto next_logprob = static_cast<int64_t>(sequence.prompt_logprobs.size());
  for (int64_t i = 0; i < sequence.scheduled; ++i) {
    const int64_t position = sequence.computed + i;
    const bool draws = position + 1 >= sequence.size() && sequence.answer.room() > 0;
    const bool of_prompt =
        next_logprob > 0 && position + 1 >= next_logprob && position + 1 < sequence.prompt_tokens;
    if (!draws && !of_prompt) continue;
    rows_.push_back({&sequence, position});
    batch.logit_rows.push_back(static_cast<int32_t>(first_token + i));
  }
}

// Rows of one sequence go one after another, those of different ones side by side.
void ModelRunner::read_rows(size_t begin, size_t end) {
  const Stopwatch sampling;
  std::vector<size_t> groups;
  for (size_t i = begin; i < end; ++i) {
    if (i == begin || rows_[i].sequence != rows_[i - 1].sequence) groups.push_back(i);
  }
  groups.push_back(end);
  const auto count = static_cast<int64_t>(groups.size()) - 1;
  threads_.parallel_for(count, [&](int64_t index, int thread) {
    const auto group = static_cast<size_t>(index);
    read_group(groups[group], groups[group + 1], begin, workspaces_[static_cast<size_t>(thread)]);
  });
  sample_seconds_ += sampling.seconds();
}

// first: the row that logits_ begins with.
void ModelRunner::read_group(size_t begin, size_t end, size_t first, Workspace& workspace) {
  const auto vocab = static_cast<size_t>(model_.config().vocab_size);
  Sequence& sequence = *rows_[begin].sequence;
  try {
    for (size_t i = begin; i < end && !sequence.answer.finished(); ++i) {
      std::span<const float> logits;
      if (!rows_[i].drawn) logits = std::span(logits_).subspan((i - first) * vocab, vocab);
      read_row(rows_[i], logits, workspace);
    }
  } catch (const std::exception& error) {
    sequence.answer.fail(error.what());
  }
}

void ModelRunner::read_row(const Row& row, std::span<const float> logits, Workspace& workspace) {
  Sequence& sequence = *row.sequence;
  const Request& request = sequence.request.request;
  const int64_t next = row.position + 1;
  if (next < sequence.prompt_tokens) {
    const int32_t id = sequence.ids[static_cast<size_t>(next)];
    sequence.prompt_logprobs.push_back(
        workspace.logprobs.read(logits, id, request.prompt_logprobs));
    return;
  }
  // A row behind a guess counts only if the guess was right.
  const int64_t guesses =
      next - (sequence.computed + sequence.scheduled - static_cast<int64_t>(sequence.guess.size()));
  if (next != sequence.size()) return;
  if (guesses > 0 && sequence.guess[static_cast<size_t>(guesses - 1)] != sequence.ids.back())
    return;

  const int32_t id = draw(row, logits, workspace);
  sequence.ids.push_back(id);
  sequence.answer.push(id);
  if (request.logprobs >= 0 || request.best_of > request.n) {
    sequence.answer.add(workspace.logprobs.read(logits, id, std::max(request.logprobs, 0)));
  }
  if (sequence.constraint == nullptr || sequence.answer.finished()) return;
  sequence.constraint->accept(id);
  if (sequence.constraint->finished()) sequence.answer.finish(FinishReason::kStop);
}

int32_t ModelRunner::draw(const Row& row, std::span<const float> logits, Workspace& workspace) {
  if (row.drawn) return *row.drawn;
  const Sequence& sequence = *row.sequence;
  DrawPoint point;
  point.history = sequence.ids;
  point.prompt_tokens = sequence.prompt_tokens;
  point.forbidden = sequence.answer.forbidden();
  if (sequence.constraint != nullptr) {
    sequence.constraint->allowed(workspace.mask);
    point.allowed = workspace.mask;
    // Where the text must end, it may, whatever min_tokens says.
    if (only(workspace.mask, point.forbidden)) point.forbidden = {};
  }
  return workspace.sampler.sample(sequence.sampling, logits, point);
}

}  // namespace lowbit
