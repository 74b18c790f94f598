// The factor that GPTQ needs of a Hessian, in fp64 and in an order that does not depend on threads.
#pragma once

#include <cstdint>
#include <vector>

#include "lowbit/base/thread_pool.h"

namespace lowbit {

// Cholesky's decomposition in place: the lower half of `a`, [size][size], becomes L with
// a = L * L^T; the upper half is neither read nor written. False, with `a` spoiled, if some pivot
// is not positive (or not a number).
bool cholesky(std::vector<double>& a, int64_t size, ThreadPool& pool);

// With inverse(H) = U^T * U, U upper triangular: U transposed, [size][size] with zeros above the
// diagonal, for H's lower half in `hessian`. That is Cholesky's factor of the inverse without the
// inverse: with rows and columns reversed, H = L * L^T gives U as inverse(L) reversed back. Empty
// if H is not positive definite. Spoils `hessian`.
std::vector<float> inverse_factor(std::vector<double>& hessian, int64_t size, ThreadPool& pool);

}  // namespace lowbit
