#include "lowbit/checkpoint/formats/gptq.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/version.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr const char* kConfig = "quantization_config";

bool is_gptq_width(int64_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

// The first of `names` that the object has; writers do not agree on spelling.
int64_t int_of(const Json& config, std::initializer_list<const char*> names, int64_t fallback) {
  for (const char* name : names) {
    if (config.contains(name)) return json_int(config, name, fallback, kConfig);
  }
  return fallback;
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

bool detect(const Json& config) {
  return config.is_object() && config.contains("quant_method") &&
         config["quant_method"].is_string() &&
         lower(config["quant_method"].get<std::string>()) == "gptq";
}

bool quantized(const TensorSource& source, const std::string& module) {
  return source.contains(module + ".qweight");
}

// Whether zeros are stored as zero - 1 ("gptq") or as they are ("gptq_v2").
bool zeros_less_one(const Json& config, const std::string& module) {
  std::string layout = json_string(config, "checkpoint_format", "", kConfig);
  if (layout.empty()) layout = json_string(config, "format", "gptq", kConfig);
  layout = lower(layout);
  if (json_bool(config, "is_marlin_format", false, kConfig)) layout = "marlin";
  LOWBIT_CHECK_KIND(layout == "gptq" || layout == "gptq_v2", ErrorKind::kUnsupported, module,
                    ": GPTQ checkpoint in format \"", layout,
                    "\"; lowbit reads gptq and gptq_v2, convert it with GPTQModel");
  const std::string word = lower(json_string(config, "pack_dtype", "int32", kConfig));
  LOWBIT_CHECK_KIND(word == "int32" || word == "torch.int32", ErrorKind::kUnsupported, module,
                    ": codes packed in ", word, " words; lowbit reads int32");
  return layout == "gptq";
}

struct Stored {
  StoredTensor qweight, qzeros, scales;
  int bits = 0;
  int64_t rows = 0, cols = 0, groups = 0, group_size = 0;
};

int64_t group_size_of(const Json& config, const std::string& module, int64_t cols, int64_t groups) {
  const int64_t stated = int_of(config, {"group_size", "q_group_size"}, 128);
  const int64_t size = stated == -1 ? cols : stated;
  if (size > 0 && size <= cols && (cols + size - 1) / size == groups) return size;
  if (size > cols && groups == 1) return cols;
  // "dynamic" sets some modules apart: then their tensors say what the group size is.
  if (config.contains("dynamic") && cols % groups == 0) return cols / groups;
  fail(ErrorKind::kCorruptFile, module, ": ", groups, " groups for ", cols,
       " columns, but quantization_config says group_size ", stated);
}

// The scheme follows from the shapes; the config must agree.
Stored open_module(const TensorSource& source, const Json& config, const std::string& module) {
  zeros_less_one(config, module);  // refuses other layouts before their tensors puzzle us
  Stored stored;
  stored.qweight = typed_tensor(source, module + ".qweight", "I32");
  stored.qzeros = typed_tensor(source, module + ".qzeros", "I32");
  stored.scales = typed_tensor(source, module + ".scales", "F16 BF16 F32");
  for (const StoredTensor* tensor : {&stored.qweight, &stored.qzeros, &stored.scales}) {
    LOWBIT_CHECK_KIND(tensor->shape.size() == 2 && tensor->shape[0] > 0 && tensor->shape[1] > 0,
                      ErrorKind::kCorruptFile, tensor->name, " has shape ",
                      shape_text(tensor->shape));
  }
  stored.groups = stored.scales.shape[0];
  stored.rows = stored.scales.shape[1];
  const int64_t zero_bits = stored.qzeros.shape[1] * 32;
  const int64_t bits = zero_bits / stored.rows;
  LOWBIT_CHECK_KIND(is_gptq_width(bits) && bits * stored.rows == zero_bits, ErrorKind::kCorruptFile,
                    stored.qzeros.name, " has shape ", shape_text(stored.qzeros.shape), ", which ",
                    "does not hold zeros of 2, 3, 4 or 8 bits for ", stored.rows, " rows");
  const int64_t stated = int_of(config, {"bits", "w_bit", "wbits"}, bits);
  LOWBIT_CHECK_KIND(stated == bits || config.contains("dynamic"), ErrorKind::kCorruptFile, module,
                    " has ", bits, "-bit tensors, quantization_config says ", stated);
  stored.bits = static_cast<int>(bits);
  const int64_t code_bits = stored.qweight.shape[0] * 32;
  LOWBIT_CHECK_KIND(code_bits % bits == 0, ErrorKind::kCorruptFile, stored.qweight.name,
                    " has shape ", shape_text(stored.qweight.shape), ", which does not hold ", bits,
                    "-bit codes");
  stored.cols = code_bits / bits;
  expect_shape(stored.qweight, {stored.cols * bits / 32, stored.rows});
  expect_shape(stored.qzeros, {stored.groups, zero_bits / 32});
  stored.group_size = group_size_of(config, module, stored.cols, stored.groups);
  return stored;
}

std::vector<int32_t> read_order(const TensorSource& source, const Json& config,
                                const std::string& module, const Stored& stored) {
  const bool reordered = json_bool(config, "desc_act", false, kConfig) && stored.groups > 1;
  const std::string name = module + ".g_idx";
  if (!source.contains(name)) {
    LOWBIT_CHECK_KIND(!reordered, ErrorKind::kCorruptFile, name,
                      " is missing; with desc_act it says which group a column is in");
    return {};
  }
  const StoredTensor tensor = typed_tensor(source, name, "I32");
  expect_shape(tensor, {stored.cols});
  const std::vector<int32_t> index = int32s_of(tensor);
  const bool empty = std::all_of(index.begin(), index.end(), [](int32_t g) { return g == 0; });
  LOWBIT_CHECK_KIND(!reordered || !empty, ErrorKind::kCorruptFile, name,
                    " is all zeros although quantization_config says desc_act");
  return order_of_groups(index, stored.group_size, name);
}

// Words [words][rows] to rows of words: the canonical bit stream.
std::vector<uint8_t> read_codes(const Stored& stored) {
  const int64_t words = stored.qweight.shape[0];
  std::vector<uint8_t> codes(stored.qweight.bytes.size);
  for (int64_t w = 0; w < words; ++w) {
    const uint8_t* from = stored.qweight.bytes.data + w * stored.rows * 4;
    for (int64_t n = 0; n < stored.rows; ++n) {
      std::memcpy(codes.data() + (n * words + w) * 4, from + n * 4, 4);
    }
  }
  return codes;
}

// [groups][rows] to [rows][groups].
template <typename T>
std::vector<T> transposed(const std::vector<T>& values, int64_t rows, int64_t cols) {
  std::vector<T> result(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) result[c * rows + r] = values[r * cols + c];
  }
  return result;
}

std::vector<uint8_t> read_zeros(const Stored& stored, bool less_one) {
  const uint32_t mask = (1u << stored.bits) - 1;
  const int64_t row_bytes = stored.qzeros.shape[1] * 4;
  std::vector<uint8_t> zeros(static_cast<size_t>(stored.groups * stored.rows));
  for (int64_t g = 0; g < stored.groups; ++g) {
    const uint8_t* stream = stored.qzeros.bytes.data + g * row_bytes;
    for (int64_t n = 0; n < stored.rows; ++n) {
      const uint32_t field = unpack(stream, n, stored.bits);
      zeros[g * stored.rows + n] = static_cast<uint8_t>((less_one ? field + 1 : field) & mask);
    }
  }
  return transposed(zeros, stored.groups, stored.rows);
}

// All but codes, scales and column order.
QTensor outline(const Stored& stored, const Json& config, const std::string& module) {
  QTensor weight;
  weight.scheme = int_scheme(stored.bits, stored.group_size, Zero::kInt);
  weight.rows = stored.rows;
  weight.cols = stored.cols;
  weight.zeros = read_zeros(stored, zeros_less_one(config, module));
  // Symmetric is what has the zeros of it, whatever the config says.
  const int middle = 1 << (stored.bits - 1);
  if (std::all_of(weight.zeros.begin(), weight.zeros.end(), [&](int z) { return z == middle; })) {
    weight.scheme.zero = Zero::kNone;
    weight.zeros.clear();
  }
  return weight;
}

QTensor describe(const TensorSource& source, const Json& config, const std::string& module) {
  return outline(open_module(source, config, module), config, module);
}

QTensor read(const TensorSource& source, const Json& config, const std::string& module) {
  const Stored stored = open_module(source, config, module);
  QTensor weight = outline(stored, config, module);
  weight.scales = transposed(floats_of(stored.scales), stored.groups, stored.rows);
  weight.input_order = read_order(source, config, module, stored);
  std::vector<uint8_t> codes = read_codes(stored);
  if (!weight.input_order.empty()) {
    codes = gather_columns(codes, stored.rows, stored.cols, stored.bits, weight.input_order);
  }
  weight.codes = Bytes::own(std::move(codes));
  validate(weight, module);
  return weight;
}

void check_writable(const std::string& module, const QTensor& weight) {
  const QuantScheme& scheme = weight.scheme;
  LOWBIT_CHECK(scheme.code == Code::kInt && is_gptq_width(scheme.bits) && scheme.group_rows == 1 &&
                   scheme.zero != Zero::kOffset,
               module, ": gptq holds integer codes of 2, 3, 4 or 8 bits, not ", name_of(scheme),
               scheme.code == Code::kInt ? "; compressed-tensors holds 2 to 8" : "");
  LOWBIT_CHECK(weight.rows % 32 == 0 && weight.cols % 32 == 0, module, ": gptq needs rows and ",
               "columns in multiples of 32, not ", weight.rows, " x ", weight.cols,
               "; use --format compressed-tensors or --skip this module");
}

std::vector<int32_t> write_codes(const QTensor& weight) {
  const std::vector<uint8_t> codes = codes_by_input(weight);
  const int64_t words = weight.row_bytes() / 4;
  std::vector<int32_t> qweight(codes.size() / 4);
  for (int64_t n = 0; n < weight.rows; ++n) {
    for (int64_t w = 0; w < words; ++w) {
      std::memcpy(&qweight[w * weight.rows + n], codes.data() + (n * words + w) * 4, 4);
    }
  }
  return qweight;
}

// Zero - 1 in every field, so that 0 becomes all ones: readers that add 1 to each field are right.
std::vector<int32_t> write_zeros(const QTensor& weight) {
  const int bits = weight.scheme.bits;
  const int64_t groups = weight.groups();
  const int64_t row_bytes = packed_bytes(weight.rows, bits);
  std::vector<uint8_t> stream(static_cast<size_t>(groups * row_bytes));
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t n = 0; n < weight.rows; ++n) {
      const int zero = weight.zeros.empty() ? 1 << (bits - 1) : weight.zeros[n * groups + g];
      pack(stream.data() + g * row_bytes, n, bits, static_cast<uint32_t>(zero - 1));
    }
  }
  std::vector<int32_t> words(stream.size() / 4);
  std::memcpy(words.data(), stream.data(), stream.size());
  return words;
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  check_writable(module, weight);
  const int64_t rows = weight.rows, cols = weight.cols, groups = weight.groups();
  const int bits = weight.scheme.bits;
  return {
      stored_int32s(module + ".qweight", {cols * bits / 32, rows}, write_codes(weight)),
      stored_int32s(module + ".qzeros", {groups, rows * bits / 32}, write_zeros(weight)),
      stored_halfs(module + ".scales", {groups, rows}, transposed(weight.scales, rows, groups)),
      stored_int32s(module + ".g_idx", {cols}, group_of_columns(weight)),
  };
}

// "model.layers.0.mlp.up_proj" as a regular expression of GPTQModel's "dynamic".
std::string exactly(const std::string& module) {
  std::string pattern = "^";
  for (const char c : module) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
  return pattern + "$";
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  const bool symmetric = scheme.zero == Zero::kNone;
  const bool head_skipped = std::find(skipped.begin(), skipped.end(), "lm_head") != skipped.end();
  // GPTQModel opens an asymmetric version 1 checkpoint only if it says that GPTQModel's rule for
  // zeros (of 0.9.0 and later) made it; write_zeros() follows that rule.
  Json quantizer = Json::array({concat("lowbit:", kVersion)});
  if (!symmetric) quantizer.push_back("gptqmodel:1.0.0");
  Json config = {{"quant_method", "gptq"},
                 {"bits", scheme.bits},
                 {"group_size", scheme.group_size > 0 ? scheme.group_size : -1},
                 {"sym", symmetric},
                 {"desc_act", false},
                 {"static_groups", false},
                 {"true_sequential", true},
                 {"damp_percent", 0.01},
                 {"lm_head", !head_skipped},
                 {"checkpoint_format", "gptq"},
                 {"pack_dtype", "int32"},
                 {"meta", {{"quantizer", quantizer}}}};
  for (const std::string& module : skipped) {
    if (module != "lm_head") config["dynamic"]["-:" + exactly(module)] = Json::object();
  }
  return config;
}

void describe_order(Json& config) { config["desc_act"] = true; }

}  // namespace

const CheckpointFormat kGptqFormat = {"gptq", detect,       quantized, read,
                                      write,  write_config, describe,  describe_order};

}  // namespace lowbit
