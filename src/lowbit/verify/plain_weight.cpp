#include "lowbit/verify/plain_weight.h"

#include <algorithm>

#include "lowbit/verify/raw_tensor.h"

namespace lowbit {

namespace {

RawTensor raw(const TensorSource& source, const std::string& name) {
  return RawTensor(source.tensor(name));
}

bool has_dtype(const TensorSource& source, const std::string& name, const char* dtype) {
  return source.contains(name) && source.tensor(name).dtype == dtype;
}

// GPTQ: qweight [K * bits / 32][N] packed down, qzeros [G][N * bits / 32] packed across,
// scales [G][N]. `zero_lift` is what a stored zero lacks.
PlainWeight gptq_weight(const TensorSource& source, const std::string& module, int bits,
                        uint32_t zero_lift) {
  const RawTensor codes = raw(source, module + ".qweight"), zeros = raw(source, module + ".qzeros"),
                  scales = raw(source, module + ".scales");
  const int64_t rows = codes.dim(1), cols = codes.dim(0) * 32 / bits, groups = scales.dim(0);
  const int64_t zero_words = zeros.dim(1), group_size = (cols + groups - 1) / groups;
  std::vector<int64_t> group(static_cast<size_t>(cols));
  bool filled = false;
  if (source.contains(module + ".g_idx")) {
    const RawTensor index = raw(source, module + ".g_idx");
    for (int64_t k = 0; k < cols; ++k) {
      group[static_cast<size_t>(k)] = index.int32(k);
      filled = filled || index.int32(k) != 0;
    }
  }
  if (!filled) {
    for (int64_t k = 0; k < cols; ++k) group[static_cast<size_t>(k)] = k / group_size;
  }
  const uint32_t mask = (1u << bits) - 1;
  return [=](int64_t n, int64_t k) {
    const int64_t g = group[static_cast<size_t>(k)];
    const uint32_t code = codes.field(n, rows, k * bits, bits);
    const uint32_t zero = (zeros.field(g * zero_words, 1, n * bits, bits) + zero_lift) & mask;
    return scales.real(g * rows + n) *
           static_cast<float>(static_cast<int>(code) - static_cast<int>(zero));
  };
}

// AWQ GEMM: qweight [K][N / 8] and qzeros [G][N / 8] with nibbles interleaved, scales [G][N].
PlainWeight awq_weight(const TensorSource& source, const std::string& module) {
  constexpr int kNibbleOfColumn[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  const RawTensor codes = raw(source, module + ".qweight"),
                  scales = raw(source, module + ".scales");
  const bool has_zeros = source.contains(module + ".qzeros");
  const RawTensor zeros = has_zeros ? raw(source, module + ".qzeros") : codes;
  const int64_t words = codes.dim(1), rows = words * 8, groups = scales.dim(0);
  const int64_t group_size = (codes.dim(0) + groups - 1) / groups;
  return [=](int64_t n, int64_t k) {
    const int64_t g = k / group_size;
    const int shift = 4 * kNibbleOfColumn[n % 8];
    const auto nibble = [&](const RawTensor& tensor, int64_t line) {
      return static_cast<int>(tensor.field(line * words + n / 8, 1, shift, 4));
    };
    const int zero = has_zeros ? nibble(zeros, g) : 8;
    return scales.real(g * rows + n) * static_cast<float>(nibble(codes, k) - zero);
  };
}

PlainWeight auto_round_weight(const TensorSource& source, const Json& config,
                              const std::string& module) {
  const std::string packing = json_string(
      config, "packing_format", json_string(config, "backend", "auto_gptq", module), module);
  const auto says = [&](const char* word) { return packing.find(word) != std::string::npos; };
  if (says("awq")) return awq_weight(source, module);
  const int bits = static_cast<int>(json_int(config, "bits", 4, module));
  const bool as_stored = says("gptqmodel") || !says("gptq");
  return gptq_weight(source, module, bits, as_stored ? 0 : 1);
}

// A scale for each of `groups` parts of a row, or one for the row, or one for all.
int64_t scale_index(const RawTensor& scale, int64_t n, int64_t k, int64_t cols) {
  if (scale.count() == 1) return 0;
  const int64_t groups = scale.dim(1);
  return n * groups + k / ((cols + groups - 1) / groups);
}

// compressed-tensors, pack-quantized: fields hold the signed code + 2^(bits-1), along K; zeros
// along N.
PlainWeight packed_weight(const TensorSource& source, const std::string& module, int bits) {
  const RawTensor codes = raw(source, module + ".weight_packed"),
                  scales = raw(source, module + ".weight_scale"),
                  shape = raw(source, module + ".weight_shape");
  const bool has_zeros = source.contains(module + ".weight_zero_point");
  const RawTensor zeros = has_zeros ? raw(source, module + ".weight_zero_point") : codes;
  const bool has_index = source.contains(module + ".weight_g_idx");
  const RawTensor index = has_index ? raw(source, module + ".weight_g_idx") : codes;
  const int64_t cols = shape.dtype() == "I64" ? shape.int64(1) : shape.int32(1);
  const int64_t words = codes.dim(1), groups = scales.dim(1);
  // Until May 2026 fields did not cross words: 3 bits were ten to a word.
  const bool whole_fields = 32 % bits != 0 && words == (cols + 32 / bits - 1) / (32 / bits) &&
                            words != (cols * bits + 31) / 32;
  return [=](int64_t n, int64_t k) {
    const int64_t per_word = 32 / bits;
    const int64_t bit = whole_fields ? k / per_word * 32 + k % per_word * bits : k * bits;
    const int64_t g = has_index ? index.int32(k) : k / ((cols + groups - 1) / groups);
    const uint32_t zero = has_zeros ? zeros.field(g, groups, n * bits, bits) : 1u << (bits - 1);
    const int code = static_cast<int>(codes.field(n * words, 1, bit, bits));
    const int64_t at = scales.count() == 1 ? 0 : n * groups + g;
    return scales.real(at) * static_cast<float>(code - static_cast<int>(zero));
  };
}

// MXFP4 and NVFP4: two E2M1 codes a byte, the even column low.
PlainWeight e2m1_weight(const TensorSource& source, const std::string& module) {
  constexpr float kMagnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const RawTensor codes = raw(source, module + ".weight_packed"),
                  scales = raw(source, module + ".weight_scale");
  const bool power_of_two = scales.dtype() != "F8_E4M3";
  const float global = power_of_two ? 1 : raw(source, module + ".weight_global_scale").real(0);
  const int64_t bytes = codes.dim(1), groups = scales.dim(1);
  return [=](int64_t n, int64_t k) {
    const int code = codes.byte(n * bytes + k / 2) >> (k % 2 * 4) & 15;
    const int64_t at = n * groups + k / (2 * bytes / groups);
    const float scale = power_of_two ? e8m0_to_f32(scales.byte(at)) : scales.real(at) / global;
    return scale * (code & 8 ? -kMagnitude[code & 7] : kMagnitude[code & 7]);
  };
}

PlainWeight int8_weight(const TensorSource& source, const std::string& module) {
  const RawTensor codes = raw(source, module + ".weight"),
                  scales = raw(source, module + ".weight_scale");
  const bool has_zeros = source.contains(module + ".weight_zero_point");
  const RawTensor zeros = has_zeros ? raw(source, module + ".weight_zero_point") : codes;
  const int64_t cols = codes.dim(1);
  return [=](int64_t n, int64_t k) {
    const int64_t at = scale_index(scales, n, k, cols);
    return scales.real(at) *
           static_cast<float>(codes.int8(n * cols + k) - (has_zeros ? zeros.int8(at) : 0));
  };
}

// E4M3 with one scale a tensor, a row, a group of 32 (a power of two), or a block of 128 x 128.
PlainWeight e4m3_weight(const TensorSource& source, const std::string& module,
                        const std::string& scale_name) {
  const RawTensor codes = raw(source, module + ".weight"), scales = raw(source, scale_name);
  const int64_t rows = codes.dim(0), cols = codes.dim(1);
  const bool power_of_two = scales.dtype() == "U8" || scales.dtype() == "F8_E8M0";
  const bool blocks = !power_of_two && scales.count() > 1 && scales.dim(0) < rows;
  return [=](int64_t n, int64_t k) {
    const int64_t at = blocks ? n / 128 * scales.dim(1) + k / 128 : scale_index(scales, n, k, cols);
    const float scale = power_of_two ? e8m0_to_f32(scales.byte(at)) : scales.real(at);
    return e4m3_to_f32(codes.byte(n * cols + k)) * scale;
  };
}

// By the group that names the module, else the first.
int compressed_bits(const Json& config, const std::string& module) {
  int64_t bits = 0;
  for (const auto& group : config.value("config_groups", Json::object())) {
    if (!group.is_object() || !group.contains("weights")) continue;
    const Json targets = group.value("targets", Json::array());
    const bool named = std::find(targets.begin(), targets.end(), module) != targets.end();
    if (bits == 0 || named) bits = json_int(group["weights"], "num_bits", 4, module);
    if (named) break;
  }
  return bits == 0 ? 4 : static_cast<int>(bits);
}

PlainWeight compressed_weight(const TensorSource& source, const Json& config,
                              const std::string& module) {
  if (has_dtype(source, module + ".weight_packed", "I32")) {
    return packed_weight(source, module, compressed_bits(config, module));
  }
  if (source.contains(module + ".weight_packed")) return e2m1_weight(source, module);
  if (has_dtype(source, module + ".weight", "I8")) return int8_weight(source, module);
  return e4m3_weight(source, module, module + ".weight_scale");
}

// bitsandbytes: NF4 and FP4 in blocks over the flattened matrix, the first element high.
PlainWeight bitsandbytes_4bit(const TensorSource& source, const std::string& module,
                              const std::string& state_name) {
  const std::string name = module + ".weight";
  const StoredTensor text = source.tensor(state_name);
  const Json state =
      parse_json({reinterpret_cast<const char*>(text.bytes.data), text.bytes.size}, state_name);
  const RawTensor codes = raw(source, name), map = raw(source, name + ".quant_map"),
                  absmax = raw(source, name + ".absmax");
  const bool nested = source.contains(name + ".nested_absmax");
  const RawTensor outer = nested ? raw(source, name + ".nested_absmax") : absmax;
  const RawTensor outer_map = nested ? raw(source, name + ".nested_quant_map") : map;
  const int64_t block = json_int(state, "blocksize", 64, state_name);
  const int64_t outer_block = json_int(state, "nested_blocksize", 256, state_name);
  const auto offset = static_cast<float>(json_double(state, "nested_offset", 0, state_name));
  const int64_t cols = state.at("shape").at(1).get<int64_t>();
  return [=](int64_t n, int64_t k) {
    const int64_t element = n * cols + k, b = element / block;
    const int code = codes.byte(element / 2) >> (element % 2 == 0 ? 4 : 0) & 15;
    const float scale = nested
                            ? outer_map.real(absmax.byte(b)) * outer.real(b / outer_block) + offset
                            : absmax.real(b);
    return map.real(code) * scale;
  };
}

PlainWeight bitsandbytes_weight(const TensorSource& source, const std::string& module) {
  for (const char* kind : {"nf4", "fp4"}) {
    const std::string state = module + ".weight.quant_state.bitsandbytes__" + kind;
    if (source.contains(state)) return bitsandbytes_4bit(source, module, state);
  }
  const RawTensor codes = raw(source, module + ".weight"), absmax = raw(source, module + ".SCB");
  const int64_t cols = codes.dim(1);
  return [=](int64_t n, int64_t k) {
    return static_cast<float>(codes.int8(n * cols + k)) * (absmax.real(n) / 127.f);
  };
}

// HQQ, axis 1: groups are the rows of W reshaped to [N * K / g][g], and those rows are packed: row
// r lies in stored row r % S, the first S rows in the highest bits.
PlainWeight hqq_weight(const TensorSource& source, const std::string& module) {
  const RawTensor codes = raw(source, module + ".W_q"), scales = raw(source, module + ".scale"),
                  zeros = raw(source, module + ".zero"), shape = raw(source, module + ".shape");
  const int bits = raw(source, module + ".nbits").int32(0);
  const int64_t cols = shape.int64(1), size = raw(source, module + ".group_size").int32(0);
  const int64_t stored_rows = codes.dim(0);
  const int parts = bits == 3 ? 10 : bits > 4 ? 1 : 8 / bits;
  return [=](int64_t n, int64_t k) {
    const int64_t element = n * cols + k, r = element / size;
    const int64_t at = r % stored_rows * size + element % size;
    const int shift = bits * (parts - 1 - static_cast<int>(r / stored_rows));
    const uint32_t word = bits == 3 ? static_cast<uint32_t>(codes.int32(at)) : codes.byte(at);
    const uint32_t code = bits > 4 ? word : word >> shift & ((1u << bits) - 1u);
    return (static_cast<float>(code) - zeros.real(r)) * scales.real(r);
  };
}

// MixQ's integers [n][k], of `weight` or, where there is none, of q_weight: 8 bits,
// two's-complement nibbles, words of eight nibbles, or 8 bits as EETQ's GEMM wants them.
std::function<int(int64_t n, int64_t k)> mixq_codes(const RawTensor& codes, bool for_gemm) {
  const int64_t cols = codes.dim(1);
  if (codes.dtype() == "I32") {
    return [=](int64_t n, int64_t k) {  // even columns low, odd ones high
      const auto shift = static_cast<int>(4 * (k % 8 / 2 + k % 2 * 4));
      return static_cast<int>(codes.field(n * cols + k / 8, 1, shift, 4)) - 8;
    };
  }
  if (codes.dtype() == "U8") {
    return [=](int64_t n, int64_t k) {
      const int code = codes.int8(n * cols + k / 2);
      return k % 2 == 0 ? static_cast<int8_t>(code << 4) >> 4 : code >> 4;
    };
  }
  if (!for_gemm) return [=](int64_t n, int64_t k) { return int{codes.int8(n * cols + k)}; };
  const int64_t inputs = codes.dim(0);
  return [=](int64_t n, int64_t k) {
    constexpr int64_t kOrder[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
    const int64_t row = k / 16 * 16 + (std::find(kOrder, kOrder + 16, k % 16) - kOrder);
    int64_t at = (n / 2 * (inputs / 64) + row / 64) * 128 + n % 2 * 64 + row % 64;
    if (at % 4 == 1 || at % 4 == 2) at ^= 3;
    return codes.byte(at) - 128;
  };
}

// MixQ: one scale a row, some columns in weight_cache.
PlainWeight mixq_weight(const TensorSource& source, const std::string& module) {
  const bool copy = !source.contains(module + ".weight");
  const std::string own_scales = module + ".q_scale_col";
  const RawTensor codes = raw(source, module + (copy ? ".q_weight" : ".weight"));
  const StoredTensor scale_col =
      source.tensor(copy && source.contains(own_scales) ? own_scales : module + ".scale_col");
  const bool for_gemm = copy && codes.dtype() == "I8" && scale_col.shape.size() == 1;
  const RawTensor scales(scale_col);
  const int per_element = codes.dtype() == "I32" ? 8 : codes.dtype() == "U8" ? 2 : 1;
  const int64_t cols = for_gemm ? codes.dim(0) : codes.dim(1) * per_element;
  const auto code = mixq_codes(codes, for_gemm);
  std::vector<int64_t> slots(static_cast<size_t>(cols), -1);
  if (copy && !source.contains(module + ".weight_cache")) {
    return [=](int64_t n, int64_t k) { return scales.real(n) * static_cast<float>(code(n, k)); };
  }
  const RawTensor ind = raw(source, module + ".ind"), cache = raw(source, module + ".weight_cache");
  const int64_t outliers = ind.dim(0);
  for (int64_t j = 0; j < outliers; ++j) {
    const int64_t column = ind.int32(j);
    LOWBIT_CHECK_KIND(column >= 0 && column < cols, ErrorKind::kCorruptFile, module,
                      ".ind: column ", column, " is not one of ", cols);
    slots[static_cast<size_t>(column)] = j;
  }
  return [=](int64_t n, int64_t k) {
    const int64_t slot = slots[static_cast<size_t>(k)];
    return slot >= 0 ? cache.real(n * outliers + slot)
                     : scales.real(n) * static_cast<float>(code(n, k));
  };
}

// AQLM: codes [N / og][K / ig][C], codebooks [C][2^b][og][ig], a scale for og rows.
PlainWeight aqlm_weight(const TensorSource& source, const std::string& module) {
  const RawTensor codes = raw(source, module + ".codes"),
                  books = raw(source, module + ".codebooks"),
                  scales = raw(source, module + ".scales");
  const int64_t count = books.dim(0), size = books.dim(1), og = books.dim(2), ig = books.dim(3);
  const int64_t vectors = codes.dim(1);
  const std::string type = codes.dtype();
  return [=](int64_t n, int64_t k) {
    float sum = 0;
    for (int64_t c = 0; c < count; ++c) {
      const int64_t at = (n / og * vectors + k / ig) * count + c;
      const int64_t code = type == "I8"    ? codes.int8(at)
                           : type == "I16" ? codes.int16(at)
                                           : codes.int32(at);
      const int64_t index = (code % size + size) % size;  // stored signed
      sum += books.real(((c * size + index) * og + n % og) * ig + k % ig);
    }
    return sum * scales.real(n / og);
  };
}

}  // namespace

PlainWeight plain_weight(const TensorSource& source, const Json& config, const std::string& format,
                         const std::string& module) {
  if (format == "gptq") {
    const int bits = static_cast<int>(json_int(config, "bits", 4, module));
    const std::string layout = json_string(config, "checkpoint_format", "gptq", module);
    return gptq_weight(source, module, bits, layout == "gptq_v2" ? 0 : 1);
  }
  if (format == "awq") return awq_weight(source, module);
  if (format.rfind("auto-round", 0) == 0) return auto_round_weight(source, config, module);
  if (format == "compressed-tensors") return compressed_weight(source, config, module);
  if (format == "bitsandbytes") return bitsandbytes_weight(source, module);
  if (format == "hqq") return hqq_weight(source, module);
  if (format == "mixq") return mixq_weight(source, module);
  if (format == "aqlm") return aqlm_weight(source, module);
  if (format == "fp8") {
    const std::string inverse = module + ".weight_scale_inv";
    return e4m3_weight(source, module,
                       source.contains(inverse) ? inverse : module + ".weight_scale");
  }
  return {};
}

}  // namespace lowbit
