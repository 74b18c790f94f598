#include "lowbit/engine/model_drafter.h"

#include <algorithm>
#include <utility>

#include "lowbit/base/check.h"

namespace lowbit {

ModelDrafter::ModelDrafter(Model& model, int64_t max_tokens, int64_t kv_blocks, DType kv_dtype)
    : model_(model),
      max_tokens_(max_tokens),
      cache_(model.make_kv_cache(kv_blocks, kv_dtype)),
      blocks_(kv_blocks) {
  LOWBIT_CHECK(max_tokens > 0 && max_tokens <= 64, "draft tokens must be 1 to 64, not ",
               max_tokens);
}

void ModelDrafter::forget(uint64_t sequence) {
  const auto found = states_.find(sequence);
  if (found == states_.end()) return;
  for (const int32_t block : found->second.block_table) blocks_.release(block);
  states_.erase(found);
}

// Takes blocks for the history and the guesses; false if there are none, or no room for guesses.
bool ModelDrafter::begin(DraftQuery& query, Guessing& guessing) {
  const auto size = static_cast<int64_t>(query.history.size());
  query.max_tokens = std::min(query.max_tokens, model_.context() - size);
  if (query.max_tokens <= 0) return false;
  State& state = states_[query.sequence];
  const auto needed =
      static_cast<size_t>((size + query.max_tokens + kBlockTokens - 1) / kBlockTokens);
  while (state.block_table.size() < needed) {
    const int32_t block = blocks_.allocate();
    if (block < 0) return false;
    state.block_table.push_back(block);
  }
  const size_t same =
      static_cast<size_t>(std::mismatch(state.ids.begin(), state.ids.end(), query.history.begin(),
                                        query.history.end() - 1)  // the last runs in any case
                              .first -
                          state.ids.begin());
  state.ids.resize(same);
  guessing = {&query, &state, {query.history.begin(), query.history.end()}};
  return true;
}

void ModelDrafter::guess(std::span<DraftQuery> queries) {
  std::vector<Guessing> guessing;
  for (DraftQuery& query : queries) {
    Guessing next;
    if (begin(query, next)) guessing.push_back(std::move(next));
  }
  while (!guessing.empty()) {
    advance(guessing);
    std::erase_if(guessing, [](const Guessing& g) {
      return static_cast<int64_t>(g.query->guess.size()) >= g.query->max_tokens;
    });
  }
}

void ModelDrafter::advance(std::vector<Guessing>& guessing) {
  for (size_t next = 0; next < guessing.size();) {
    StepBatch batch;
    std::vector<Guessing*> complete;
    while (next < guessing.size() && batch.size() < model_.max_batch()) {
      Guessing& g = guessing[next];
      const auto position = static_cast<int64_t>(g.state->ids.size());
      const auto missing = static_cast<int64_t>(g.ids.size()) - position;
      const int64_t count = std::min(missing, model_.max_batch() - batch.size());
      const auto from = g.ids.begin() + position;
      batch.sequences.push_back({batch.size(), count, position, g.state->block_table});
      batch.tokens.insert(batch.tokens.end(), from, from + count);
      g.state->ids.insert(g.state->ids.end(), from, from + count);
      if (count < missing) break;
      batch.logit_rows.push_back(static_cast<int32_t>(batch.size() - 1));
      complete.push_back(&g);
      ++next;
    }
    draw(complete, batch);
  }
}

void ModelDrafter::draw(std::vector<Guessing*>& complete, const StepBatch& batch) {
  const Tensor logits = model_.forward(batch, cache_);
  if (complete.empty()) return;
  logits_.resize(static_cast<size_t>(logits.size()));
  model_.backend().copy_to_host(logits, logits_);
  const auto vocab = static_cast<size_t>(logits.cols);
  for (size_t i = 0; i < complete.size(); ++i) {
    Guessing& g = *complete[i];
    DraftQuery& query = *g.query;
    DrawPoint point;
    point.history = g.ids;
    point.prompt_tokens = query.prompt_tokens;
    try {
      const auto row = std::span(logits_).subspan(i * vocab, vocab);
      query.guess.push_back(sampler_.sample(*query.sampling, row, point));
      g.ids.push_back(query.guess.back());
    } catch (const Error&) {  // logits that are not numbers: no more guesses
      query.max_tokens = 0;
    }
  }
}

}  // namespace lowbit
