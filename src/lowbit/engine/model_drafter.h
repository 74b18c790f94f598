// ModelDrafter: a smaller or lower-bit model guesses. It draws as the sequence itself draws, with
// the same random number for the same position, so that two models that agree about the
// probabilities agree about the token, also when sampling.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "lowbit/engine/block_pool.h"
#include "lowbit/engine/drafter.h"
#include "lowbit/model/model.h"

namespace lowbit {

class ModelDrafter : public Drafter {
 public:
  // model: the drafting one, with the target's vocabulary; must outlive it. kv_blocks: of its own
  // cache, shared by all sequences; one that finds none free gets no guesses.
  ModelDrafter(Model& model, int64_t max_tokens, int64_t kv_blocks, DType kv_dtype);
  std::string name() const override { return "model"; }
  int64_t max_tokens() const override { return max_tokens_; }
  void guess(std::span<DraftQuery> queries) override;
  void forget(uint64_t sequence) override;

 private:
  struct State {
    std::vector<int32_t> ids;  // whose keys and values the cache has
    std::vector<int32_t> block_table;
  };
  // A sequence while it is guessed for.
  struct Guessing {
    DraftQuery* query;
    State* state;
    std::vector<int32_t> ids;  // history and guesses
  };
  bool begin(DraftQuery& query, Guessing& guessing);
  // Runs what the cache lacks of each, and draws a token for each.
  void advance(std::vector<Guessing>& guessing);
  void draw(std::vector<Guessing*>& complete, const StepBatch& batch);

  Model& model_;
  int64_t max_tokens_;
  KvCache cache_;
  BlockPool blocks_;
  Sampler sampler_;
  std::unordered_map<uint64_t, State> states_;
  std::vector<float> logits_;
};

}  // namespace lowbit
