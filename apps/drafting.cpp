#include "drafting.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/engine/model_drafter.h"
#include "lowbit/engine/ngram_drafter.h"
#include "lowbit/quantize/rtn.h"

namespace lowbit::app {

namespace {

constexpr int64_t kNgramTokens = 8, kModelTokens = 4;
constexpr int64_t kDraftKvBytes = int64_t{1} << 30;

// A checkpoint whose linears are rounded to fewer bits while they are loaded.
class LowBitCheckpoint : public Checkpoint {
 public:
  LowBitCheckpoint(const Checkpoint& base, int bits) : base_(base), bits_(bits) {}

  const std::string& path() const override { return base_.path(); }
  const std::string& format() const override { return base_.format(); }
  const Json& config() const override { return base_.config(); }
  const Json& generation_config() const override { return base_.generation_config(); }
  TokenizerSpec tokenizer() const override { return base_.tokenizer(); }
  const std::vector<TensorInfo>& tensors() const override { return base_.tensors(); }
  bool contains(const std::string& name) const override { return base_.contains(name); }
  std::vector<float> load_vector(const std::string& name, int64_t size) const override {
    return base_.load_vector(name, size);
  }
  void release(const std::string& module) const override { base_.release(module); }

  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override {
    LinearWeight linear = base_.load_linear(module, rows, cols);
    const bool of_block = module.find(".layers.") != std::string::npos;
    const int bits = of_block ? bits_ : std::max(bits_, 8);
    if (linear.weight.scheme.bits <= bits) return linear;
    const std::vector<float> weight = dequantize(linear.weight);
    const int64_t group = cols % 64 == 0 ? 64 : cols % 32 == 0 ? 32 : cols;
    linear.weight = Rtn(Rtn::Search::kScale)
                        .quantize({module, rows, cols, weight, &pool_}, int_scheme(bits, group));
    return linear;
  }

 private:
  const Checkpoint& base_;
  int bits_;
  mutable ThreadPool pool_;
};

int bits_of_self(const std::string& model) {
  static const std::string prefix = "self:w";
  const std::string digits = model.substr(prefix.size());
  const bool valid = digits.size() == 1 && digits[0] >= '2' && digits[0] <= '8';
  LOWBIT_CHECK(valid, "--draft ", model, ": write self:w2 to self:w8");
  return digits[0] - '0';
}

void check_same_vocabulary(const Tokenizer& target, const Tokenizer& draft, const Model& a,
                           const Model& b) {
  bool same =
      target.vocab_size() == draft.vocab_size() && a.config().vocab_size == b.config().vocab_size;
  for (int32_t id = 0; same && id < target.vocab_size(); ++id) {
    same = target.piece(id) == draft.piece(id);
  }
  LOWBIT_CHECK(same, "the drafting model has another vocabulary than the model it drafts for");
}

}  // namespace

void DraftOptions::add_to(CLI::App& command) {
  auto* ngram = command
                    .add_option("--speculative", speculative,
                                "Guess tokens ahead (same answers, sooner): ngram, or none")
                    ->check(CLI::IsMember({"none", "ngram"}))
                    ->capture_default_str();
  command
      .add_option("--draft", model,
                  "A model that guesses ahead, with the same vocabulary; self:w4 is the same one "
                  "in 4 bits")
      ->type_name("MODEL")
      ->excludes(ngram);
  command.add_option("--draft-max", max_tokens, "Tokens to guess at once (0: 8 for ngram, 4 else)")
      ->check(CLI::Range(int64_t{0}, int64_t{64}))
      ->capture_default_str();
}

Drafting::Drafting(const DraftOptions& options, const RunOptions& run, Session& session,
                   int64_t max_num_seqs)
    : options_(options), kv_dtype_(run.kv_dtype()) {
  if (options_.model.empty()) return;
  Model* draft = nullptr;
  if (options_.model.rfind("self:", 0) == 0) {
    const LowBitCheckpoint checkpoint(session.checkpoint(), bits_of_self(options_.model));
    ModelOptions model_options;
    model_options.context = session.model().context();
    model_options.max_batch = session.model().max_batch();
    self_ = std::make_unique<Model>(checkpoint, session.backend(), model_options);
    draft = self_.get();
  } else {
    session_ = std::make_unique<Session>(options_.model, run);
    draft = &session_->model();
    check_same_vocabulary(session.tokenizer(), session_->tokenizer(), session.model(), *draft);
  }
  const int64_t context_blocks = draft->context() / kBlockTokens + 1;
  const int64_t block_bytes = draft->config().kv_cache(1, kv_dtype_).bytes();
  kv_blocks_ = std::max(context_blocks,
                        std::min(context_blocks * max_num_seqs, kDraftKvBytes / block_bytes));
}

Drafting::~Drafting() = default;

std::unique_ptr<Drafter> Drafting::make() {
  const int64_t asked = options_.max_tokens;
  if (self_ != nullptr || session_ != nullptr) {
    Model& draft = self_ != nullptr ? *self_ : session_->model();
    return std::make_unique<ModelDrafter>(draft, asked > 0 ? asked : kModelTokens, kv_blocks_,
                                          kv_dtype_);
  }
  if (options_.speculative == "ngram") {
    return std::make_unique<NgramDrafter>(asked > 0 ? asked : kNgramTokens);
  }
  return nullptr;
}

void print_acceptance(uint64_t draft_tokens, uint64_t accepted_tokens, uint64_t generated,
                      std::FILE* out) {
  if (draft_tokens == 0) return;
  const auto drafted = static_cast<double>(draft_tokens);
  const auto accepted = static_cast<double>(accepted_tokens);
  const auto tokens = static_cast<double>(generated);
  std::fprintf(out, "speculation: %.0f of %.0f guesses right (%.1f %%), %.2f tokens a step\n",
               accepted, drafted, 100 * accepted / drafted,
               tokens / std::max(tokens - accepted, 1.0));
}

}  // namespace lowbit::app
