// Backends in tests: which can run here, and values in and out of their tensors.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/runtime/backend.h"

namespace lowbit::test {

// Why the backend cannot be made on this machine; empty if it can.
inline std::string backend_problem(const std::string& name) {
  static std::map<std::string, std::string> problems;
  const auto [found, fresh] = problems.try_emplace(name);
  if (fresh) {
    try {
      make_backend(name, {1, Activations::kF32});
    } catch (const Error& error) {
      found->second = error.what();
    }
  }
  return found->second;
}

// Backends that keep tensors in host memory.
inline bool on_host(const Backend& backend) { return backend.name() != "cuda"; }

inline Tensor tensor_of(Backend& backend, const std::vector<float>& values, int64_t rows) {
  Tensor tensor = backend.allocate(rows, static_cast<int64_t>(values.size()) / rows);
  backend.copy_from_host(values, tensor);
  return tensor;
}

inline std::vector<float> values_of(Backend& backend, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.size()));
  backend.copy_to_host(tensor, values);
  return values;
}

// The first `tokens` rows of x times the linear's weight.
inline std::vector<float> multiply(Backend& backend, const Linear& linear,
                                   const std::vector<float>& x, int64_t tokens) {
  const Tensor input = tensor_of(backend, {x.begin(), x.begin() + tokens * linear.cols()}, tokens);
  Tensor output = backend.allocate(tokens, linear.rows());
  linear.forward(input, output);
  return values_of(backend, output);
}

}  // namespace lowbit::test

// Skips the running test, saying why the backend cannot run here.
#define LOWBIT_SKIP_WITHOUT_BACKEND(name)           \
  if (!lowbit::test::backend_problem(name).empty()) \
  GTEST_SKIP() << lowbit::test::backend_problem(name)
