#include "lowbit/quantize/calibrated_blocks.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

void embed_samples(const Checkpoint& checkpoint, const ModelConfig& config,
                   const CalibrationData& data, const std::vector<HiddenStates*>& states,
                   ThreadPool& pool) {
  const std::string module = "model.embed_tokens";
  // A model with tied weights may store them as the head.
  const bool stored = checkpoint.contains(module + ".weight");
  const std::string from = stored || !config.tie_word_embeddings ? module : "lm_head";
  const LinearWeight weight = checkpoint.load_linear(from, config.vocab_size, config.hidden_size);
  pool.parallel_for(static_cast<int64_t>(data.windows.size()), [&](int64_t s, int) {
    for (HiddenStates* set : states) {
      float* out = set->sample(s).data();
      for (const int32_t id : data.windows[s]) {
        LOWBIT_CHECK_KIND(id < config.vocab_size, ErrorKind::kCorruptFile,
                          "the tokenizer gives id ", id, ", the model has ", config.vocab_size);
        dequantize_row(weight.weight, id, out);
        out += config.hidden_size;
      }
    }
  });
  checkpoint.release(from);
}

CalibratedBlocks::CalibratedBlocks(const OutputJob& job, Output& output, WorkFolder& work,
                                   const CalibrationData& data)
    : job_(job),
      output_(output),
      work_(work),
      quantizer_(quantize_method(job.options.method).make_block(job.options.method_options)),
      needs_(quantizer_->needs()),
      samples_(static_cast<int64_t>(data.windows.size())),
      tokens_(samples_ == 0 ? 1 : static_cast<int64_t>(data.windows.front().size())),
      rope_(std::make_shared<RopeTables>(
          rope_tables(job.config.rope, job.config.head_dim, tokens_))) {
  const bool target = needs_.target || needs_.output;
  const int64_t sets = needs_.quantized_input + needs_.original_input + target;
  spill_ = sets * samples_ * tokens_ * job.config.hidden_size * 4 > job.options.memory_bytes;
  if (needs_.quantized_input) quantized_ = make_states("quantized");
  if (needs_.original_input) original_ = make_states("original");
  if (target) target_ = make_states("target");
  std::vector<HiddenStates*> states;
  for (HiddenStates* set : {quantized_.get(), original_.get(), target_.get()}) {
    if (set != nullptr) states.push_back(set);
  }
  if (!states.empty()) embed_samples(job.checkpoint, job.config, data, states, job.pool);
}

std::unique_ptr<HiddenStates> CalibratedBlocks::make_states(const char* name) const {
  const fs::path spill = spill_ ? work_.part_path(name) : fs::path();
  return std::make_unique<HiddenStates>(samples_, tokens_, job_.config.hidden_size, spill);
}

void CalibratedBlocks::copy(std::span<const float> from, std::span<float> to) {
  constexpr size_t kShare = 1 << 16;
  const auto shares = static_cast<int64_t>((from.size() + kShare - 1) / kShare);
  job_.pool.parallel_for(shares, [&](int64_t share, int) {
    const size_t first = static_cast<size_t>(share) * kShare;
    const auto part = from.subspan(first, std::min(kShare, from.size() - first));
    std::copy(part.begin(), part.end(), to.begin() + static_cast<int64_t>(first));
  });
}

void CalibratedBlocks::run(BlockWeights weights, const HiddenStates& from, HiddenStates& to) {
  DecoderBlock block(std::move(weights), rope_, job_.pool);
  BlockTrace trace;
  std::vector<float> output(static_cast<size_t>(tokens_ * job_.config.hidden_size));
  for (int64_t s = 0; s < samples_; ++s) {
    block.forward({1, tokens_}, from.sample(s), trace, output);
    copy(output, to.sample(s));
  }
}

Part CalibratedBlocks::write(const PlanUnit& unit, int64_t index, const Report& report) {
  BlockWeights block = load_block_weights(job_.checkpoint, job_.config, index);
  if (needs_.target) {
    run(block, original_ ? *original_ : *target_, *target_);
  }
  if (target_) target_index_ = index;  // from here on, or from when the method is done
  BlockJob job{.index = index,
               .block = block,
               .schemes = {},
               .rope = rope_,
               .quantized_input = quantized_.get(),
               .original_input = original_.get(),
               .target = needs_.target ? target_.get() : nullptr,
               .output = needs_.output ? target_.get() : nullptr,
               .pool = job_.pool,
               .seed = job_.options.method_options.seed * 1'000'003 + static_cast<uint64_t>(index),
               .progress = report,
               .notice = [this](const std::string& message) {
                 // Once for the run, not once for each block.
                 if (notices_.empty()) notices_.push_back(message);
               }};
  for (int i = 0; i < kBlockLinears; ++i) {
    for (const PlanItem& item : unit.items) {
      if (item.name == block.linears[i].name) job.schemes[i] = output_.scheme(item);
    }
  }
  const BlockResult result = quantizer_->quantize(job);
  PartWriter part(work_.part_path(unit.name), unit.name);
  write_block(unit, block, result, part);
  return part.finish();
}

void CalibratedBlocks::write_block(const PlanUnit& unit, const BlockWeights& block,
                                   const BlockResult& result, PartWriter& part) {
  for (const PlanItem& item : unit.items) {
    if (item.kind == PlanItem::Kind::kVector) {
      const bool attention = item.name.ends_with("input_layernorm.weight");
      output_.write_vector(item,
                           item.name.ends_with("q_norm.weight")   ? block.q_norm
                           : item.name.ends_with("k_norm.weight") ? block.k_norm
                           : attention                            ? block.input_norm
                                                                  : block.post_attention_norm,
                           part);
      continue;
    }
    for (int i = 0; i < kBlockLinears; ++i) {
      const BlockWeights::Linear& linear = block.linears[i];
      if (linear.name != item.name) continue;
      if (item.quantize) {
        output_.write_quantized(item, result[i], linear.bias, part);
      } else {
        const QTensor weight = dense_f32(linear.weight, linear.rows, linear.cols);
        output_.write_matrix(item, {linear.name, weight, linear.bias}, part);
      }
    }
  }
}

void CalibratedBlocks::advance(const PlanUnit& unit, int64_t index) {
  if (original_ || (needs_.target && target_index_ != index)) {
    HiddenStates& states = original_ ? *original_ : *target_;
    if (original_ && target_index_ == index) {
      for (int64_t s = 0; s < samples_; ++s) {
        copy(target_->sample(s), states.sample(s));
      }
    } else {
      run(load_block_weights(job_.checkpoint, job_.config, index), states, states);
    }
  }
  if (!quantized_) return;
  const auto written = output_.open_part({*work_.find(unit.name), work_.part_path(unit.name)});
  run(load_block_weights(*written, job_.config, index), *quantized_, *quantized_);
}

}  // namespace lowbit
