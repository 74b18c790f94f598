// Quantized linears for tests of formats: golden files, round trips, and what must be refused.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "lowbit/checkpoint/formats.h"
#include "lowbit/tensor/dtype.h"
#include "support/paths.h"
#include "support/tensor_source.h"
#include "support/weights.h"

namespace lowbit::test {

// All tensors of tests/golden/formats/<name>.
inline MemorySource golden_linears(const std::string& name) {
  return MemorySource(SafetensorsFile(golden("formats/" + name)));
}

inline std::vector<float> floats(const StoredTensor& tensor) {
  std::vector<float> values;
  for (size_t i = 0; i < tensor.bytes.size; i += tensor.dtype == "F32" ? 4 : 2) {
    float value;
    uint16_t half;
    std::memcpy(&half, tensor.bytes.data + i, 2);
    if (tensor.dtype == "F32") {
      std::memcpy(&value, tensor.bytes.data + i, 4);
    } else {
      value = tensor.dtype == "F16" ? f16_to_f32(half) : bf16_to_f32(half);
    }
    values.push_back(value);
  }
  return values;
}

// The format's own words for a weight, read back.
inline QTensor round_trip(const CheckpointFormat& format, const QTensor& weight) {
  const MemorySource source(format.write("m", weight));
  EXPECT_TRUE(format.quantized(source, "m"));
  EXPECT_FALSE(format.quantized(source, "n"));
  QuantScheme request = weight.scheme;
  if (request.group_size == weight.cols) request.group_size = 0;
  if (request.group_rows == weight.rows && weight.rows > 1) request.group_rows = 0;
  const Json config = format.quantization_config(request, {"lm_head"});
  EXPECT_TRUE(format.detect(config)) << config;
  if (format.describe != nullptr) {
    EXPECT_EQ(format.describe(source, config, "m").scheme, weight.scheme);
  }
  return format.read(source, config, "m");
}

inline void expect_same(const QTensor& found, const QTensor& expected) {
  EXPECT_EQ(found.scheme, expected.scheme);
  EXPECT_EQ(found.rows, expected.rows);
  EXPECT_EQ(found.cols, expected.cols);
  EXPECT_EQ(dequantize(found), dequantize(expected)) << name_of(expected.scheme);
}

// Cuts, empties and corrupts each tensor in turn: reading must give an Error or a valid weight.
inline void expect_no_crash(const CheckpointFormat& format, const MemorySource& source,
                            const Json& config, const std::string& module) {
  const auto attempt = [&](const MemorySource& damaged) {
    try {
      if (!format.quantized(damaged, module)) return;
      validate(format.read(damaged, config, module), module);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()), "");
    }
  };
  Random random(11);
  for (const auto& [name, tensor] : source.all()) {
    if (name.rfind(module + ".", 0) != 0) continue;
    MemorySource damaged = source;
    damaged.remove(name);
    attempt(damaged);
    for (const int64_t change : {-1, 1, 1 << 20}) {
      for (size_t i = 0; i < tensor.shape.size(); ++i) {
        StoredTensor other = tensor;
        other.shape[i] += change;
        damaged.put(other);
        attempt(damaged);
      }
    }
    StoredTensor cut = tensor;
    cut.bytes = Bytes::own(std::vector<uint8_t>(tensor.bytes.size / 2));
    damaged.put(cut);
    attempt(damaged);
    for (const char* dtype : {"F32", "I64", "U8", "F8_E4M3"}) {
      StoredTensor other = tensor;
      other.dtype = dtype;
      damaged.put(other);
      attempt(damaged);
    }
    for (int i = 0; i < 8; ++i) {
      StoredTensor noise = tensor;
      std::vector<uint8_t> bytes(tensor.bytes.data, tensor.bytes.data + tensor.bytes.size);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(i == 0 ? 0xff : random.next());
      noise.bytes = Bytes::own(std::move(bytes));
      damaged.put(noise);
      attempt(damaged);
    }
  }
}

}  // namespace lowbit::test
