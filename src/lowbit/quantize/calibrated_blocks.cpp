#include "lowbit/quantize/calibrated_blocks.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"
#include "lowbit/quantize/parallel_copy.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

// How a draft keeps what was learned of a linear: tensors beside those of the weight itself.
struct StateTensor {
  const char* name;
  const char* dtype;
  std::vector<float> RoundingState::*values;
  bool asymmetric;  // there only then
};
constexpr StateTensor kStateTensors[] = {
    {"offsets", "F16", &RoundingState::offsets, false},
    {"first", "F32", &RoundingState::first, false},
    {"stretch", "F32", &RoundingState::stretch, false},
    {"second", "F32", &RoundingState::second, true},
    {"shrink_high", "F32", &RoundingState::shrink_high, true},
};

std::string state_name(const std::string& linear, const StateTensor& tensor) {
  return concat(linear, ".learned.", tensor.name);
}

void write_state(const std::string& linear, const RoundingState& state, PartWriter& part) {
  for (const StateTensor& tensor : kStateTensors) {
    const std::vector<float>& values = state.*tensor.values;
    if (values.empty()) continue;
    const RowEncoder& encoder = row_encoder(tensor.dtype);
    const auto count = static_cast<int64_t>(values.size());
    std::vector<uint8_t> bytes(static_cast<size_t>(encoder.row_bytes(count)));
    encoder.encode(values, bytes.data());
    part.begin(state_name(linear, tensor), tensor.dtype, {count});
    part.write(bytes);
  }
}

RoundingState read_state(const Checkpoint& draft, const BlockWeights::Linear& linear,
                         const QuantScheme& scheme) {
  RoundingState state;
  const int64_t groups = linear.rows * linear.cols / scheme.group_size;
  for (const StateTensor& tensor : kStateTensors) {
    if (tensor.asymmetric && scheme.zero == Zero::kNone) continue;
    const bool offsets = tensor.values == &RoundingState::offsets;
    state.*tensor.values = draft.load_vector(state_name(linear.name, tensor),
                                             offsets ? linear.rows * linear.cols : groups);
  }
  return state;
}

}  // namespace

LinearWeight load_embedding(const Checkpoint& checkpoint, const ModelConfig& config) {
  const std::string module = "model.embed_tokens";
  // A model with tied weights may store them as the head.
  const bool stored = checkpoint.contains(module + ".weight");
  return checkpoint.load_linear(stored || !config.tie_word_embeddings ? module : "lm_head",
                                config.vocab_size, config.hidden_size);
}

void embed_samples(const Checkpoint& checkpoint, const ModelConfig& config,
                   const CalibrationData& data, const std::vector<HiddenStates*>& states,
                   ThreadPool& pool) {
  const LinearWeight weight = load_embedding(checkpoint, config);
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
  checkpoint.release(weight.name);
}

CalibratedBlocks::CalibratedBlocks(const OutputJob& job, Output& output, WorkFolder& work,
                                   const CalibrationData& data)
    : job_(job),
      output_(output),
      work_(work),
      data_(data),
      refines_(quantize_method(job.options.method).refines),
      learning_(make_learning(job.device != nullptr ? "cpu" : job.options.backend, job.pool)),
      quantizer_(quantize_method(job.options.method).make_block(job.options.method_options)),
      needs_(quantizer_->needs()),
      samples_(static_cast<int64_t>(data.windows.size())),
      tokens_(samples_ == 0 ? 1 : static_cast<int64_t>(data.windows.front().size())),
      rope_(std::make_shared<RopeTables>(
          rope_tables(job.config.rope, job.config.head_dim, tokens_))) {
  if (job.device != nullptr) {
    on_device_ =
        std::make_unique<DeviceBlocks>(*job.device, job.checkpoint, job.config, data, job.pool);
    return;
  }
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
  LOWBIT_CHECK(!refines_ || (target_ && !original_), job.options.method,
               " refines without the original model's outputs");
  if (!states.empty()) embed_samples(job.checkpoint, job.config, data, states, job.pool);
}

std::unique_ptr<HiddenStates> CalibratedBlocks::make_states(const char* name) const {
  const fs::path spill = spill_ ? work_.part_path(name) : fs::path();
  return std::make_unique<HiddenStates>(samples_, tokens_, job_.config.hidden_size, spill);
}

void CalibratedBlocks::run(BlockWeights weights, const HiddenStates& from, HiddenStates& to) {
  learning_->forward(std::move(weights), rope_, from, to);
}

BlockSchemes CalibratedBlocks::schemes_of(const PlanUnit& unit, int64_t index) const {
  BlockSchemes schemes;
  size_t next = 0;
  for (const std::vector<LinearSlot>& group : block_linears(job_.config, index)) {
    for (const LinearSlot& slot : group) {
      for (const PlanItem& item : unit.items) {
        if (item.name == slot.module) schemes[next] = output_.scheme(item);
      }
      ++next;
    }
  }
  return schemes;
}

// Once for the run, not once for each block.
void CalibratedBlocks::note(const std::string& message) {
  if (notices_.empty()) notices_.push_back(message);
}

Part CalibratedBlocks::write_on_device(const PlanUnit& unit, int64_t index, const Report& report) {
  const auto weights = load_block_linears(job_.checkpoint, job_.config, index);
  BlockResult result =
      on_device_->quantize(*quantizer_, index, weights, schemes_of(unit, index), report,
                           [this](const std::string& message) { note(message); });
  PartWriter part(work_.part_path(unit.name), unit.name);
  for (const PlanItem& item : unit.items) {
    if (item.kind == PlanItem::Kind::kVector) {
      output_.write_vector(item, job_.checkpoint.load_vector(item.name, item.rows), part);
    }
    for (size_t i = 0; i < kBlockLinears; ++i) {
      if (weights[i].name != item.name) continue;
      if (item.quantize) {
        output_.write_quantized(item, result[i], weights[i].bias, part);
      } else {
        output_.write_matrix(item, weights[i], part);
      }
      job_.checkpoint.release(item.name);
    }
  }
  return part.finish();
}

Part CalibratedBlocks::write(const PlanUnit& unit, int64_t index, const Report& report) {
  if (on_device_) return write_on_device(unit, index, report);
  BlockWeights block = load_block_weights(job_.checkpoint, job_.config, index);
  if (needs_.target) {
    run(block, original_ ? *original_ : *target_, *target_);
  }
  if (target_) target_index_ = index;  // from here on, or from when the method is done
  BlockJob job{.index = index,
               .block = block,
               .schemes = schemes_of(unit, index),
               .rope = rope_,
               .quantized_input = quantized_.get(),
               .original_input = original_.get(),
               .target = needs_.target ? target_.get() : nullptr,
               .output = needs_.output ? target_.get() : nullptr,
               .pool = job_.pool,
               .learning = *learning_,
               .seed = job_.options.method_options.seed * 1'000'003 + static_cast<uint64_t>(index),
               .progress = report,
               .notice = [this](const std::string& message) { note(message); }};
  BlockRoundings roundings;
  if (refines_) job.roundings = &roundings;
  const BlockResult result = quantizer_->quantize(job);
  PartWriter part(work_.part_path(unit.name), unit.name);
  write_block(unit, block, result, part);
  for (size_t i = 0; i < kBlockLinears; ++i) write_state(block.linears[i].name, roundings[i], part);
  return part.finish();
}

void CalibratedBlocks::refine(const std::vector<PlanUnit>& drafts, const Report& report) {
  quantized_.reset();
  refinement_ = learning_->refinement({job_.checkpoint, job_.config, data_, *target_, rope_,
                                       job_.pool, job_.options.method_options.seed, report});
  for (size_t index = 0; index < drafts.size(); ++index) {
    const PlanUnit& draft = drafts[index];
    const auto written = output_.open_part({*work_.find(draft.name), work_.part_path(draft.name)});
    BlockWeights block = load_block_weights(job_.checkpoint, job_.config, index);
    const BlockSchemes schemes = schemes_of(draft, static_cast<int64_t>(index));
    BlockRoundings roundings;
    for (size_t i = 0; i < kBlockLinears; ++i) {
      if (schemes[i].dense()) continue;
      roundings[i] = read_state(*written, block.linears[i], schemes[i]);
    }
    refinement_->add_block(std::move(block), schemes, std::move(roundings));
  }
  refinement_->run(job_.options.method_options.refine);
}

Part CalibratedBlocks::write_refined(const PlanUnit& unit, int64_t index) {
  PartWriter part(work_.part_path(unit.name), unit.name);
  write_block(unit, refinement_->original(index), refinement_->result(index), part);
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
  if (on_device_) {
    const auto written = output_.open_part({*work_.find(unit.name), work_.part_path(unit.name)});
    return on_device_->advance(*written, index);
  }
  if (original_ || (needs_.target && target_index_ != index)) {
    HiddenStates& states = original_ ? *original_ : *target_;
    if (original_ && target_index_ == index) {
      for (int64_t s = 0; s < samples_; ++s) {
        parallel_copy(job_.pool, target_->sample(s), states.sample(s));
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
