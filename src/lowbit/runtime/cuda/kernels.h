// What the CUDA backend's host code and its kernels share: plain structs and launch functions. A
// launch enqueues on the stream and returns; errors throw kDevice.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lowbit/runtime/cuda/kv_pages.h"

namespace lowbit::cuda {

// A matrix is packed in tiles of 16 rows x 128 columns. The columns of a row are always summed in
// the same order, whatever the kernel and the number of tokens: 16 segments, each in order, then
// the segments in order.
constexpr int kTileRows = 16;
constexpr int kUnitCols = 128;
constexpr int kSegments = 16;

enum class Storage : int { kInt4, kInt8, kTable4, kE4M3, kF16, kBF16 };
enum class ScaleType : int { kF16, kBF16, kF32 };
enum class ZeroType : int { kCenter, kInt, kOffset };

// Words of 16 bytes that one lane of a warp reads from a tile of 16 x 128 weights.
constexpr int lane_words(Storage storage) {
  switch (storage) {
    case Storage::kInt4:
    case Storage::kTable4:
      return 2;
    case Storage::kInt8:
    case Storage::kE4M3:
      return 4;
    case Storage::kF16:
    case Storage::kBF16:
      return 8;
  }
  return 0;
}

// Where the code of row r, column k of a tile lies: word `word` of lane `lane`, at bit `bit` of its
// 32-bit part `part`. Lanes hold what mma.m16n8k16 wants of them: rows lane/4 and lane/4 + 8; of
// each 16 columns the four from 4 * (lane % 4) on.
struct CodePlace {
  int lane, word, part, bit;
};
constexpr CodePlace place_of(Storage storage, int r, int k) {
  const int step = k / 16, lane = r % 8 * 4 + k % 16 / 4, element = k % 4, lower = r / 8 * 2;
  const int pair = step % 2 * 2 + element / 2;  // of the 32 bits, for 4-bit codes
  switch (storage) {
    case Storage::kInt4:
      return {lane, step / 4, lower + step % 4 / 2, pair * 4 + element % 2 * 16};
    case Storage::kTable4:
      return {lane, step / 4, lower + step % 4 / 2, pair * 8 + element % 2 * 4};
    case Storage::kInt8:
    case Storage::kE4M3:
      return {lane, step / 2, lower + step % 2, element * 8};
    case Storage::kF16:
    case Storage::kBF16:
      break;
  }
  return {lane, step, lower + element / 2, element % 2 * 16};
}

// Where unit u of a row of tiles lies. The segments' units alternate where all have as many, so
// that warps that read a segment each read neighbouring bytes at a time.
constexpr int unit_place(int units, int unit) {
  const int length = units / kSegments;
  return units % kSegments == 0 ? unit % length * kSegments + unit / length : unit;
}

// Weights in device memory. Scales (and zeros or offsets) of a tile form a record: for each of its
// groups the scales of rows 0, 8, 1, 9, ..., then for each group the zeros (bytes) or offsets
// (fp32) in that order. Consecutive tiles of a row may share one.
struct PackedMatrix {
  Storage storage = Storage::kF16;
  ScaleType scale_type = ScaleType::kF16;
  ZeroType zero_type = ZeroType::kCenter;
  int rows = 0;
  int cols = 0;
  int units = 0;                         // ceil(cols / 128)
  int center = 0;                        // ZeroType::kCenter: subtracted from integer codes
  int fold = 8;                          // steps of 16 columns that share a scale: 1, 2, 4, 8
  int record_bytes = 0;                  // 0: no scales
  int record_shift = 0;                  // tile u of a row uses record u >> record_shift
  int records = 0;                       // of a row of tiles
  float table_factor = 1;                // kTable4: table / half_table
  const uint4* codes = nullptr;          // [row tiles][units][lane_words][32]
  const uint8_t* scales = nullptr;       // [row tiles][records][record_bytes]
  const float* table = nullptr;          // [16] kTable4: values of codes, exact
  const uint16_t* half_table = nullptr;  // [16] kTable4: as halves
  const int32_t* input_order = nullptr;  // [cols] or null
  const float* bias = nullptr;           // [rows] or null
};

// Copies canonical codes (row-major bit stream in device memory) into tile order, `shift` added to
// each.
void launch_pack(const PackedMatrix& matrix, const uint8_t* raw, int64_t row_bytes, int bits,
                 int shift, uint4* codes, cudaStream_t stream);
// out[i] = row ids[i], exactly as dequantize_row gives it. Rows below first_row or beyond are left.
void launch_embed(const PackedMatrix& matrix, int first_row, const int32_t* ids, int count,
                  float* out, cudaStream_t stream);
// Puts the columns of such rows that `outliers` holds, a matrix of halves, in their places in out:
// [count][cols].
void launch_embed_outliers(const PackedMatrix& outliers, const int32_t* columns, int first_row,
                           const int32_t* ids, int count, int cols, float* out,
                           cudaStream_t stream);

// Inputs of a product: fp32 tokens, each multiplied as one column in 16 bits, or as two (value and
// remainder), which together hold 22 (fp16) or 16 (bf16) bits.
struct LinearInput {
  const float* x = nullptr;  // [tokens][cols]
  int tokens = 0;
  bool split = false;

  constexpr int columns() const { return split ? 2 * tokens : tokens; }
};

// Whether linear_stream can take them: at most 8 columns, that fit into shared memory.
bool stream_fits(const PackedMatrix& matrix, const LinearInput& input, int shared_bytes);
// y[t][row] for few tokens; y_stride in floats.
void launch_linear_stream(const PackedMatrix& matrix, const LinearInput& input, float* y,
                          int64_t y_stride, int processors, cudaStream_t stream);

// A product of one token, of some that follow one another in one kernel (linear_chain_sm90.cu).
struct ChainLink {
  enum class Output { kStore, kAdd, kGate };

  PackedMatrix matrix;
  const float* x = nullptr;     // [cols]
  const float* norm = nullptr;  // [cols]: the inputs are x / rms(x) * norm. Null: x
  float eps = 0;                // of the norm
  float* normed = nullptr;      // [cols]: the inputs, if there is a norm
  // y = product; y += product; y[i] = silu(product[i]) * product[rows / 2 + i]
  Output output = Output::kStore;
  float* y = nullptr;
  float* products = nullptr;  // [rows], of kGate
};
constexpr int kMostLinks = 4;
struct ChainLaunch {
  ChainLink links[kMostLinks];
  int count = 0;
  uint64_t* arrivals = nullptr;  // [kMostLinks - 1], of all launches, zeros at first
};
// Whether it can be a link of a chain; whether two can be links of one.
bool chain_fits(const ChainLink& link, int shared_bytes);
bool chains(const PackedMatrix& a, const PackedMatrix& b);
// The bits of launch_linear_stream and, between the products, of launch_add_rms_norm and
// launch_silu_mul. Chains on one device must follow one another: two at a time would wait for each
// other's multiprocessors, for ever.
void launch_linear_chain(const ChainLaunch& chain, int processors, int shared_bytes,
                         cudaStream_t stream);

// What linear_tile multiplies: inputs made ready by a first kernel.
struct PreparedInput {
  uint16_t* values = nullptr;  // [columns][units * 128]
  float* scales = nullptr;     // [tokens]
  float* sums = nullptr;       // [columns][units * 8]: of the inputs of each group; integers only
};
// The same bits for any number of tokens. On mma.sync.
void launch_linear_tile(const PackedMatrix& matrix, const LinearInput& input,
                        const PreparedInput& prepared, float* y, int64_t y_stride,
                        cudaStream_t stream);

// What the kernels on wgmma (sm_90a) multiply: columns of inputs as the tensor cores read them.
struct WideInput {
  uint16_t* values = nullptr;  // [units][stride / 8][2 halves][8][64], each 8 x 64 swizzled
  float* scales = nullptr;     // [tokens]
  float* sums = nullptr;       // [units * 8][stride]: of the inputs of each group; integers only
  int64_t stride = 0;          // columns, up to a multiple of kWideColumns
};
constexpr int kWideColumns = 128;
void launch_prepare_wide(const PackedMatrix& matrix, const LinearInput& input,
                         const WideInput& wide, cudaStream_t stream);
// The same bits as linear_stream's and linear_tile's. columns: 16, 32 or 64 that a cluster takes.
void launch_linear_split(const PackedMatrix& matrix, const LinearInput& input,
                         const WideInput& wide, int columns, float* y, int64_t y_stride,
                         cudaStream_t stream);
// Once more. rows: 64 or 128 that a block takes.
void launch_linear_wide(const PackedMatrix& matrix, const LinearInput& input, const WideInput& wide,
                        int rows, float* y, int64_t y_stride, int processors, cudaStream_t stream);

// Plain fp32 weights: [rows][cols].
void launch_linear_f32(const float* weight, const float* bias, const float* x, int tokens, int rows,
                       int cols, float* y, int64_t y_stride, cudaStream_t stream);
void launch_embed_f32(const float* weight, int first_row, int rows, int cols, const int32_t* ids,
                      int count, float* out, cudaStream_t stream);

// Where the tokens of a step stand, in device memory.
struct StepView {
  const int32_t* positions = nullptr;      // [tokens]
  const int32_t* table_offsets = nullptr;  // [tokens] first entry of the sequence's block table
  const int32_t* tables = nullptr;
  int tokens = 0;
};

struct AttentionDims {
  int heads = 0, kv_heads = 0, head_dim = 0, window = 0;
  constexpr int qkv_cols() const { return (heads + 2 * kv_heads) * head_dim; }
};

// One layer of the cache: keys and values, [blocks][kv_heads] pages each. A page of floats or
// halves is [64][head_dim], kv_pages.h has the others.
struct CacheView {
  void* keys = nullptr;
  void* values = nullptr;
  CacheType type = CacheType::kF16;
  int64_t blocks = 0;
};

void launch_add_rms_norm(float* residual, const float* hidden, const float* weight, int tokens,
                         int cols, float eps, float* out, cudaStream_t stream);
void launch_qk_norm(float* qkv, const AttentionDims& dims, const float* q_weight,
                    const float* k_weight, int tokens, float eps, cudaStream_t stream);
void launch_rope_store(float* qkv, const AttentionDims& dims, const StepView& step,
                       const float* cos, const float* sin, const CacheView& cache,
                       cudaStream_t stream);
void launch_silu_mul(const float* gate_up, int tokens, int cols, float* out, cudaStream_t stream);
void launch_gather_rows(const float* x, const int32_t* rows, int count, int cols, float* out,
                        cudaStream_t stream);

// Keys that are merged before they join the others (attention.cuh).
constexpr int kAttentionSpan = 256;

// Neighbouring tokens of one sequence that one block of threads attends for.
struct QueryBlock {
  int first, count;  // tokens of the batch
  int table;         // where the sequence's block table starts
  int cached;        // keys of the sequence from before this step
  int position;      // of the first token; the others follow
  int spans_before;  // spans of kAttentionSpan keys of the blocks before this one in its list
};

struct AttentionLaunch {
  AttentionDims dims;
  StepView step;
  CacheView cache;
  const QueryBlock* blocks =
      nullptr;  // in device memory; behind them one whose spans_before counts
  int block_count = 0;
  int most_queries = 1;   // of a block
  int pages = 0;          // of 64 keys, of the longest sequence, or more
  float score_scale = 0;  // log2(e) / sqrt(head_dim)
  // attention_plain: keys of one thread block, 64 or 512 with partial results in `workspace`, or
  // all (0).
  int split_keys = 0;
  float* workspace = nullptr;
  int32_t* arrivals = nullptr;  // [tokens * heads] zeros; left so
  const float* qkv = nullptr;
  // Of one query of each block: [positions][head_dim / 2], by which it rotates its query and the
  // new key, which it stores with its value. Null: all that has been done.
  const float *cos = nullptr, *sin = nullptr;
  float* out = nullptr;

  constexpr bool rotates() const { return cos != nullptr; }
};

// Attention by tensor cores: caches of halves, or of codes that are widened to halves; queries and
// weights rounded to halves. Both kernels make the same bits. attention_few splits the keys;
// `spans` are the key spans of all query blocks, or more. attention_tile neither splits nor
// rotates.
bool tensor_cores_fit(const AttentionDims& dims, CacheType type);
int few_queries(const AttentionDims& dims);                           // the most of a block
int64_t few_workspace(const AttentionLaunch& launch, int64_t spans);  // floats
void launch_attention_few(const AttentionLaunch& launch, int64_t spans, int processors,
                          cudaStream_t stream);
int tile_queries(const AttentionDims& dims);
void launch_attention_tile(const AttentionLaunch& launch, cudaStream_t stream);

// Attention in fp32: any cache, any head.
// Queries of a block, so that queries x grouped heads fill a block of threads.
int attention_queries(const AttentionDims& dims);
// Whether it can rotate such heads, and store them in such a cache.
bool attention_rotates(const AttentionDims& dims, CacheType type);
int64_t attention_workspace(const AttentionLaunch& launch);
// Bytes of shared memory that a block needs.
int64_t attention_shared_bytes(const AttentionDims& dims, int most_queries, bool half);
void launch_attention(const AttentionLaunch& launch, cudaStream_t stream);

// A query about a row of logits (runtime/logit_query.h), and what was found.
struct RowQuery {
  int kind = 0;  // LogitQuery::Kind
  int count = 0;  // kToken: the token
  bool sums = false;
  float scale = 1;
  double uniform = 0;
};
struct RowFindings {
  int id = -1;       // -2: a logit is NaN or +infinity, or none is finite
  int count = 0;     // of candidates; at most kMostCandidates are there
  float top = 0;     // the highest logit
  float bound = 0;   // of candidates; kToken: the token's logit
  double total = 0;  // of exponentials
};
struct RowCandidate {
  float logit;
  int id;
};
constexpr int kRowChunk = 64;  // as engine/logit_row.h

struct RowsLaunch {
  const float* logits = nullptr;  // [rows][vocab]
  int rows = 0, vocab = 0;
  bool sums = false;                   // a row is asked for exponentials
  const RowQuery* queries = nullptr;   // [rows]
  float* maxima = nullptr;             // [rows][chunks()] scratch
  double* chunk_sums = nullptr;        // [rows][chunks()] scratch, if sums
  RowFindings* findings = nullptr;     // [rows]
  RowCandidate* candidates = nullptr;  // [rows][kMostCandidates], if a row is asked for them

  constexpr int chunks() const { return (vocab + kRowChunk - 1) / kRowChunk; }
};
void launch_rows(const RowsLaunch& launch, cudaStream_t stream);

// Sums 4-byte words: what reading alone takes. `sums` holds one word for each of 8 * processors
// blocks.
void launch_read(const void* data, int64_t bytes, uint32_t* sums, int processors,
                 cudaStream_t stream);

}  // namespace lowbit::cuda
