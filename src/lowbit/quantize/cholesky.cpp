#include "lowbit/quantize/cholesky.h"

#include <algorithm>
#include <cmath>

namespace lowbit {

namespace {

constexpr int64_t kPanel = 64;    // columns factored together
constexpr int64_t kColumns = 16;  // of the inverse, per turn of a thread

// In lanes that the compiler can keep in vector registers.
double dot(const double* a, const double* b, int64_t count) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[k + lane] * b[k + lane];
  }
  double sum = 0;
  for (; k < count; ++k) sum += a[k] * b[k];
  for (const double lane : lanes) sum += lane;
  return sum;
}

// The panel's columns of its own rows, which no longer depend on earlier columns.
bool factor_diagonal(double* a, int64_t size, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    double* row = a + j * size;
    for (int64_t k = begin; k < j; ++k) {
      row[k] = (row[k] - dot(row + begin, a + k * size + begin, k - begin)) / a[k * size + k];
    }
    const double pivot = row[j] - dot(row + begin, row + begin, j - begin);
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    row[j] = std::sqrt(pivot);
  }
  return true;
}

// Columns [first, first + kColumns) of inverse(L), written to the rows of `out` that hold them
// reversed and transposed.
void invert_columns(const std::vector<double>& l, int64_t size, int64_t first,
                    std::vector<float>& out) {
  const int64_t count = std::min(kColumns, size - first);
  std::vector<double> solved(static_cast<size_t>((size - first) * kColumns));  // [row][column]
  for (int64_t i = first; i < size; ++i) {
    const double* row = l.data() + i * size;
    double sums[kColumns] = {};
    if (i - first < count) sums[i - first] = 1;
    for (int64_t k = first; k < i; ++k) {
      const double* earlier = solved.data() + (k - first) * kColumns;
      for (int c = 0; c < kColumns; ++c) sums[c] -= row[k] * earlier[c];
    }
    double* result = solved.data() + (i - first) * kColumns;
    for (int c = 0; c < kColumns; ++c) result[c] = sums[c] / row[i];
    for (int64_t c = 0; c < count; ++c) {
      if (first + c > i) break;
      out[(size - 1 - first - c) * size + size - 1 - i] = static_cast<float>(result[c]);
    }
  }
}

}  // namespace

bool cholesky(std::vector<double>& matrix, int64_t size, ThreadPool& pool) {
  double* a = matrix.data();
  for (int64_t begin = 0; begin < size; begin += kPanel) {
    const int64_t end = std::min(size, begin + kPanel);
    pool.parallel_for(size - begin, [&](int64_t index, int) {
      double* row = a + (begin + index) * size;
      const int64_t last = std::min(end, begin + index + 1);
      for (int64_t j = begin; j < last; ++j) row[j] -= dot(row, a + j * size, begin);
    });
    if (!factor_diagonal(a, size, begin, end)) return false;
    pool.parallel_for(size - end, [&](int64_t index, int) {
      double* row = a + (end + index) * size;
      for (int64_t j = begin; j < end; ++j) {
        row[j] = (row[j] - dot(row + begin, a + j * size + begin, j - begin)) / a[j * size + j];
      }
    });
  }
  return true;
}

std::vector<float> inverse_factor(std::vector<double>& hessian, int64_t size, ThreadPool& pool) {
  // Reversed in place: [i][j] and [size - 1 - j][size - 1 - i] change places (lower half only).
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i && i + j < size; ++j) {
      std::swap(hessian[i * size + j], hessian[(size - 1 - j) * size + size - 1 - i]);
    }
  }
  if (!cholesky(hessian, size, pool)) return {};
  std::vector<float> factor(static_cast<size_t>(size * size));
  pool.parallel_for((size + kColumns - 1) / kColumns, [&](int64_t index, int) {
    invert_columns(hessian, size, index * kColumns, factor);
  });
  return factor;
}

}  // namespace lowbit
