// The factor that GPTQ needs, U of inverse(H) = U^T U, without the inverse: with rows and columns
// reversed H = L L^T, and inverse(L) reversed back is U. In fp64.
//
// Cholesky's method takes panels of columns: the diagonal block is factored, rows below it are
// solved against it, and their products leave the rest. Rows of the unit matrix below H, put
// through the same steps, become inverse(L)^T. A row of it is not zero only from its diagonal on,
// where H's panels are done with: so it takes their place, above the diagonal.
#include "lowbit/quantize/cuda/kernels.h"
#include "lowbit/quantize/cuda/plain_launch.cuh"
#include "lowbit/runtime/cuda/mma.cuh"

namespace lowbit::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void arrange(const double* hessian, int64_t cols, int64_t stride, const int32_t* order,
                        double damping, double* a, int64_t size) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, i = blockIdx.y;
  if (j >= size) return;
  double value = i == j ? 1 : 0;
  if (j <= i && i < cols) {
    const int32_t row = order[cols - 1 - i], col = order[cols - 1 - j];
    value = hessian[max(row, col) * stride + min(row, col)];
    if (i == j) value = (value > 0 ? value : 1) + damping;
  }
  a[i * size + j] = value;
}

__global__ void take_factor(const double* a, int64_t size, int64_t cols, float* factor) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, i = blockIdx.y;
  if (j >= cols) return;
  factor[i * cols + j] = j <= i ? static_cast<float>(a[(cols - 1 - i) * size + cols - 1 - j]) : 0.f;
}

// One block. panel: L of the diagonal block, and in place of its diagonal the inverses.
__global__ void __launch_bounds__(kThreads)
    factor_diagonal(const double* a, int64_t size, double* panel, int* failed) {
  __shared__ double block[kPanel][kPanel + 1];
  const int thread = static_cast<int>(threadIdx.x), row = thread % kPanel, part = thread / kPanel;
  for (int i = thread; i < kPanel * kPanel; i += kThreads) {
    block[i / kPanel][i % kPanel] = a[i / kPanel * size + i % kPanel];
  }
  __syncthreads();
  for (int k = 0; k < kPanel; ++k) {
    const double pivot = block[k][k];
    if (!(pivot > 0) || isinf(pivot)) {
      if (thread == 0) *failed = 1;
      return;
    }
    const double root = sqrt(pivot);
    __syncthreads();
    if (part == 0 && row >= k) block[row][k] = row == k ? root : block[row][k] / root;
    __syncthreads();
    for (int j = k + 1 + part; j <= row; j += kThreads / kPanel) {
      block[row][j] = fma(-block[row][k], block[j][k], block[row][j]);
    }
    __syncthreads();
  }
  for (int i = thread; i < kPanel * kPanel; i += kThreads) {
    const int r = i / kPanel, c = i % kPanel;
    panel[i] = r == c ? 1 / block[r][c] : block[r][c];
  }
}

// Rows of the panel, a thread each, times inverse(L^T) of the diagonal block; those of the diagonal
// block itself start as the unit matrix.
constexpr int kSolveThreads = 64;
constexpr size_t kSolveBytes = kPanel * (kPanel + kSolveThreads + 1) * sizeof(double);
__global__ void __launch_bounds__(kSolveThreads)
    solve_panel(double* a, int64_t size, int64_t begin, const double* panel, const int* failed) {
  extern __shared__ double shared[];
  const auto lower = reinterpret_cast<double(*)[kPanel]>(shared);
  const auto rows = reinterpret_cast<double(*)[kSolveThreads + 1]>(shared + kPanel * kPanel);
  if (*failed) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSolveThreads;
  for (int i = thread; i < kPanel * kPanel; i += kSolveThreads) {
    lower[i / kPanel][i % kPanel] = panel[i];
    const int64_t row = first + i / kPanel;
    const bool unit = row >= begin && row < begin + kPanel;
    rows[i % kPanel][i / kPanel] =
        unit ? (row - begin == i % kPanel ? 1 : 0) : a[row * size + begin + i % kPanel];
  }
  __syncthreads();
  double x[kPanel];
#pragma unroll
  for (int j = 0; j < kPanel; ++j) x[j] = rows[j][thread];
#pragma unroll
  for (int j = 0; j < kPanel; ++j) {
    x[j] *= lower[j][j];
#pragma unroll
    for (int later = j + 1; later < kPanel; ++later) {
      x[later] = fma(-x[j], lower[later][j], x[later]);
    }
  }
#pragma unroll
  for (int j = 0; j < kPanel; ++j) rows[j][thread] = x[j];
  __syncthreads();
  for (int i = thread; i < kPanel * kSolveThreads; i += kSolveThreads) {
    a[(first + i / kPanel) * size + begin + i % kPanel] = rows[i % kPanel][i / kPanel];
  }
}

// Takes the panel's products out of the columns behind it, a tile at a time, by tensor cores, whose
// fp64 rounds as fma() does: of the rows of inverse(L)^T that have begun all, of H's those up to
// the diagonal.
constexpr int kUpdateRows = 2 * kPanel;  // of a block of eight warps, 32 x 32 each
constexpr int kTileStride = kPanel + 4;  // a warp's loads meet each bank once
constexpr size_t kTileBytes = (kUpdateRows + kPanel) * kTileStride * sizeof(double);
constexpr int kPart = 16;  // columns of the panel that arrive together

// One part of the rows of both operands.
__device__ void load_part(const double* a, int64_t size, int64_t begin, int64_t row0, int64_t col0,
                          int part, double* tile) {
  for (int i = static_cast<int>(threadIdx.x); i < (kUpdateRows + kPanel) * (kPart / 2);
       i += kThreads) {
    const int line = i / (kPart / 2), k = part * kPart + i % (kPart / 2) * 2;
    const int64_t row = line < kUpdateRows ? row0 + line : col0 + line - kUpdateRows;
    copy16_async(tile + line * kTileStride + k, a + min(row, size - 1) * size + begin + k);
  }
  copies_commit();
}

__device__ void multiply_add(double (&c)[2], double a, double b) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
      : "+d"(c[0]), "+d"(c[1])
      : "d"(a), "d"(b));
}

// rows, cols: of the warp's operands, at the lane's place.
__device__ void subtract_part(const double* rows, const double* cols, double (&c)[4][4][2]) {
#pragma unroll
  for (int k = 0; k < kPart; k += 4) {
    double a[4], b[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = -rows[i * 8 * kTileStride + k];
      b[i] = cols[i * 8 * kTileStride + k];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) multiply_add(c[i][j], a[i], b[j]);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2)
    update_rest(double* a, int64_t size, int64_t begin, const int* failed) {
  extern __shared__ double shared[];
  const int64_t end = begin + kPanel;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kUpdateRows;
  const int64_t col0 = end + static_cast<int64_t>(blockIdx.x) * kPanel;
  const auto counts = [&](int64_t row) { return row < size && (row < end || col0 <= row); };
  if (*failed || !(counts(row0) || counts(row0 + kPanel))) return;
  constexpr int kParts = kPanel / kPart;
#pragma unroll
  for (int part = 0; part < kParts; ++part) load_part(a, size, begin, row0, col0, part, shared);

  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int m = warp / 2 * 32, n = warp % 2 * 32;  // warps of one row have the same diagonal block
  const bool valid = counts((row0 + m) / kPanel * kPanel);
  double* corner = a + (row0 + m + lane / 4) * size + col0 + n + lane % 4 * 2;
  double c[4][4][2] = {};
#pragma unroll
  for (int i = 0; i < 4 && valid; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const double2 v = *reinterpret_cast<const double2*>(corner + i * 8 * size + j * 8);
      c[i][j][0] = v.x, c[i][j][1] = v.y;
    }
  }
  const double* rows = shared + (m + lane / 4) * kTileStride + lane % 4;
  const double* cols = shared + (kUpdateRows + n + lane / 4) * kTileStride + lane % 4;
  const auto subtract = [&](int part) {
    __syncthreads();
    if (valid) subtract_part(rows + part * kPart, cols + part * kPart, c);
  };
  copies_wait<3>(), subtract(0);
  copies_wait<2>(), subtract(1);
  copies_wait<1>(), subtract(2);
  copies_wait<0>(), subtract(3);
  static_assert(kParts == 4);
#pragma unroll
  for (int i = 0; i < 4 && valid; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      *reinterpret_cast<double2*>(corner + i * 8 * size + j * 8) =
          make_double2(c[i][j][0], c[i][j][1]);
    }
  }
}

}  // namespace

void launch_inverse_cholesky(double* a, int64_t size, double* panel, int* failed,
                             cudaStream_t stream) {
  for (int64_t begin = 0; begin < size; begin += kPanel) {
    launch_plain(factor_diagonal, dim3(1), kThreads, 0, stream, a + begin * size + begin, size,
                 panel, failed);
    launch_plain(solve_panel, blocks_of(size, kSolveThreads), kSolveThreads, kSolveBytes, stream, a,
                 size, begin, panel, failed);
    const dim3 grid(static_cast<unsigned>((size - begin) / kPanel - 1),
                    static_cast<unsigned>((size + kUpdateRows - 1) / kUpdateRows));
    launch_plain(update_rest, grid, kThreads, kTileBytes, stream, a, size, begin, failed);
  }
}

void launch_arrange(const double* hessian, int64_t cols, int64_t stride, const int32_t* order,
                    double damping, double* a, int64_t size, cudaStream_t stream) {
  const dim3 grid(blocks_of(size, kThreads).x, static_cast<unsigned>(size));
  launch_plain(arrange, grid, kThreads, 0, stream, hessian, cols, stride, order, damping, a, size);
}

void launch_take_factor(const double* a, int64_t size, int64_t cols, float* factor,
                        cudaStream_t stream) {
  const dim3 grid(blocks_of(cols, kThreads).x, static_cast<unsigned>(cols));
  launch_plain(take_factor, grid, kThreads, 0, stream, a, size, cols, factor);
}

}  // namespace lowbit::cuda
