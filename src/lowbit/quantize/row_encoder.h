// Row encoders: rows of fp32 weights to the bytes of a file's tensor type, one row at a time. Dense
// types, and ggml's block types (ggml_blocks.h, iq4_nl.h, k_blocks.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace lowbit {

struct RowEncoder {
  const char* type;     // "F16", "Q4_0": safetensors' or ggml's name
  int64_t block_elems;  // must divide the columns
  int64_t block_bytes;
  // One row of weights, all finite, to cols / block_elems blocks at `out`. False if a value or a
  // scale overflowed fp16.
  bool (*encode)(std::span<const float> row, uint8_t* out);

  // The same with scales searched for the least error; null where `encode` does so already, or
  // where there is nothing to choose.
  bool (*search)(std::span<const float> row, uint8_t* out) = nullptr;

  int64_t row_bytes(int64_t cols) const { return cols / block_elems * block_bytes; }
};

// F32, F16, BF16 and the ggml types that lowbit writes. Throws kInvalidArgument listing them.
const RowEncoder& row_encoder(const std::string& type);

}  // namespace lowbit
