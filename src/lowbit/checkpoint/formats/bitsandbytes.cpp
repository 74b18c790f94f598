#include "lowbit/checkpoint/formats/bitsandbytes.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/formats/fields.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr const char* kState = ".weight.quant_state.bitsandbytes__";
constexpr int64_t kBlockSizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};

bool is_block_size(int64_t size) {
  return std::find(std::begin(kBlockSizes), std::end(kBlockSizes), size) != std::end(kBlockSizes);
}

const float* table_of(Code code) { return code == Code::kNf4 ? kNf4Table : kFp4Table; }

bool detect(const Json& config) {
  return has_method(config, "bitsandbytes") ||
         (config.is_object() && !config.contains("quant_method") &&
          (config.contains("load_in_4bit") || config.contains("load_in_8bit")));
}

// "nf4", "fp4", or empty if the module is not stored in 4 bits.
std::string four_bit_type(const TensorSource& source, const std::string& module) {
  for (const char* type : {"nf4", "fp4"}) {
    if (source.contains(module + kState + type)) return type;
  }
  return "";
}

bool quantized(const TensorSource& source, const std::string& module) {
  return bitsandbytes::is_int8(source, module) || !four_bit_type(source, module).empty();
}

struct State {
  Code code = Code::kNf4;
  int64_t rows = 0, cols = 0;
  int64_t block = 0;  // weights that share an absmax
  bool nested = false;
  int64_t nested_block = 0;
  float nested_offset = 0;

  int64_t blocks() const { return (rows * cols + block - 1) / block; }
};

int64_t extent(const Json& shape, size_t index) {
  return shape[index].is_number_integer() ? shape[index].get<int64_t>() : -1;
}

State read_state(const TensorSource& source, const std::string& module, const std::string& type) {
  const StoredTensor tensor = typed_tensor(source, module + kState + type, "U8");
  LOWBIT_CHECK_KIND(tensor.bytes.size <= limits::kQuantStateBytes, ErrorKind::kCorruptFile,
                    tensor.name, " has ", tensor.bytes.size, " bytes, the limit is ",
                    limits::kQuantStateBytes);
  const std::vector<uint8_t> text = bytes_of(tensor);
  const Json json = parse_json(std::string(text.begin(), text.end()), tensor.name);
  LOWBIT_CHECK_KIND(json.is_object() && json.contains("shape") && json["shape"].is_array() &&
                        json["shape"].size() == 2,
                    ErrorKind::kCorruptFile, tensor.name, ": no shape of two extents");
  State state;
  state.code = type == "nf4" ? Code::kNf4 : Code::kFp4;
  const std::string stated = json_string(json, "quant_type", type, tensor.name);
  LOWBIT_CHECK_KIND(stated == type, ErrorKind::kCorruptFile, tensor.name, ": quant_type is \"",
                    stated, "\"");
  state.rows = extent(json["shape"], 0);
  state.cols = extent(json["shape"], 1);
  expect_extents(tensor.name, state.rows, state.cols);
  state.block = json_int(json, "blocksize", 64, tensor.name);
  LOWBIT_CHECK_KIND(is_block_size(state.block), ErrorKind::kCorruptFile, tensor.name,
                    ": blocksize ", state.block, " is none of 32, 64, ..., 4096");
  state.nested = source.contains(module + ".weight.nested_absmax");
  if (state.nested) {
    state.nested_block = json_int(json, "nested_blocksize", 256, tensor.name);
    LOWBIT_CHECK_KIND(is_block_size(state.nested_block), ErrorKind::kCorruptFile, tensor.name,
                      ": nested_blocksize ", state.nested_block);
    state.nested_offset = static_cast<float>(json_double(json, "nested_offset", NAN, tensor.name));
    LOWBIT_CHECK_KIND(std::isfinite(state.nested_offset), ErrorKind::kCorruptFile, tensor.name,
                      ": nested_offset is missing or not finite");
  }
  return state;
}

// A table that is not the standard one would need codes of its own.
void check_table(const TensorSource& source, const std::string& module, Code code) {
  const std::string name = module + ".weight.quant_map";
  if (!source.contains(name)) return;
  const StoredTensor tensor = typed_tensor(source, name, "F32");
  expect_shape(tensor, {16});
  const std::vector<float> table = floats_of(tensor);
  for (int i = 0; i < 16; ++i) {
    LOWBIT_CHECK_KIND(std::fabs(table[i] - table_of(code)[i]) <= 1e-6f, ErrorKind::kUnsupported,
                      name, ": entry ", i, " is ", table[i], ", not the standard ",
                      table_of(code)[i]);
  }
}

std::shared_ptr<const NestedScales> read_nested(const TensorSource& source,
                                                const std::string& module, const State& state) {
  const StoredTensor codes = typed_tensor(source, module + ".weight.absmax", "U8");
  const StoredTensor absmax = typed_tensor(source, module + ".weight.nested_absmax", "F32");
  const StoredTensor table = typed_tensor(source, module + ".weight.nested_quant_map", "F32");
  expect_shape(codes, {state.blocks()});
  expect_shape(absmax, {(state.blocks() + state.nested_block - 1) / state.nested_block});
  expect_shape(table, {256});
  auto nested = std::make_shared<NestedScales>();
  nested->codes = bytes_of(codes);
  nested->absmax = floats_of(absmax);
  nested->table = floats_of(table);
  nested->offset = state.nested_offset;
  nested->block = state.nested_block;
  nested->span = state.block;
  return nested;
}

QTensor outline(const State& state) {
  QTensor weight;
  // Blocks run on across rows; every run of this many columns of a row lies in one block.
  weight.scheme = table_scheme(state.code, std::gcd(state.cols, state.block),
                               state.nested ? ScaleForm::kNested : ScaleForm::kFloat);
  weight.rows = state.rows;
  weight.cols = state.cols;
  return weight;
}

// Nibble e of the stored bytes to column e % cols of row e / cols.
std::vector<uint8_t> read_codes(const uint8_t* stored, const QTensor& weight) {
  std::vector<uint8_t> codes(static_cast<size_t>(weight.rows * weight.row_bytes()));
  if (weight.cols % 2 == 0) {
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = static_cast<uint8_t>(stored[i] << 4 | stored[i] >> 4);
    }
    return codes;
  }
  for (int64_t e = 0; e < weight.rows * weight.cols; ++e) {
    const uint32_t code = e % 2 == 0 ? stored[e / 2] >> 4 : stored[e / 2] & 15u;
    pack(codes.data() + e / weight.cols * weight.row_bytes(), e % weight.cols, 4, code);
  }
  return codes;
}

QTensor read_4bit(const TensorSource& source, const std::string& module, const std::string& type) {
  const State state = read_state(source, module, type);
  check_table(source, module, state.code);
  QTensor weight = outline(state);
  // bnb_4bit_quant_storage may dress the bytes as another dtype.
  const StoredTensor stored = typed_tensor(source, module + ".weight", "U8 I8 F16 BF16 F32");
  const auto size = static_cast<int64_t>(stored.bytes.size);
  const int64_t needed = (state.rows * state.cols + 1) / 2;
  LOWBIT_CHECK_KIND(size >= needed && size < needed + 4, ErrorKind::kCorruptFile, stored.name,
                    " holds ", size, " bytes, ", state.rows, " x ", state.cols, " needs ", needed);
  std::vector<float> absmax;
  if (state.nested) {
    weight.nested = read_nested(source, module, state);
    for (int64_t b = 0; b < state.blocks(); ++b) absmax.push_back(weight.nested->scale(b));
  } else {
    const StoredTensor tensor = typed_tensor(source, module + ".weight.absmax", "F32");
    expect_shape(tensor, {state.blocks()});
    absmax = floats_of(tensor);
  }
  const int64_t group = weight.scheme.group_size, entries = weight.rows * weight.groups();
  weight.scales.resize(static_cast<size_t>(entries));
  for (int64_t i = 0; i < entries; ++i) weight.scales[i] = absmax[i * group / state.block];
  weight.codes = Bytes::own(read_codes(stored.bytes.data, weight));
  validate(weight, module);
  return weight;
}

QTensor read(const TensorSource& source, const Json&, const std::string& module) {
  const std::string type = four_bit_type(source, module);
  return type.empty() ? bitsandbytes::read_int8(source, module) : read_4bit(source, module, type);
}

QTensor describe(const TensorSource& source, const Json& config, const std::string& module) {
  const std::string type = four_bit_type(source, module);
  return type.empty() ? read(source, config, module) : outline(read_state(source, module, type));
}

// A block of bitsandbytes in which all scales are equal: 64 if it can be, as is usual.
int64_t block_size_of(const std::string& module, const QTensor& weight) {
  if (weight.nested) return weight.nested->span;
  const int64_t group = weight.scheme.group_size;
  for (const int64_t block : {64, 128, 256, 512, 1024, 2048, 4096, 32}) {
    if (block % group != 0) continue;
    const int64_t per_block = block / group;
    bool equal = true;
    for (size_t i = 0; i < weight.scales.size() && equal; ++i) {
      equal = weight.scales[i] == weight.scales[i / per_block * per_block];
    }
    if (equal) return block;
  }
  fail(ErrorKind::kInvalidArgument, module, ": bitsandbytes has blocks of 32, 64, ..., 4096 ",
       "weights, not of ", group);
}

std::vector<uint8_t> write_codes(const QTensor& weight) {
  const int64_t count = weight.rows * weight.cols;
  std::vector<uint8_t> stored(static_cast<size_t>((count + 1) / 2));
  for (int64_t e = 0; e < count; ++e) {
    const uint8_t* row = weight.codes.data + e / weight.cols * weight.row_bytes();
    const uint32_t code = unpack(row, e % weight.cols, 4);
    stored[e / 2] |= static_cast<uint8_t>(e % 2 == 0 ? code << 4 : code);
  }
  if (count % 2 == 1 && weight.scheme.code == Code::kNf4) stored.back() |= 7;  // 0, as padding
  return stored;
}

std::vector<StoredTensor> write_4bit(const std::string& module, const QTensor& weight) {
  LOWBIT_CHECK(weight.scheme.group_rows == 1 && weight.input_order.empty(), module,
               ": bitsandbytes cannot hold ", name_of(weight.scheme), " or a column order");
  const std::string type = weight.scheme.code == Code::kNf4 ? "nf4" : "fp4";
  const std::string prefix = module + ".weight";
  const int64_t block = block_size_of(module, weight);
  const float* table = table_of(weight.scheme.code);
  Json state = {{"quant_type", type},
                {"blocksize", block},
                {"dtype", "float16"},
                {"shape", {weight.rows, weight.cols}}};
  const std::vector<uint8_t> codes = write_codes(weight);
  const auto bytes = static_cast<int64_t>(codes.size());
  std::vector<StoredTensor> tensors = {
      stored_bytes(prefix, "U8", {bytes, 1}, codes),
      stored_floats(prefix + ".quant_map", {16}, std::vector<float>(table, table + 16))};
  if (weight.nested) {
    const NestedScales& nested = *weight.nested;
    const auto entries = static_cast<int64_t>(nested.absmax.size());
    const auto blocks = static_cast<int64_t>(nested.codes.size());
    state["nested_blocksize"] = nested.block;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = nested.offset;
    tensors.push_back(stored_bytes(prefix + ".absmax", "U8", {blocks}, nested.codes));
    tensors.push_back(stored_floats(prefix + ".nested_absmax", {entries}, nested.absmax));
    tensors.push_back(stored_floats(prefix + ".nested_quant_map", {256}, nested.table));
  } else {
    std::vector<float> absmax;
    for (int64_t e = 0; e < weight.rows * weight.cols; e += block) {
      absmax.push_back(weight.scales[e / weight.scheme.group_size]);
    }
    const auto blocks = static_cast<int64_t>(absmax.size());
    tensors.push_back(stored_floats(prefix + ".absmax", {blocks}, absmax));
  }
  const std::string text = dump_json(state);
  tensors.push_back(stored_bytes(module + kState + type, "U8", {static_cast<int64_t>(text.size())},
                                 std::vector<uint8_t>(text.begin(), text.end())));
  return tensors;
}

std::vector<StoredTensor> write(const std::string& module, const QTensor& weight) {
  const bool four = weight.scheme.code == Code::kNf4 || weight.scheme.code == Code::kFp4;
  return four ? write_4bit(module, weight) : bitsandbytes::write_int8(module, weight);
}

Json write_config(const QuantScheme& scheme, const std::vector<std::string>& skipped) {
  const bool eight = scheme.bits == 8;
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", !eight},
          {"load_in_8bit", eight},
          {"_load_in_4bit", !eight},
          {"_load_in_8bit", eight},
          {"bnb_4bit_compute_dtype", "float32"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", scheme.code == Code::kNf4 ? "nf4" : "fp4"},
          {"bnb_4bit_use_double_quant", scheme.scale_form == ScaleForm::kNested},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", skipped.empty() ? Json() : Json(skipped)},
          {"llm_int8_threshold", 6.0}};
}

}  // namespace

const CheckpointFormat kBitsandbytesFormat = {"bitsandbytes", detect,       quantized, read,
                                              write,          write_config, describe};

}  // namespace lowbit
