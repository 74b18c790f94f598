// Questions about rows of logits, as wide as a vocabulary: the same passes as engine/logit_row.h,
// with the same results bit for bit, so that a token does not depend on where it was drawn.
//
// Work      A warp finds the highest logit of a chunk of 64; a block per row then knows the highest
//           of all, and which chunks can hold one of the count highest. Exponentials are summed
//           by one thread per chunk, the chunks' sums in order by one thread per row: the order
//           is the host's.
// Bound     A row is read once, twice with exponentials, from L2: it has just been written.
#include "lowbit/runtime/cuda/kernels.h"
#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/logit_query.h"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kSelectThreads = 1024;
constexpr int kNotFinite = -2;

__device__ float infinity() { return __int_as_float(0x7f800000); }

__device__ bool wants(const RowQuery& query, LogitQuery::Kind kind) {
  return query.kind == static_cast<int>(kind);
}

__device__ float warp_maximum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

// A warp per chunk. NaN stands for a chunk with NaN or +infinity in it.
__global__ void __launch_bounds__(kThreads) find_maxima(const RowsLaunch a) {
  grid_start();
  grid_wait();
  const int chunk =
      static_cast<int>(blockIdx.x) * (kThreads / 32) + static_cast<int>(threadIdx.x) / 32;
  if (chunk >= a.chunks()) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, first = chunk * kRowChunk + lane;
  const float* row = a.logits + static_cast<int64_t>(blockIdx.y) * a.vocab;
  const float x = first < a.vocab ? row[first] : -infinity();
  const float y = first + 32 < a.vocab ? row[first + 32] : -infinity();
  const bool fine = x < infinity() && y < infinity();
  const bool all_fine = __all_sync(0xffffffffu, fine) != 0;
  const float highest = warp_maximum(fmaxf(x, y));
  if (lane == 0) {
    a.maxima[static_cast<int64_t>(blockIdx.y) * a.chunks() + chunk] =
        all_fine ? highest : __int_as_float(0x7fffffff);
  }
}

// Larger for higher floats.
__device__ uint32_t order_of(float value) {
  const auto bits = static_cast<uint32_t>(__float_as_int(value));
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float of_order(uint32_t order) {
  return __int_as_float(static_cast<int>(order >> 31 != 0 ? order & 0x7fffffffu : ~order));
}

// One block: a row's chunks.
struct ChunkMaxima {
  const float* values;
  int count;

  // Over all threads of the block; `shared`: a word for each warp.
  __device__ float highest(float* shared) const {
    float mine = -infinity();
    bool fine = true;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kSelectThreads) {
      fine = fine && values[i] == values[i];
      mine = fmaxf(mine, values[i]);
    }
    mine = warp_maximum(mine);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
    const bool all_fine = __syncthreads_and(fine ? 1 : 0) != 0;
    mine = warp_maximum(shared[threadIdx.x % 32]);
    __syncthreads();
    return all_fine && mine > -infinity() ? mine : __int_as_float(0x7fffffff);
  }

  // The nth highest, or -infinity if there are fewer.
  __device__ float nth_highest(int n) const {
    if (n > count) return -infinity();
    uint32_t order = 0;  // the largest that n values reach
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
      int reach = 0;
      for (int begin = 0; begin < count; begin += kSelectThreads) {
        const int i = begin + static_cast<int>(threadIdx.x);
        reach += __syncthreads_count(i < count && order_of(values[i]) >= (order | bit) ? 1 : 0);
      }
      if (reach >= n) order |= bit;
    }
    return of_order(order);
  }

  __device__ int first_of(float value) const {
    __shared__ int found;
    if (threadIdx.x == 0) found = count;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kSelectThreads) {
      if (values[i] == value) atomicMin(&found, i);
    }
    __syncthreads();
    return found;
  }
};

// The first id of a chunk that has the value; for whole warps.
__device__ int first_in_chunk(const float* row, int vocab, int begin, float value) {
  const int id = begin + static_cast<int>(threadIdx.x) % 32;
  const unsigned low = __ballot_sync(0xffffffffu, id < vocab && row[id] == value);
  const unsigned high = __ballot_sync(0xffffffffu, id + 32 < vocab && row[id + 32] == value);
  return low != 0 ? begin + __ffs(static_cast<int>(low)) - 1
                  : begin + 31 + __ffs(static_cast<int>(high));
}

// Appends the finite logits of at least `bound`; returns how many there are.
__device__ int gather(const RowsLaunch& a, const float* row, const ChunkMaxima& maxima, float bound,
                      RowCandidate* candidates) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int chunk = static_cast<int>(threadIdx.x) / 32; chunk < maxima.count;
       chunk += kSelectThreads / 32) {
    if (maxima.values[chunk] < bound) continue;
    for (int id = chunk * kRowChunk + lane; id < min((chunk + 1) * kRowChunk, a.vocab); id += 32) {
      if (row[id] < bound || row[id] == -infinity()) continue;
      const int at = atomicAdd(&count, 1);
      if (at < kMostCandidates) candidates[at] = {row[id], id};
    }
  }
  __syncthreads();
  return count;
}

// A block per row.
__global__ void __launch_bounds__(kSelectThreads) select(const RowsLaunch a) {
  __shared__ float shared[kSelectThreads / 32];
  grid_start();
  grid_wait();
  const int64_t index = blockIdx.x;
  const float* row = a.logits + index * a.vocab;
  const RowQuery query = a.queries[index];
  const ChunkMaxima maxima{a.maxima + index * a.chunks(), a.chunks()};
  RowFindings found;
  found.top = maxima.highest(shared);
  if (found.top != found.top) {
    found.id = kNotFinite;
  } else if (wants(query, LogitQuery::Kind::kHighest)) {
    found.id = first_in_chunk(row, a.vocab, maxima.first_of(found.top) * kRowChunk, found.top);
  } else if (wants(query, LogitQuery::Kind::kTop)) {
    found.bound = maxima.nth_highest(query.count);
    found.count = gather(a, row, maxima, found.bound, a.candidates + index * kMostCandidates);
  } else if (wants(query, LogitQuery::Kind::kToken)) {
    found.bound = row[query.count];
  }
  if (threadIdx.x == 0) a.findings[index] = found;
}

// e^((logit - top) * scale): the host's arithmetic, step by step.
__device__ float exponential(float logit, float top, float scale) {
  float x = __fmul_rn(__fsub_rn(logit, top), scale);
  const bool tiny = x < -87.0f;
  if (tiny) x = -87.0f;
  const float n = __fsub_rn(__fadd_rn(__fmul_rn(x, 1.44269504f), 12582912.0f), 12582912.0f);
  const float r =
      __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
  constexpr float kSeries[] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f};
  float p = 1.f / 5040;
#pragma unroll
  for (const float term : kSeries) p = __fadd_rn(__fmul_rn(p, r), term);
  const float power = __int_as_float((static_cast<int>(n) + 127) << 23);
  return tiny ? 0.f : __fmul_rn(p, power);
}

// A thread per chunk.
__global__ void __launch_bounds__(kThreads) sum_chunks(const RowsLaunch a) {
  grid_start();
  grid_wait();
  const int64_t index = blockIdx.y;
  const int chunk = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const RowQuery query = a.queries[index];
  if (chunk >= a.chunks() || !query.sums) return;
  const float* row = a.logits + index * a.vocab;
  const float top = a.findings[index].top;
  double sum = 0;
  for (int id = chunk * kRowChunk; id < min((chunk + 1) * kRowChunk, a.vocab); ++id) {
    sum += static_cast<double>(exponential(row[id], top, query.scale));
  }
  a.chunk_sums[index * a.chunks() + chunk] = sum;
}

// One thread: where `left` of the row's cumulated sums lies.
__device__ int draw(const RowsLaunch& a, const float* row, const double* sums, float top,
                    float scale, double left) {
  int chunk = 0;
  while (chunk + 1 < a.chunks() && left >= sums[chunk]) left -= sums[chunk++];
  while (sums[chunk] == 0) --chunk;
  const int begin = chunk * kRowChunk;
  int drawn = min(kRowChunk, a.vocab - begin) - 1;
  while (exponential(row[begin + drawn], top, scale) == 0) --drawn;
  for (int i = 0; i < drawn; ++i) {
    left -= static_cast<double>(exponential(row[begin + i], top, scale));
    if (left < 0) drawn = i;
  }
  return begin + drawn;
}

// A block per row: the first thread goes through its sums, which all have brought near.
__global__ void __launch_bounds__(kThreads) finish(const RowsLaunch a) {
  extern __shared__ __align__(16) uint8_t memory[];
  grid_start();
  grid_wait();
  const int64_t index = blockIdx.x;
  const RowQuery query = a.queries[index];
  RowFindings& found = a.findings[index];
  if (!query.sums || found.id == kNotFinite) return;
  auto* sums = reinterpret_cast<double*>(memory);
  for (int i = static_cast<int>(threadIdx.x); i < a.chunks(); i += kThreads) {
    sums[i] = a.chunk_sums[index * a.chunks() + i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0;
  for (int i = 0; i < a.chunks(); ++i) total += sums[i];
  found.total = total;
  if (wants(query, LogitQuery::Kind::kDraw)) {
    found.id =
        draw(a, a.logits + index * a.vocab, sums, found.top, query.scale, query.uniform * total);
  }
}

}  // namespace

void launch_rows(const RowsLaunch& a, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(a.rows);
  const auto blocks = [&](int chunks) {
    return static_cast<unsigned>((a.chunks() + chunks - 1) / chunks);
  };
  launch(find_maxima, dim3(blocks(kThreads / 32), rows), kThreads, 0, stream, a);
  launch(select, dim3(rows), kSelectThreads, 0, stream, a);
  if (!a.sums) return;
  launch(sum_chunks, dim3(blocks(kThreads), rows), kThreads, 0, stream, a);
  launch(finish, dim3(rows), kThreads, static_cast<size_t>(a.chunks()) * sizeof(double), stream, a);
}

}  // namespace lowbit::cuda
