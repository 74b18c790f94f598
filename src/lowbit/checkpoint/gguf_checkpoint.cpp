#include "lowbit/checkpoint/gguf_checkpoint.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/ggml_types.h"
#include "lowbit/checkpoint/gguf.h"
#include "lowbit/checkpoint/gguf_config.h"
#include "lowbit/checkpoint/gguf_names.h"
#include "lowbit/checkpoint/gguf_tokenizer.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/checkpoint/problems.h"

namespace lowbit {

namespace {

// One file of a model.
struct Part {
  std::shared_ptr<MappedFile> file;
  GgufContents contents;
};

Part open_part(const std::string& path) {
  Part part;
  part.file = std::make_shared<MappedFile>(path);
  part.contents = parse_gguf(part.file->bytes(), path);
  part.file->check();
  return part;
}

// All parts; a file that is not split is the only one.
std::vector<Part> open_parts(const std::string& path) {
  std::vector<Part> parts;
  parts.push_back(open_part(path));
  const GgufMetadata& metadata = parts.front().contents.metadata;
  const int64_t count = metadata.get_int("split.count", 1);
  if (count <= 1) return parts;
  LOWBIT_CHECK_KIND(count <= static_cast<int64_t>(limits::kShardCount), ErrorKind::kCorruptFile,
                    path, ": split into ", count, " files");
  char ending[64];
  std::snprintf(ending, sizeof(ending), "-00001-of-%05d.gguf", static_cast<int>(count));
  const size_t base = path.size() - std::min(path.size(), std::strlen(ending));
  LOWBIT_CHECK_KIND(
      path.compare(base, std::string::npos, ending) == 0 && metadata.get_int("split.no", 0) == 0,
      ErrorKind::kInvalidArgument, path, ": one of ", count,
      " parts; name the first, whose name ends in ", ending);
  Problems missing;
  for (int i = 2; i <= static_cast<int>(count); ++i) {
    std::snprintf(ending, sizeof(ending), "-%05d-of-%05d.gguf", i, static_cast<int>(count));
    const std::string sibling = path.substr(0, base) + ending;
    if (!path_exists(sibling)) {
      missing.add(sibling, " is missing");
      continue;
    }
    parts.push_back(open_part(sibling));
    LOWBIT_CHECK_KIND(parts.back().contents.metadata.get_int("split.no", -1) == i - 1,
                      ErrorKind::kCorruptFile, sibling, ": is not part ", i, " of the model");
  }
  missing.check(ErrorKind::kIo, path + ": parts are absent; fetch them (again)");
  return parts;
}

// Rows of `row_bytes` bytes in another order.
Bytes gather_rows(const Bytes& rows, size_t row_bytes, const std::vector<int64_t>& order) {
  std::vector<uint8_t> gathered(rows.size);
  for (size_t i = 0; i < order.size(); ++i) {
    std::memcpy(gathered.data() + i * row_bytes,
                rows.data + static_cast<size_t>(order[i]) * row_bytes, row_bytes);
  }
  return Bytes::own(std::move(gathered));
}

class GgufCheckpoint final : public Checkpoint {
 public:
  explicit GgufCheckpoint(const std::string& path) : path_(path), parts_(open_parts(path)) {
    index_tensors();
    if (places_.empty()) return;
    check_types();
    config_ = gguf_config(metadata(), facts());
    permutes_rows_ = gguf_permutes_rows(metadata().get_string("general.architecture"));
    const auto head_dim = config_["head_dim"].get<int64_t>();
    LOWBIT_CHECK_KIND(!permutes_rows_ || head_dim % 2 == 0, ErrorKind::kCorruptFile, path_,
                      ": heads of ", head_dim, " dimensions; rotation needs pairs");
  }

  const std::string& path() const override { return path_; }
  const std::string& format() const override { return format_; }
  const Json& config() const override {
    LOWBIT_CHECK_KIND(!places_.empty(), ErrorKind::kUnsupported, path_,
                      ": holds no weights of a language model (a vocabulary only?)");
    return config_;
  }
  const Json& generation_config() const override { return generation_config_; }
  TokenizerSpec tokenizer() const override { return tokenizer_from_gguf(metadata()); }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  bool contains(const std::string& name) const override { return places_.count(name) != 0; }

  LinearWeight load_linear(const std::string& module, int64_t rows, int64_t cols) const override {
    const Place& place = find(module + ".weight", {rows, cols});
    const GgmlType& type = *ggml_type(place.tensor->type);
    Bytes blocks = bytes(place);
    if (permuted(module)) {
      blocks =
          gather_rows(blocks, blocks.size / static_cast<size_t>(rows), row_order(module, rows));
    }
    LinearWeight linear;
    linear.name = module;
    linear.weight = type.read(std::move(blocks), rows, cols);
    validate(linear.weight, concat(file(place), ": tensor \"", place.tensor->name, "\""));
    if (contains(module + ".bias")) linear.bias = load_vector(module + ".bias", rows);
    check();
    return linear;
  }

  std::vector<float> load_vector(const std::string& name, int64_t size) const override {
    const Place& place = find(name, {size});
    std::vector<float> values =
        dequantize(ggml_type(place.tensor->type)->read(bytes(place), 1, size));
    for (const float value : values) {
      LOWBIT_CHECK_KIND(std::isfinite(value), ErrorKind::kCorruptFile, file(place), ": tensor \"",
                        place.tensor->name, "\" holds ", value,
                        "; fetch or convert the model again");
    }
    const std::string module = name.substr(0, name.rfind('.'));
    if (permuted(module)) {
      const std::vector<float> stored = values;
      const std::vector<int64_t> order = row_order(module, size);
      for (size_t i = 0; i < order.size(); ++i) values[i] = stored[static_cast<size_t>(order[i])];
    }
    check();
    return values;
  }

  void release(const std::string& module) const override {
    for (const char* leaf : {".weight", ".bias"}) {
      const auto it = places_.find(module + leaf);
      if (it == places_.end()) continue;
      parts_[it->second.part].file->release(it->second.tensor->begin, it->second.tensor->size);
    }
    check();
  }

 private:
  struct Place {
    size_t part;
    const GgufTensor* tensor;
  };

  const GgufMetadata& metadata() const { return parts_.front().contents.metadata; }
  std::string file(const Place& place) const { return parts_[place.part].file->path().string(); }
  Bytes bytes(const Place& place) const {
    const Part& part = parts_[place.part];
    return Bytes::view(part.file, part.file->data() + place.tensor->begin, place.tensor->size);
  }
  void check() const {
    for (const Part& part : parts_) part.file->check();
  }

  void index_tensors() {
    for (size_t i = 0; i < parts_.size(); ++i) {
      for (const GgufTensor& tensor : parts_[i].contents.tensors) {
        const std::string name = hf_tensor_name(tensor.name);
        if (name.empty()) continue;
        LOWBIT_CHECK_KIND(places_.emplace(name, Place{i, &tensor}).second, ErrorKind::kCorruptFile,
                          path_, ": tensor \"", tensor.name, "\" is in two parts");
        tensors_.push_back({name,
                            {tensor.ne.rbegin(), tensor.ne.rend()},
                            ggml_type(tensor.type)->name,
                            static_cast<int64_t>(tensor.size)});
      }
    }
  }

  void check_types() const {
    Problems unreadable;
    for (const auto& [name, place] : places_) {
      const GgmlType& type = *ggml_type(place.tensor->type);
      if (type.read == nullptr) unreadable.add(place.tensor->name, " is ", type.name);
    }
    unreadable.check(ErrorKind::kUnsupported,
                     path_ +
                         ": tensors of types that lowbit does not read (use a file in F32, F16, "
                         "BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K or IQ4_NL)");
  }

  GgufFacts facts() const {
    GgufFacts facts;
    const auto embedding = places_.find("model.embed_tokens.weight");
    LOWBIT_CHECK_KIND(embedding != places_.end() && embedding->second.tensor->ne.size() == 2,
                      ErrorKind::kCorruptFile, path_,
                      ": tensor \"token_embd.weight\" is missing or not a matrix");
    facts.vocab_size = embedding->second.tensor->ne[1];
    facts.tied = !contains("lm_head.weight");
    facts.attention_bias = contains("model.layers.0.self_attn.q_proj.bias");
    facts.mlp_bias = contains("model.layers.0.mlp.up_proj.bias");
    facts.rope_factors = rope_factors();
    return facts;
  }

  std::vector<double> rope_factors() const {
    for (size_t i = 0; i < parts_.size(); ++i) {
      for (const GgufTensor& tensor : parts_[i].contents.tensors) {
        if (tensor.name != "rope_freqs.weight") continue;
        const Place place{i, &tensor};
        const int64_t count = tensor.ne[0];
        LOWBIT_CHECK_KIND(std::string(ggml_type(tensor.type)->name) == "F32" &&
                              tensor.ne.size() == 1 && count <= limits::kDimension,
                          ErrorKind::kCorruptFile, file(place),
                          ": tensor \"rope_freqs.weight\" must be an F32 vector");
        const std::vector<float> values =
            dequantize(ggml_type("F32")->read(bytes(place), 1, count));
        for (const float value : values) {
          LOWBIT_CHECK_KIND(std::isfinite(value) && value > 0, ErrorKind::kCorruptFile, file(place),
                            ": tensor \"rope_freqs.weight\" holds ", value);
        }
        return {values.begin(), values.end()};
      }
    }
    return {};
  }

  bool permuted(const std::string& module) const {
    return permutes_rows_ && (ends_with(module, ".q_proj") || ends_with(module, ".k_proj"));
  }
  std::vector<int64_t> row_order(const std::string& module, int64_t rows) const {
    const auto head_dim = config_["head_dim"].get<int64_t>();
    LOWBIT_CHECK_KIND(rows % head_dim == 0, ErrorKind::kCorruptFile, path_, ": ", module, " has ",
                      rows, " rows, which are not whole heads of ", head_dim);
    return gguf_rows_in_hf_order(rows, head_dim);
  }

  const Place& find(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto it = places_.find(name);
    LOWBIT_CHECK_KIND(it != places_.end(), ErrorKind::kCorruptFile, path_, ": tensor \"",
                      gguf_tensor_name(name), "\" (", name,
                      ") is missing; fetch or convert the model again");
    const std::vector<int64_t>& ne = it->second.tensor->ne;
    const std::vector<int64_t> found(ne.rbegin(), ne.rend());
    LOWBIT_CHECK_KIND(found == shape, ErrorKind::kCorruptFile, file(it->second), ": tensor \"",
                      it->second.tensor->name, "\" has shape ", dump_json(Json(found)),
                      ", the metadata says ", dump_json(Json(shape)));
    return it->second;
  }

  std::string path_;
  std::string format_ = "gguf";
  std::vector<Part> parts_;
  std::map<std::string, Place> places_;  // by HF name
  std::vector<TensorInfo> tensors_;
  Json config_;
  Json generation_config_;
  bool permutes_rows_ = false;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const std::string& path) {
  return std::make_unique<GgufCheckpoint>(path);
}

}  // namespace lowbit
