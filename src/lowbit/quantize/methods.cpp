#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rtn.h"

namespace lowbit {

namespace {

template <typename Method>
std::unique_ptr<Quantizer> make() {
  return std::make_unique<Method>();
}

constexpr QuantizeMethod kMethods[] = {
    {"rtn", "round to nearest: no data needed, seconds", make<Rtn>},
};

}  // namespace

std::span<const QuantizeMethod> quantize_methods() { return kMethods; }

const QuantizeMethod& quantize_method(const std::string& name) {
  std::string names;
  for (const QuantizeMethod& method : kMethods) {
    if (name == method.name) return method;
    names += concat(names.empty() ? "" : ", ", method.name);
  }
  fail(ErrorKind::kInvalidArgument, "no quantization method \"", name, "\"; there are: ", names);
}

void check_finite(const std::string& name, std::span<const float> row, int64_t row_index) {
  // x * 0 is 0 for finite x and NaN otherwise: one pass without branches finds most rows clean.
  float sum = 0;
  for (const float value : row) sum += value * 0.f;
  if (sum == 0) return;
  for (size_t column = 0; column < row.size(); ++column) {
    LOWBIT_CHECK(std::isfinite(row[column]), name, ": weight is ", row[column], " at row ",
                 row_index, ", column ", column, "; the checkpoint is damaged or overflowed");
  }
}

}  // namespace lowbit
