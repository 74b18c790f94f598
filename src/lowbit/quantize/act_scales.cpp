#include "lowbit/quantize/act_scales.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/checkpoint/torch_file.h"
#include "lowbit/quantize/calibrated_blocks.h"

namespace lowbit {

namespace {

std::map<std::string, StoredTensor> read_tensors(const fs::path& path) {
  const MappedFile file(path);
  const bool zip = file.size() >= 2 && file.data()[0] == 'P' && file.data()[1] == 'K';
  if (zip) return read_torch_file(path);
  const SafetensorsFile safetensors(path);
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, entry] : safetensors.header().tensors) {
    tensors[name] = safetensors.tensor(name);
  }
  return tensors;
}

// maxima[k] = max(maxima[k], |x[t][k]|)
void raise(const std::vector<float>& x, std::vector<float>& maxima) {
  for (size_t row = 0; row < x.size(); row += maxima.size()) {
    for (size_t k = 0; k < maxima.size(); ++k) {
      maxima[k] = std::max(maxima[k], std::fabs(x[row + k]));
    }
  }
}

// Of what enters the head: the last block's output, normalized.
std::vector<float> head_scales(const Checkpoint& checkpoint, const ModelConfig& config,
                               const HiddenStates& states) {
  const std::vector<float> weight = checkpoint.load_vector("model.norm.weight", config.hidden_size);
  std::vector<float> maxima(weight.size()), row(weight.size());
  for (int64_t s = 0; s < states.samples(); ++s) {
    const std::span<const float> sample = states.sample(s);
    for (size_t at = 0; at < sample.size(); at += row.size()) {
      double squares = 0;
      for (size_t k = 0; k < row.size(); ++k) squares += sample[at + k] * sample[at + k];
      const double mean = squares / static_cast<double>(row.size());
      const auto scale = static_cast<float>(1 / std::sqrt(mean + config.rms_norm_eps));
      for (size_t k = 0; k < row.size(); ++k) row[k] = sample[at + k] * scale * weight[k];
      raise(row, maxima);
    }
  }
  return maxima;
}

}  // namespace

ActScales read_act_scales(const fs::path& path) {
  ActScales scales;
  for (const auto& [name, tensor] : read_tensors(path)) {
    std::vector<float> values = floats_of(tensor);
    for (const float value : values) {
      LOWBIT_CHECK_KIND(std::isfinite(value) && value >= 0, ErrorKind::kCorruptFile, path.string(),
                        ": an activation scale of ", name, " is ", value);
    }
    scales[name] = std::move(values);
  }
  LOWBIT_CHECK_KIND(!scales.empty(), ErrorKind::kCorruptFile, path.string(),
                    " holds no activation scales");
  return scales;
}

void write_act_scales(const fs::path& path, const ActScales& scales) {
  std::vector<StoredTensor> tensors;
  for (const auto& [name, values] : scales) {
    tensors.push_back(stored_floats(name, {static_cast<int64_t>(values.size())}, values));
  }
  write_safetensors(path, std::move(tensors));
}

ActScales measure_act_scales(const Checkpoint& checkpoint, const ModelConfig& config,
                             const CalibrationData& data, ThreadPool& pool) {
  const auto samples = static_cast<int64_t>(data.windows.size());
  const auto tokens = static_cast<int64_t>(data.windows.front().size());
  HiddenStates states(samples, tokens, config.hidden_size);
  embed_samples(checkpoint, config, data, {&states}, pool);
  const auto rope = std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, tokens));
  ActScales scales;
  Progress progress("measuring", config.num_hidden_layers * samples, "samples x blocks");
  for (int64_t index = 0; index < config.num_hidden_layers; ++index) {
    DecoderBlock block(load_block_weights(checkpoint, config, index), rope, pool);
    for (const BlockWeights::Linear& linear : block.weights().linears) {
      scales[linear.name].resize(static_cast<size_t>(linear.cols));
    }
    BlockTrace trace;
    std::vector<float> output(static_cast<size_t>(tokens * config.hidden_size));
    for (int64_t s = 0; s < samples; ++s) {
      block.forward({1, tokens}, states.sample(s), trace, output);
      std::copy(output.begin(), output.end(), states.sample(s).begin());
      pool.parallel_for(kBlockLinears, [&](int64_t i, int) {
        const BlockWeights::Linear& linear = block.weights().linears[static_cast<size_t>(i)];
        raise(trace.input_of(static_cast<int>(i)), scales.at(linear.name));
      });
      progress.update(index * samples + s + 1);
    }
  }
  scales["lm_head"] = head_scales(checkpoint, config, states);
  return scales;
}

const std::vector<float>& act_scales_of(const ActScales& scales, const std::string& module,
                                        int64_t cols) {
  const auto it = scales.find(module);
  LOWBIT_CHECK(it != scales.end(), "the activation scales have none for ", module,
               "; make them for this model: lowbit act-scales");
  LOWBIT_CHECK(it->second.size() == static_cast<size_t>(cols), "the activation scales of ", module,
               " are ", it->second.size(), ", the model has ", cols,
               " columns; make them for this model: lowbit act-scales");
  return it->second;
}

}  // namespace lowbit
