#include "lowbit/quantize/device_blocks.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/quantize/calibrated_blocks.h"

namespace lowbit {

namespace {

// Of a pass: what the backend's largest products like. Hessians are summed in pieces of so many.
constexpr int64_t kPassTokens = 8192;

}  // namespace

DeviceBlocks::DeviceBlocks(QuantizeDevice& device, const Checkpoint& checkpoint,
                           const ModelConfig& config, const CalibrationData& data, ThreadPool& pool)
    : device_(device),
      checkpoint_(checkpoint),
      config_(config),
      data_(data),
      pool_(pool),
      learning_(make_learning("cpu", pool)),
      samples_(static_cast<int64_t>(data.windows.size())),
      length_(static_cast<int64_t>(data.windows.front().size())),
      most_(std::clamp<int64_t>(kPassTokens / length_, 1, samples_)),
      pass_(device.backend(), config, length_, most_) {
  Backend& backend = device.backend();
  std::vector<LinearWeight> parts;
  parts.push_back(load_embedding(checkpoint, config));
  const std::string name = parts.front().name;
  const std::unique_ptr<Linear> embedding = backend.make_linear(std::move(parts));
  for (int64_t first = 0; first < samples_; first += most_) {
    const std::vector<int32_t> tokens = tokens_of(first, std::min(most_, samples_ - first));
    states_.push_back(backend.allocate(static_cast<int64_t>(tokens.size()), config.hidden_size));
    embedding->embed(tokens, states_.back());
  }
  checkpoint.release(name);
}

std::vector<int32_t> DeviceBlocks::tokens_of(int64_t first, int64_t count) const {
  std::vector<int32_t> tokens;
  for (int64_t s = first; s < first + count; ++s) {
    for (const int32_t id : data_.windows[s]) {
      LOWBIT_CHECK_KIND(id >= 0 && id < config_.vocab_size, ErrorKind::kCorruptFile,
                        "the tokenizer gives id ", id, ", the model has ", config_.vocab_size);
      tokens.push_back(id);
    }
  }
  return tokens;
}

void DeviceBlocks::for_passes(const std::function<void(Tensor& states)>& body) {
  for (size_t i = 0; i < states_.size(); ++i) {
    // All but the last have as many sequences.
    if (i == 0 || i + 1 == states_.size()) {
      const auto first = static_cast<int64_t>(i) * most_;
      pass_.begin(tokens_of(first, std::min(most_, samples_ - first)));
    }
    body(states_[i]);
  }
}

BlockResult DeviceBlocks::quantize(const BlockQuantizer& quantizer, int64_t index,
                                   const std::array<LinearWeight, kBlockLinears>& weights,
                                   const BlockSchemes& schemes,
                                   const std::function<void(double, const std::string&)>& progress,
                                   const std::function<void(const std::string&)>& notice) {
  BlockWeights outline;  // without the weights themselves
  for (size_t i = 0; i < kBlockLinears; ++i) {
    const LinearWeight& weight = weights[i];
    outline.linears[i] = {weight.name, weight.weight.rows, weight.weight.cols, {}, weight.bias};
  }
  DeviceBlock on_device{device_, weights, [&](const BackendBlock::Observer& observer) {
                          const BackendBlock block(device_.backend(), config_, checkpoint_, index,
                                                   weights);
                          double done = 0;
                          for_passes([&](Tensor& states) {
                            block.observe(pass_, states, observer);
                            progress(++done / static_cast<double>(states_.size()), "");
                          });
                        }};
  BlockJob job{.index = index,
               .block = outline,
               .schemes = schemes,
               .rope = nullptr,
               .device = &on_device,
               .pool = pool_,
               .learning = *learning_,
               .progress = progress,
               .notice = notice};
  return quantizer.quantize(job);
}

void DeviceBlocks::advance(const Checkpoint& written, int64_t index) {
  const BackendBlock block(device_.backend(), config_, written, index,
                           load_block_linears(written, config_, index));
  for_passes([&](Tensor& states) { block.forward(pass_, states); });
}

}  // namespace lowbit
