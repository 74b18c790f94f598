#include "lowbit/checkpoint/formats/compressed_tensors.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";
constexpr const char* kPacked = "pack-quantized";

bool detect(const Json& config) {
  return config.is_object() && config.contains("quant_method") &&
         config["quant_method"] == "compressed-tensors";
}

bool quantized(const TensorSource& source, const std::string& module) {
  for (const char* part : {".weight_packed", ".weight_scale", ".weight_g_idx"}) {
    if (source.contains(module + part)) return true;
  }
  return false;
}

void refuse(const std::string& module, const std::string& what) {
  fail(ErrorKind::kUnsupported, module, ": compressed-tensors with ", what,
       "; lowbit reads format ", kPacked, " without sparsity or transforms");
}

void check_supported(const TensorSource& source, const Json& config, const std::string& module) {
  const std::string format = json_string(config, "format", kPacked, kConfig);
  const bool packed = source.contains(module + ".weight_packed");
  if (format != kPacked && !(format == "mixed-precision" && packed)) {
    refuse(module, concat("format ", format));
  }
  if (!packed) refuse(module, "a weight that is not packed");
  const auto sparsity = config.find("sparsity_config");
  if (sparsity != config.end() && sparsity->is_object() && !sparsity->empty()) {
    const std::string kind = json_string(*sparsity, "format", "dense", kConfig);
    if (kind != "dense") refuse(module, concat("sparsity ", kind));
  }
  const auto transform = config.find("transform_config");
  if (transform != config.end() && transform->is_object()) {
    const auto groups = transform->find("config_groups");
    if (groups != transform->end() && !groups->empty()) refuse(module, "weight transforms");
  }
}

struct WeightArgs {
  int bits = 0;
  int64_t group_size = 0;  // 0: not grouped
};

// Whether a config group names the module itself, not only its class or a pattern.
bool names(const Json& group, const std::string& module) {
  const auto targets = group.find("targets");
  return targets != group.end() && targets->is_array() &&
         std::find(targets->begin(), targets->end(), module) != targets->end();
}

// The "weights" arguments of the config group that names the module, else of every group: the
// module's own follow from its tensors.
std::vector<WeightArgs> weight_args(const Json& config, const std::string& module) {
  const auto groups = config.find("config_groups");
  LOWBIT_CHECK_KIND(groups != config.end() && groups->is_object(), ErrorKind::kCorruptFile, module,
                    ": quantization_config has no config_groups");
  std::vector<WeightArgs> all;
  for (const auto& group : *groups) {
    if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) continue;
    const Json& weights = group["weights"];
    if (json_string(weights, "type", "int", kConfig) != "int") continue;
    const int64_t bits = json_int(weights, "num_bits", 8, kConfig);
    LOWBIT_CHECK_KIND(bits >= 1 && bits <= 8, ErrorKind::kCorruptFile, kConfig, ": num_bits is ",
                      bits);
    const int64_t size = json_int(weights, "group_size", 0, kConfig);
    const WeightArgs args{static_cast<int>(bits), std::max<int64_t>(size, 0)};
    if (names(group, module)) return {args};
    all.push_back(args);
  }
  if (all.empty()) refuse(module, "no integer weights");
  return all;
}

// How codes are laid in words: dense, or 32 / bits to a word (before May 2026).
struct Packing {
  int bits = 0;
  bool dense = true;

  int64_t words(int64_t count) const {
    const int64_t per_word = 32 / bits;
    return dense ? words_for(count, bits) : (count + per_word - 1) / per_word;
  }
  uint32_t field(const uint8_t* words, int64_t index) const {
    if (dense) return unpack(words, index, bits);
    const int64_t per_word = 32 / bits;
    uint32_t word;
    std::memcpy(&word, words + index / per_word * 4, 4);
    return word >> (index % per_word * bits) & ((1u << bits) - 1);
  }
};

// The one packing of the config's widths that gives `words` words for `cols` codes.
Packing packing_of(const std::vector<WeightArgs>& all, int64_t cols, int64_t words,
                   const std::string& module) {
  std::optional<Packing> found;
  for (const bool dense : {true, false}) {
    for (const WeightArgs& args : all) {
      const Packing packing{args.bits, dense};
      if (packing.words(cols) != words) continue;
      LOWBIT_CHECK_KIND(!found || found->bits == args.bits, ErrorKind::kUnsupported, module,
                        ": its shape fits ", found->bits, " and ", args.bits, " bits");
      if (!found) found = packing;
    }
  }
  LOWBIT_CHECK_KIND(found.has_value(), ErrorKind::kCorruptFile, module, ".weight_packed has ",
                    words, " words for ", cols, " columns, which fits no width in config_groups");
  return *found;
}

struct Stored {
  StoredTensor packed, scale;
  Packing packing;
  int64_t rows = 0, cols = 0, groups = 0, group_size = 0;
  bool per_tensor = false;  // one scale for all
};

// The group size of `groups` groups: one that the config states, or what divides evenly.
int64_t group_size_of(const std::vector<WeightArgs>& all, const Stored& stored,
                      const std::string& module) {
  if (stored.groups == 1) return stored.cols;
  for (const WeightArgs& args : all) {
    const int64_t size = args.group_size;
    if (args.bits == stored.packing.bits && size > 0 && size < stored.cols &&
        (stored.cols + size - 1) / size == stored.groups) {
      return size;
    }
  }
  fail(ErrorKind::kCorruptFile, module, ": ", stored.groups, " groups for ", stored.cols,
       " columns fit no group_size in config_groups");
}

Stored open_module(const TensorSource& source, const Json& config, const std::string& module) {
  Stored stored;
  stored.packed = typed_tensor(source, module + ".weight_packed", "I32");
  stored.scale = typed_tensor(source, module + ".weight_scale", "F16 BF16 F32");
  const StoredTensor shape = typed_tensor(source, module + ".weight_shape", "I64 I32");
  expect_shape(shape, {2});
  if (shape.dtype == "I64") {
    const std::vector<int64_t> extents = int64s_of(shape);
    stored.rows = extents[0], stored.cols = extents[1];
  } else {
    const std::vector<int32_t> extents = int32s_of(shape);
    stored.rows = extents[0], stored.cols = extents[1];
  }
  LOWBIT_CHECK_KIND(stored.rows > 0 && stored.rows <= limits::kVocabSize && stored.cols > 0 &&
                        stored.cols <= limits::kDimension,
                    ErrorKind::kCorruptFile, shape.name, " says ", stored.rows, " x ", stored.cols);
  const std::vector<WeightArgs> all = weight_args(config, module);
  LOWBIT_CHECK_KIND(stored.packed.shape.size() == 2, ErrorKind::kCorruptFile, stored.packed.name,
                    " has shape ", shape_text(stored.packed.shape), ", must be a matrix");
  stored.packing = packing_of(all, stored.cols, stored.packed.shape[1], module);
  expect_shape(stored.packed, {stored.rows, stored.packing.words(stored.cols)});

  const std::vector<int64_t>& scale = stored.scale.shape;
  stored.per_tensor = scale.empty() || scale == std::vector<int64_t>{1};
  LOWBIT_CHECK_KIND(stored.per_tensor || (scale.size() == 2 && scale[0] == stored.rows &&
                                          scale[1] > 0 && scale[1] <= stored.cols),
                    ErrorKind::kCorruptFile, stored.scale.name, " has shape ", shape_text(scale),
                    ", must be [1] or [", stored.rows, ", groups]");
  stored.groups = stored.per_tensor ? 1 : scale[1];
  stored.group_size = group_size_of(all, stored, module);
  return stored;
}

std::vector<uint8_t> read_codes(const Stored& stored) {
  const int bits = stored.packing.bits;
  const int64_t row_bytes = packed_bytes(stored.cols, bits);
  const int64_t stride = stored.packed.shape[1] * 4;
  std::vector<uint8_t> codes(static_cast<size_t>(stored.rows * row_bytes));
  for (int64_t n = 0; n < stored.rows; ++n) {
    const uint8_t* from = stored.packed.bytes.data + n * stride;
    uint8_t* to = codes.data() + n * row_bytes;
    if (stored.packing.dense) {
      std::memcpy(to, from, row_bytes);
    } else {
      for (int64_t k = 0; k < stored.cols; ++k) pack(to, k, bits, stored.packing.field(from, k));
    }
  }
  return codes;
}

// Zero points as codes, [scale rows][groups]; empty if symmetric.
std::vector<uint8_t> read_zeros(const TensorSource& source, const std::string& module,
                                const Stored& stored) {
  const std::string name = module + ".weight_zero_point";
  if (!source.contains(name)) return {};
  const StoredTensor tensor = typed_tensor(source, name, "I32 I8");
  const int bits = stored.packing.bits;
  const int64_t rows = stored.per_tensor ? 1 : stored.rows;
  std::vector<uint8_t> zeros(static_cast<size_t>(rows * stored.groups));
  if (tensor.dtype == "I8") {  // not packed: as early versions and strategy tensor have it
    if (!stored.per_tensor) expect_shape(tensor, {rows, stored.groups});
    LOWBIT_CHECK_KIND(tensor.bytes.size == zeros.size(), ErrorKind::kCorruptFile, name,
                      " has shape ", shape_text(tensor.shape));
    const int half = 1 << (bits - 1);
    for (size_t i = 0; i < zeros.size(); ++i) {
      const int zero = static_cast<int8_t>(tensor.bytes.data[i]) + half;
      LOWBIT_CHECK_KIND(zero >= 0 && zero < 2 * half, ErrorKind::kCorruptFile, name, ": ",
                        zero - half, " is no ", bits, "-bit code");
      zeros[i] = static_cast<uint8_t>(zero);
    }
    return zeros;
  }
  // Packed down the rows, dense or not as its own shape says.
  const bool dense = tensor.shape == std::vector<int64_t>{words_for(rows, bits), stored.groups};
  const Packing packing{bits, dense};
  expect_shape(tensor, {packing.words(rows), stored.groups});
  std::vector<uint8_t> column(static_cast<size_t>(packing.words(rows) * 4));
  for (int64_t g = 0; g < stored.groups; ++g) {
    for (int64_t w = 0; w < packing.words(rows); ++w) {
      std::memcpy(column.data() + w * 4, tensor.bytes.data + (w * stored.groups + g) * 4, 4);
    }
    for (int64_t n = 0; n < rows; ++n) {
      zeros[n * stored.groups + g] = static_cast<uint8_t>(packing.field(column.data(), n));
    }
  }
  return zeros;
}

QTensor outline(const TensorSource& source, const Stored& stored, const std::string& module) {
  QTensor weight;
  const bool zeros = source.contains(module + ".weight_zero_point");
  weight.scheme =
      int_scheme(stored.packing.bits, stored.group_size, zeros ? Zero::kInt : Zero::kNone);
  if (stored.per_tensor) weight.scheme.group_rows = static_cast<int>(stored.rows);
  weight.rows = stored.rows;
  weight.cols = stored.cols;
  return weight;
}

QTensor describe(const TensorSource& source, const Json& config, const std::string& module) {
  check_supported(source, config, module);
  return outline(source, open_module(source, config, module), module);
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  check_supported(source, config, module);
  const Stored stored = open_module(source, config, module);
  QTensor weight = outline(source, stored, module);
  weight.scales = floats_of(stored.scale);
  weight.zeros = read_zeros(source, module, stored);
  std::vector<uint8_t> codes = read_codes(stored);
  const std::string index = module + ".weight_g_idx";
  if (source.contains(index)) {
    const StoredTensor tensor = typed_tensor(source, index, "I32");
    expect_shape(tensor, {stored.cols});
    weight.input_order = order_of_groups(int32s_of(tensor), stored.group_size, index);
  }
  if (!weight.input_order.empty()) {
    codes =
        gather_columns(codes, stored.rows, stored.cols, stored.packing.bits, weight.input_order);
  }
  weight.codes = Bytes::own(std::move(codes));
  validate(weight, module);
  return weight;
}

StoredTensor write_codes(const std::string& module, const QTensor& weight) {
  const std::vector<uint8_t> codes = codes_by_input(weight);
  const int64_t words = words_for(weight.cols, weight.scheme.bits);
  std::vector<int32_t> packed(static_cast<size_t>(weight.rows * words));
  for (int64_t n = 0; n < weight.rows; ++n) {
    std::memcpy(packed.data() + n * words, codes.data() + n * weight.row_bytes(),
                weight.row_bytes());
  }
  return stored_int32s(module + ".weight_packed", {weight.rows, words}, packed);
}

StoredTensor write_zeros(const std::string& module, const QTensor& weight) {
  const int bits = weight.scheme.bits;
  const int64_t groups = weight.groups(), words = words_for(weight.rows, bits);
  std::vector<int32_t> packed(static_cast<size_t>(words * groups));
  for (int64_t g = 0; g < groups; ++g) {
    std::vector<uint8_t> column(static_cast<size_t>(words * 4));
    for (int64_t n = 0; n < weight.rows; ++n) {
      pack(column.data(), n, bits, weight.zeros[n * groups + g]);
    }
    for (int64_t w = 0; w < words; ++w) {
      std::memcpy(&packed[w * groups + g], column.data() + w * 4, 4);
    }
  }
  return stored_int32s(module + ".weight_zero_point", {words, groups}, packed);
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.group_rows == 1 && scheme.zero != Zero::kOffset,
               module, ": compressed-tensors holds integer codes of 1 to 8 bits with a scale for ",
               "each row, not ", name_of(scheme));
  std::vector<uint8_t> shape(16);
  std::memcpy(shape.data(), &weight.rows, 8);
  std::memcpy(shape.data() + 8, &weight.cols, 8);
  std::vector<StoredTensor> tensors = {
      write_codes(module, weight),
      stored_halfs(module + ".weight_scale", {weight.rows, weight.groups()}, weight.scales),
      {module + ".weight_shape", "I64", {2}, Bytes::own(std::move(shape))},
  };
  if (scheme.zero == Zero::kInt) tensors.push_back(write_zeros(module, weight));
  if (!weight.input_order.empty()) {
    tensors.push_back(
        stored_int32s(module + ".weight_g_idx", {weight.cols}, group_of_columns(weight)));
  }
  return tensors;
}

Json config_group(const QuantScheme& scheme, const Json& targets) {
  const bool grouped = scheme.group_size > 0;
  const Json weights = {{"num_bits", scheme.bits},
                        {"type", "int"},
                        {"symmetric", scheme.zero == Zero::kNone},
                        {"strategy", grouped ? "group" : "channel"},
                        {"group_size", grouped ? Json(scheme.group_size) : Json()},
                        {"block_structure", nullptr},
                        {"dynamic", false},
                        {"actorder", nullptr},
                        {"observer", "minmax"},
                        {"observer_kwargs", Json::object()}};
  return {{"targets", targets},
          {"weights", weights},
          {"input_activations", nullptr},
          {"output_activations", nullptr}};
}

Json config_of_groups(const Json& groups, const std::vector<std::string>& skipped) {
  // The version is of compressed-tensors' layout: 0.17 is the first that packs densely.
  return {{"quant_method", "compressed-tensors"},
          {"format", kPacked},
          {"quantization_status", "compressed"},
          {"version", "0.17.0"},
          {"config_groups", groups},
          {"ignore", skipped},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr}};
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  return config_of_groups({{"group_0", config_group(scheme, {"Linear"})}}, skipped);
}

Json mixed_config(std::span<const SchemeModules> schemes, const std::vector<std::string>& skipped) {
  Json groups = Json::object();
  for (const SchemeModules& group : schemes) {
    groups[concat("group_", groups.size())] = config_group(group.scheme, group.modules);
  }
  return config_of_groups(groups, skipped);
}

void describe_order(Json& config) {
  for (Json& group : config["config_groups"]) group["weights"]["actorder"] = "group";
}

}  // namespace

const CheckpointFormat kCompressedTensorsFormat = {
    .name = "compressed-tensors",
    .detect = detect,
    .quantized = quantized,
    .read = read,
    .write = write,
    .quantization_config = write_config,
    .describe = describe,
    .describe_order = describe_order,
    .mixed_config = mixed_config,
};

}  // namespace lowbit
