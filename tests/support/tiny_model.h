// Tiny models whose weights come from a generator instead of a file: the one that
// tools/golden/tiny_models.py uses, so golden files hold only configs and logits.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/model.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit::test {

// splitmix64 seeded with FNV-1a of the name.
inline Random named_random(const std::string& name) {
  uint64_t seed = 0xcbf29ce484222325u;
  for (const char byte : name) seed = (seed ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  return Random(seed);
}

inline std::vector<float> tiny_values(const std::string& name, int64_t count) {
  Random random = named_random(name);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    const float unit = static_cast<float>(random.next() >> 48) / 65536.f;
    if (name.find("norm") != std::string::npos) {
      value = 0.75f + 0.5f * unit;
    } else if (name.find("embed_tokens") != std::string::npos) {
      value = 2.f * (unit - 0.5f);
    } else {
      value = 0.5f * (unit - 0.5f);
    }
  }
  return values;
}

inline std::vector<int32_t> tiny_prompt(int64_t count, int64_t vocab_size) {
  Random random = named_random("prompt");
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(random.next() % static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

// A checkpoint that generates whatever tensor it is asked for.
class TinyCheckpoint : public Checkpoint {
 public:
  explicit TinyCheckpoint(Json config, Json generation_config = nullptr)
      : config_(std::move(config)), generation_config_(std::move(generation_config)) {
    bf16_ = config_.value("torch_dtype", "") == "bfloat16";
    const ModelConfig model = parse_model_config(config_, generation_config_, path_);
    add("model.embed_tokens", model.vocab_size, model.hidden_size, false);
    if (!model.tie_word_embeddings) add("lm_head", model.vocab_size, model.hidden_size, false);
    for (int64_t i = 0; i < model.num_hidden_layers; ++i) {
      for (const auto& group : block_linears(model, i)) {
        for (const LinearSlot& slot : group) add(slot.module, slot.rows, slot.cols, slot.bias);
      }
    }
  }

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return generation_config_; }
  TokenizerSpec tokenizer() const override { fail(ErrorKind::kIo, "no tokenizer.json"); }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override {
    const auto found = linears_.find(module);
    LOWBIT_CHECK_KIND(found != linears_.end(), ErrorKind::kCorruptFile, path_, ": no ", module);
    LinearWeight linear = found->second;
    LOWBIT_CHECK_KIND(linear.weight.rows == rows && linear.weight.cols == cols,
                      ErrorKind::kCorruptFile, path_, ": shape of ", module);
    return linear;
  }
  std::vector<float> load_vector(const std::string& name, int64_t size) const override {
    return rounded(tiny_values(name, size));
  }
  void release(const std::string&) const override {}

  // To change what the generator made.
  LinearWeight& linear(const std::string& module) { return linears_.at(module); }
  void add(const std::string& module, int64_t rows, int64_t cols, bool bias) {
    LinearWeight linear;
    linear.name = module;
    linear.weight = dense_f32(rounded(tiny_values(module + ".weight", rows * cols)), rows, cols);
    if (bias) linear.bias = rounded(tiny_values(module + ".bias", rows));
    linears_[module] = std::move(linear);
    tensors_.push_back({module + ".weight", {rows, cols}, "F32", rows * cols * 4});
  }
  void remove(const std::string& module) {
    linears_.erase(module);
    std::erase_if(tensors_,
                  [&](const TensorInfo& info) { return info.name == module + ".weight"; });
  }

 private:
  std::vector<float> rounded(std::vector<float> values) const {
    if (bf16_) {
      for (float& value : values) value = bf16_to_f32(f32_to_bf16(value));
    }
    return values;
  }

  std::string path_ = "tiny";
  std::string format_ = "memory";
  Json config_;
  Json generation_config_;
  bool bf16_ = false;
  std::map<std::string, LinearWeight> linears_;
  std::vector<TensorInfo> tensors_;
};

struct TinyGolden {
  std::string name;
  Json config;
  std::vector<float> logits;  // [rows][vocab_size]
};
struct TinyGoldens {
  std::vector<int32_t> rows;  // of the prompt
  int64_t prompt_tokens = 0;
  std::vector<TinyGolden> models;

  const TinyGolden& model(const std::string& name) const {
    for (const TinyGolden& golden : models) {
      if (golden.name == name) return golden;
    }
    fail(ErrorKind::kInvalidArgument, "no golden model ", name);
  }
};

inline const TinyGoldens& tiny_goldens() {
  static const TinyGoldens goldens = [] {
    const Json json = read_json(golden("tiny_models.json"));
    TinyGoldens result;
    result.rows = json["rows"].get<std::vector<int32_t>>();
    result.prompt_tokens = json["prompt_tokens"].get<int64_t>();
    for (const Json& model : json["models"]) {
      result.models.push_back(
          {model["name"], model["config"], model["logits"].get<std::vector<float>>()});
    }
    return result;
  }();
  return goldens;
}

// Logits of every position of `ids` as one sequence, run in chunks of the given sizes (the last
// repeats), [ids.size()][vocab_size].
inline std::vector<float> run_chunks(Model& model, const std::vector<int32_t>& ids,
                                     const std::vector<int64_t>& chunks,
                                     DType kv_dtype = DType::kF32) {
  const auto total = static_cast<int64_t>(ids.size());
  const int64_t blocks = (total + kBlockTokens - 1) / kBlockTokens;
  KvCache cache = model.make_kv_cache(blocks, kv_dtype);
  std::vector<int32_t> table;
  for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(blocks - 1 - i));
  std::vector<float> logits;
  size_t next = 0;
  for (int64_t position = 0; position < total;) {
    const int64_t count = std::min(total - position, chunks[std::min(next++, chunks.size() - 1)]);
    StepBatch batch;
    batch.tokens.assign(ids.begin() + position, ids.begin() + position + count);
    batch.sequences = {{0, count, position, table}};
    for (int64_t i = 0; i < count; ++i) batch.logit_rows.push_back(static_cast<int32_t>(i));
    const Tensor out = model.forward(batch, cache);
    std::vector<float> part(static_cast<size_t>(out.size()));
    model.backend().copy_to_host(out, part);
    logits.insert(logits.end(), part.begin(), part.end());
    position += count;
  }
  return logits;
}

}  // namespace lowbit::test
