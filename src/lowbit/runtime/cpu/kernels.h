// The table of CPU kernels: one instance per instruction set, made of plain functions on plain
// structs. The files that fill it (kernels_<isa>*.cpp) are compiled for their instruction set and
// may include only this, <immintrin.h>, <cstdint> and headers whose functions are in an anonymous
// namespace, so that no inline function of theirs can end up in code that runs elsewhere
// (tools/check_symbols.sh).
//
// Every kernel sums each of its outputs in an order that depends on nothing but the operands'
// shapes: not on how many tokens or rows one call covers.
#pragma once

#include <cstdint>

namespace lowbit::cpu {

constexpr int kTileRows = 8;    // rows interleaved: one SIMD lane each
constexpr int kBlockCols = 32;  // columns of one block of codes, and of one activation scale

// How a tile's elements are held. A quad is 4 neighbouring columns of a row in 4 bytes; a block is
// 8 quads; the 8 rows' quads stand side by side in 32 bytes. Codes of less than 8 bits are split
// into planes of 4, 2 and 1 bits; 32 bytes of a plane hold 2, 4 or 8 quads, the first in the lowest
// bits.
enum class Storage : uint8_t {
  kF32,     // [tiles][cols][8]
  kF16,     // [tiles][cols][8]
  kBF16,    // [tiles][cols][8]
  kE4M3,    // [tiles][blocks * 32][8]
  kU2,      // [tiles][blocks][2][32]: one plane
  kU3,      // [tiles][blocks][3][32]: two of the plane of 2 bits, one of the plane of the third
  kU4,      // [tiles][blocks][4][32]
  kU5,      // [tiles][blocks][5][32]: four of 4 bits, one of the fifth bit
  kU6,      // [tiles][blocks][6][32]: four of 4 bits, two of the two bits above
  kS8,      // [tiles][blocks][8][32]
  kTable4,  // as kU4: indices into `table`
};

enum class Affine : uint8_t {
  kNone,     // w = scale * (stored + base)
  kZeros,    // w = scale * (stored + base - zero)
  kOffsets,  // w = scale * (stored + base) + offset
};

// Scales or offsets, [tiles][groups][8].
struct GroupValues {
  enum class Form : uint8_t {
    kF32,
    kF16,
    kMultiples,  // int8 multiples of a float, [tiles][groups >> super_shift][8] in `supers`
  };
  Form form = Form::kF32;
  int super_shift = 0;  // 2^super_shift groups share a super; divides groups
  const void* values = nullptr;
  const float* supers = nullptr;
};

// The 16 values of kTable4: w = scale * values[code], which is about scale * unit * steps[code].
struct CodeTable {
  alignas(64) float values[16];
  alignas(16) int8_t steps[16];
  float unit;
};

// A weight in kernel layout. Rows and columns beyond rows and cols hold zeros (rows: scale 0). Like
// all structs here it has no member functions: they would be inline symbols of every instruction
// set.
struct PackedMatrix {
  Storage storage = Storage::kF32;
  Affine affine = Affine::kNone;
  bool split_blocks = false;  // a scale per 16 columns; group_blocks is unused
  int base = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t blocks = 0;        // ceil(cols / 32)
  int64_t groups = 0;        // scales of a row
  int64_t group_blocks = 1;  // blocks that share a scale
  const uint8_t* codes = nullptr;
  GroupValues scales;              // none for dense weights
  GroupValues offsets;             // kOffsets only
  const uint8_t* zeros = nullptr;  // [tiles][groups][8], kZeros only
  const CodeTable* table = nullptr;
  const float* bias = nullptr;  // [tiles * 8] or null
};

// Activations in int8: x = scale * code, a scale per block.
struct QuantizedInput {
  int8_t* codes = nullptr;     // [tokens][blocks * 32]
  float* scales = nullptr;     // [tokens][blocks]
  float* sums = nullptr;       // scale * sum of codes: [tokens][blocks * 32 / sum_cols]
  float* code_sums = nullptr;  // the same without scale: whole numbers
  int32_t* starts = nullptr;   // start * sum of codes
  int32_t start = 0;           // start_of() the matrix
  int64_t blocks = 0;
  int64_t sum_cols = kBlockCols;  // 32, or 16 for split blocks
  // Copies for Kernels::arrange_input, by 16 tokens; those beyond have none.
  int8_t* tile_codes = nullptr;     // [tokens / 16][blocks][16][32]
  float* tile_scales = nullptr;     // [tokens / 16][blocks][16]
  float* tile_sums = nullptr;       // [tokens / 16][blocks * 32 / sum_cols][16]
  float* tile_code_sums = nullptr;  // the same
};

// What is added to all codes of a matrix before they are multiplied, if vpdpbusd does so: it takes
// unsigned weights, so signed ones are moved up by 128.
constexpr int32_t start_of(const PackedMatrix& w) {
  return w.base - (w.storage == Storage::kS8 || w.storage == Storage::kTable4 ? 128 : 0);
}

struct Range {
  int64_t first = 0;
  int64_t last = 0;  // exclusive
};

// How a KV cache holds values: kv_cache.h says how a page is laid out.
enum class CacheType : uint8_t { kF32, kF16, kI8, kE4M3, kI4 };

// Attention of some consecutive queries of one sequence, for the query heads of one KV head.
struct AttentionTask {
  const float* q = nullptr;  // [queries][heads][head_dim], queries q_stride apart
  float* out = nullptr;      // the same, out_stride apart
  int64_t q_stride = 0;
  int64_t out_stride = 0;
  int64_t queries = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t position = 0;  // of the first query
  int64_t window = 0;    // keys a query sees; 0: all
  float scale = 1;       // of the scores
  // Keys [64 b, 64 b + 64) are the page at keys + block_table[b] * block_stride.
  const uint8_t* keys = nullptr;
  const uint8_t* values = nullptr;
  int64_t block_stride = 0;  // bytes
  const int32_t* block_table = nullptr;
  CacheType type = CacheType::kF16;
  float* scratch = nullptr;  // attention_scratch() floats, initialized, 64-byte aligned
};

struct Kernels {
  const char* isa;

  // y[token][row] = x[token] . w[row] + bias for tiles of 8 rows and for tokens in the ranges.
  // x: rows of x_stride; y: rows of y_stride.
  void (*linear_f32)(const PackedMatrix& w, const float* x, int64_t x_stride, Range tiles,
                     Range tokens, float* y, int64_t y_stride);
  // The same for quantized weights and activations.
  void (*linear_int8)(const PackedMatrix& w, const QuantizedInput& x, Range tiles, Range tokens,
                      float* y, int64_t y_stride);
  // Exact weights of one tile. out: [blocks * 32][8]
  void (*unpack_tile)(const PackedMatrix& w, int64_t tile, float* out);
  // Fills row `token` of out from x[cols].
  void (*quantize_input)(const float* x, int64_t cols, int64_t token, const QuantizedInput& out);

  void (*attention)(const AttentionTask& task);
  int64_t attention_rows;  // queries times heads of one task that are worth its preparations
  int64_t (*attention_scratch)(int64_t queries, int64_t heads, int64_t head_dim);

  // residual += hidden; out = residual / rms(residual) * weight
  void (*add_rms_norm)(float* residual, const float* hidden, const float* weight, int64_t count,
                       float eps, float* out);
  // out may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t count, float eps, float* out);
  // Rotates the pairs (i, i + half) of one head.
  void (*rotate)(float* head, const float* cos, const float* sin, int64_t half);
  void (*silu_mul)(const float* gate, const float* up, int64_t count, float* out);
  void (*store_f16)(const float* x, int64_t count, uint16_t* out);

  // Fills the tile_ arrays for tokens [16 tile, 16 tile + 16). Null: linear_int8 uses none.
  void (*arrange_input)(int64_t tile, const QuantizedInput& x) = nullptr;
};

extern const Kernels kAvx2Kernels;  // the others are made of it and of kernels_avx512.h in isa.cpp

}  // namespace lowbit::cpu
