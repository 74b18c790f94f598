#include "lowbit/runtime/cuda/layouts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cuda/device.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit::cuda {

namespace {

// Device memory with a copy of `bytes`, owned by the weight.
void* upload(PackedWeight& weight, const void* from, size_t bytes, const char* what,
             cudaStream_t stream) {
  weight.storage.push_back(allocate(bytes, what));
  void* to = weight.storage.back().get();
  LOWBIT_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
  LOWBIT_CUDA(cudaStreamSynchronize(stream));  // `from` may be gone before a copy that is pending
  return to;
}

// Steps of 16 columns that share a scale, within a unit of 128; 0 if groups do not fit units.
int fold_of(const QTensor& weight) {
  const int64_t group = weight.scheme.group_size;
  if (group >= weight.cols || group % kUnitCols == 0) return 8;
  return group == 16 || group == 32 || group == 64 ? static_cast<int>(group / 16) : 0;
}

struct Table {
  Code code;
  const float* values;
  float factor;  // values * factor are the halves that codes widen to
  bool exact;    // without rounding
};
const Table* table_of(Code code) {
  static const std::vector<float> iq4(std::begin(kIq4NlTable), std::end(kIq4NlTable));
  static const Table tables[] = {
      {Code::kIq4Nl, iq4.data(), 1, true},
      {Code::kNf4, kNf4Table, 1, false},
      {Code::kFp4, kFp4Table, 192, true},  // whole numbers up to 192
      {Code::kE2M1, kE2M1Table, 1, true},
  };
  for (const Table& table : tables) {
    if (table.code == code) return &table;
  }
  return nullptr;
}

template <typename Test>
bool all_values(const QTensor& weight, const Test& test) {
  std::vector<float> row(static_cast<size_t>(weight.cols));
  for (int64_t n = 0; n < weight.rows; ++n) {
    dequantize_row(weight, n, row.data());
    if (!std::all_of(row.begin(), row.end(), test)) return false;
  }
  return true;
}
bool exact_f16(float value) { return f16_to_f32(f32_to_f16(value)) == value; }
bool exact_bf16(float value) { return bf16_to_f32(f32_to_bf16(value)) == value; }

bool supports_q4(const QTensor& weight, bool) {
  return weight.scheme.code == Code::kInt && weight.scheme.bits <= 4 && !weight.outliers &&
         fold_of(weight) > 0;
}
bool supports_q8(const QTensor& weight, bool) {
  return weight.scheme.code == Code::kInt && !weight.outliers && fold_of(weight) > 0;
}
bool supports_t4(const QTensor& weight, bool exact) {
  const Table* table = table_of(weight.scheme.code);
  return table != nullptr && (table->exact || !exact) && !weight.outliers && fold_of(weight) > 0;
}
bool supports_e4m3(const QTensor& weight, bool) {
  return weight.scheme.code == Code::kE4M3 && !weight.outliers && fold_of(weight) > 0;
}
bool supports_f16(const QTensor& weight, bool exact) {
  if (weight.scheme.code == Code::kF16) return true;
  if (weight.scheme.code == Code::kBF16) return false;
  if (exact) return all_values(weight, exact_f16);
  return all_values(weight, [](float value) { return std::fabs(value) < 65504.f; });
}
bool supports_bf16(const QTensor& weight, bool exact) {
  if (weight.scheme.code == Code::kBF16) return true;
  return (exact || weight.scheme.dense()) && all_values(weight, exact_bf16);
}
bool supports_any(const QTensor&, bool) { return true; }

ScaleType scale_type_of(std::span<const LinearWeight> parts) {
  bool half = true, brain = true;
  for (const LinearWeight& part : parts) {
    for (const float scale : part.weight.scales) {
      half = half && exact_f16(scale);
      brain = brain && exact_bf16(scale);
    }
  }
  return half ? ScaleType::kF16 : brain ? ScaleType::kBF16 : ScaleType::kF32;
}

void put_scale(ScaleType type, float value, uint8_t* at) {
  if (type == ScaleType::kF32) {
    std::memcpy(at, &value, 4);
  } else {
    const uint16_t half = type == ScaleType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
    std::memcpy(at, &half, 2);
  }
}

// Writes row `row` of the records, which is row `n` of `weight`.
void put_row_scales(const PackedMatrix& m, const QTensor& weight, int64_t n, int64_t row,
                    uint8_t* records) {
  const int groups = kUnitCols / 16 / m.fold;  // of a record
  const int size = m.scale_type == ScaleType::kF32 ? 4 : 2;
  const int64_t lane = row % 8 * 2 + row % kTileRows / 8;
  const int64_t scale_row = n / weight.scheme.group_rows * weight.groups();
  for (int64_t record = 0; record < m.records; ++record) {
    uint8_t* at = records + (row / kTileRows * m.records + record) * m.record_bytes;
    for (int group = 0; group < groups; ++group) {
      const int64_t column = (record << m.record_shift) * kUnitCols + group * m.fold * 16;
      if (column >= weight.cols) continue;
      const int64_t entry = scale_row + column / weight.scheme.group_size;
      const int64_t index = group * kTileRows + lane;
      put_scale(m.scale_type, weight.scales[entry], at + index * size);
      uint8_t* after = at + groups * kTileRows * size;
      if (m.zero_type == ZeroType::kInt) after[index] = weight.zeros[entry];
      if (m.zero_type == ZeroType::kOffset) {
        std::memcpy(after + index * 4, &weight.offsets[entry], 4);
      }
    }
  }
}

void pack_scales(std::span<const LinearWeight> parts, PackedWeight& packed, cudaStream_t stream) {
  PackedMatrix& m = packed.matrix;
  const QTensor& first = parts[0].weight;
  m.scale_type = scale_type_of(parts);
  m.fold = fold_of(first);
  const int64_t units_per_group = first.scheme.group_size >= first.cols
                                      ? int64_t{1} << 30
                                      : first.scheme.group_size / kUnitCols;
  // A group of a power of two of units has one record, others one for each unit.
  if (units_per_group > 1 && std::has_single_bit(static_cast<uint64_t>(units_per_group))) {
    m.record_shift = std::countr_zero(static_cast<uint64_t>(units_per_group));
  }
  m.records = ((m.units - 1) >> m.record_shift) + 1;
  const int groups = kUnitCols / 16 / m.fold;
  m.record_bytes =
      groups * kTileRows *
      ((m.scale_type == ScaleType::kF32 ? 4 : 2) + (m.zero_type == ZeroType::kInt      ? 1
                                                    : m.zero_type == ZeroType::kOffset ? 4
                                                                                       : 0));
  const int64_t tiles = (m.rows + kTileRows - 1) / kTileRows;
  std::vector<uint8_t> records(static_cast<size_t>(tiles * m.records * m.record_bytes));
  int64_t row = 0;
  for (const LinearWeight& part : parts) {
    for (int64_t n = 0; n < part.weight.rows; ++n) {
      put_row_scales(m, part.weight, n, row++, records.data());
    }
  }
  m.scales =
      static_cast<const uint8_t*>(upload(packed, records.data(), records.size(), "scales", stream));
  packed.bytes += static_cast<int64_t>(records.size());
}

// Copies the canonical codes of each part to the device and from there into tiles, `shift` added.
void pack_codes(std::span<const LinearWeight> parts, int shift, PackedWeight& packed,
                cudaStream_t stream) {
  PackedMatrix& m = packed.matrix;
  const int64_t row_bytes = parts[0].weight.row_bytes();
  const auto raw = allocate(static_cast<size_t>(m.rows * row_bytes), "codes of a layer");
  int64_t at = 0;
  for (const LinearWeight& part : parts) {
    LOWBIT_CUDA(cudaMemcpyAsync(static_cast<uint8_t*>(raw.get()) + at, part.weight.codes.data,
                                part.weight.codes.size, cudaMemcpyHostToDevice, stream));
    at += static_cast<int64_t>(part.weight.codes.size);
  }
  const int64_t tiles = (m.rows + kTileRows - 1) / kTileRows;
  const int64_t bytes = tiles * m.units * lane_words(m.storage) * 512;
  packed.storage.push_back(allocate(static_cast<size_t>(bytes), "weights"));
  auto* codes = static_cast<uint4*>(packed.storage.back().get());
  launch_pack(m, static_cast<const uint8_t*>(raw.get()), row_bytes, parts[0].weight.scheme.bits,
              shift, codes, stream);
  LOWBIT_CUDA(cudaStreamSynchronize(stream));  // before `raw` is freed
  m.codes = codes;
  packed.bytes += bytes;
}

PackedWeight start(std::span<const LinearWeight> parts, Storage storage, cudaStream_t stream) {
  PackedWeight packed;
  PackedMatrix& m = packed.matrix;
  m.storage = storage;
  const QTensor& first = parts[0].weight;
  std::vector<float> bias;
  bool has_bias = false;
  for (const LinearWeight& part : parts) {
    m.rows += static_cast<int>(part.weight.rows);
    has_bias = has_bias || !part.bias.empty();
    bias.insert(bias.end(), part.bias.begin(), part.bias.end());
    bias.resize(static_cast<size_t>(m.rows));
  }
  m.cols = static_cast<int>(first.cols);
  m.units = (m.cols + kUnitCols - 1) / kUnitCols;
  if (has_bias) {
    m.bias = static_cast<const float*>(
        upload(packed, bias.data(), bias.size() * sizeof(float), "a bias", stream));
  }
  return packed;
}

void put_order(const QTensor& weight, PackedWeight& packed, cudaStream_t stream) {
  if (weight.input_order.empty()) return;
  packed.matrix.input_order = static_cast<const int32_t*>(upload(
      packed, weight.input_order.data(), weight.input_order.size() * 4, "an input order", stream));
}

PackedWeight pack_scaled(std::span<const LinearWeight> parts, Storage storage,
                         cudaStream_t stream) {
  PackedWeight packed = start(parts, storage, stream);
  const QuantScheme& scheme = parts[0].weight.scheme;
  PackedMatrix& m = packed.matrix;
  m.center = 1 << (scheme.bits - 1);
  m.zero_type = scheme.zero == Zero::kNone  ? ZeroType::kCenter
                : scheme.zero == Zero::kInt ? ZeroType::kInt
                                            : ZeroType::kOffset;
  put_order(parts[0].weight, packed, stream);
  pack_scales(parts, packed, stream);
  // Of codes that are multiplied as integers the center is that of all 4 or 8 bits.
  int shift = 0;
  if (scheme.input_bits != 0 && scheme.code == Code::kInt && scheme.zero == Zero::kNone) {
    const int whole = storage == Storage::kInt4 ? 8 : 128;
    shift = whole - std::exchange(m.center, whole);
  }
  pack_codes(parts, shift, packed, stream);
  return packed;
}

PackedWeight pack_q4(std::span<const LinearWeight> parts, cudaStream_t stream) {
  return pack_scaled(parts, Storage::kInt4, stream);
}
PackedWeight pack_q8(std::span<const LinearWeight> parts, cudaStream_t stream) {
  return pack_scaled(parts, Storage::kInt8, stream);
}
PackedWeight pack_e4m3(std::span<const LinearWeight> parts, cudaStream_t stream) {
  return pack_scaled(parts, Storage::kE4M3, stream);
}
PackedWeight pack_t4(std::span<const LinearWeight> parts, cudaStream_t stream) {
  const Table& table = *table_of(parts[0].weight.scheme.code);
  PackedWeight packed = pack_scaled(parts, Storage::kTable4, stream);
  packed.matrix.table_factor = 1 / table.factor;
  uint16_t halves[16];
  for (int i = 0; i < 16; ++i) halves[i] = f32_to_f16(table.values[i] * table.factor);
  packed.matrix.table = static_cast<const float*>(
      upload(packed, table.values, 16 * sizeof(float), "a table", stream));
  packed.matrix.half_table =
      static_cast<const uint16_t*>(upload(packed, halves, sizeof(halves), "a table", stream));
  return packed;
}

// Weights as 16-bit floats, dequantized if they are not already; input orders are undone by that.
PackedWeight pack_dense(std::span<const LinearWeight> parts, Storage storage, Code code,
                        cudaStream_t stream) {
  PackedWeight packed = start(parts, storage, stream);
  std::vector<LinearWeight> dense;
  for (const LinearWeight& part : parts) {
    LinearWeight& copy = dense.emplace_back();
    if (part.weight.scheme.code == code) {
      copy.weight = part.weight;
      continue;
    }
    const QTensor& weight = part.weight;
    std::vector<uint8_t> bytes(static_cast<size_t>(weight.rows * weight.cols * 2));
    std::vector<float> row(static_cast<size_t>(weight.cols));
    for (int64_t n = 0; n < weight.rows; ++n) {
      dequantize_row(weight, n, row.data());
      for (int64_t k = 0; k < weight.cols; ++k) {
        const uint16_t half = code == Code::kF16 ? f32_to_f16(row[k]) : f32_to_bf16(row[k]);
        std::memcpy(bytes.data() + (n * weight.cols + k) * 2, &half, 2);
      }
    }
    copy.weight.scheme = dense_scheme(code);
    copy.weight.rows = weight.rows;
    copy.weight.cols = weight.cols;
    copy.weight.codes = Bytes::own(std::move(bytes));
  }
  put_order(dense[0].weight, packed, stream);
  pack_codes(dense, 0, packed, stream);
  return packed;
}
PackedWeight pack_f16(std::span<const LinearWeight> parts, cudaStream_t stream) {
  return pack_dense(parts, Storage::kF16, Code::kF16, stream);
}
PackedWeight pack_bf16(std::span<const LinearWeight> parts, cudaStream_t stream) {
  return pack_dense(parts, Storage::kBF16, Code::kBF16, stream);
}

PackedWeight pack_f32(std::span<const LinearWeight> parts, cudaStream_t stream) {
  PackedWeight packed = start(parts, Storage::kF16, stream);
  std::vector<float> values;
  for (const LinearWeight& part : parts) {
    const std::vector<float> dense = dequantize(part.weight);
    values.insert(values.end(), dense.begin(), dense.end());
  }
  packed.bytes = static_cast<int64_t>(values.size() * sizeof(float));
  packed.plain = static_cast<const float*>(
      upload(packed, values.data(), values.size() * sizeof(float), "weights", stream));
  return packed;
}

constexpr Layout kLayouts[] = {
    {"q4", supports_q4, pack_q4},       {"q8", supports_q8, pack_q8},
    {"t4", supports_t4, pack_t4},       {"e4m3", supports_e4m3, pack_e4m3},
    {"bf16", supports_bf16, pack_bf16}, {"f16", supports_f16, pack_f16},
    {"f32", supports_any, pack_f32},
};

}  // namespace

const Layout& choose_layout(const LinearWeight& weight, bool exact, const std::string& forced) {
  std::string names;
  for (const Layout& layout : kLayouts) {
    if (forced.empty() ? layout.supports(weight.weight, exact) : forced == layout.name) {
      LOWBIT_CHECK_KIND(layout.supports(weight.weight, exact), ErrorKind::kUnsupported, weight.name,
                        ": LOWBIT_LINEAR=", forced, " cannot hold ", name_of(weight.weight.scheme));
      return layout;
    }
    names += concat(names.empty() ? "" : ", ", layout.name);
  }
  fail(ErrorKind::kUnsupported, "LOWBIT_LINEAR=", forced,
       " is no layout of backend cuda; there are: ", names);
}

}  // namespace lowbit::cuda
