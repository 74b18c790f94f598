#include "lowbit/runtime/cpu/code_tables.h"

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/tensor/codebook.h"

namespace lowbit::cpu {

namespace {

template <typename T>
CodeTable make_table(const T (&values)[16], float unit) {
  CodeTable table;
  table.unit = unit;
  for (int i = 0; i < 16; ++i) {
    table.values[i] = static_cast<float>(values[i]);
    table.steps[i] = static_cast<int8_t>(std::lround(table.values[i] / unit));
  }
  return table;
}

}  // namespace

const CodeTable& code_table(Code code) {
  static const CodeTable iq4 = make_table(kIq4NlTable, 1.f), e2m1 = make_table(kE2M1Table, 0.5f),
                         nf4 = make_table(kNf4Table, 1.f / 127),
                         fp4 = make_table(kFp4Table, 1.f / 120);
  switch (code) {
    case Code::kIq4Nl:
      return iq4;
    case Code::kE2M1:
      return e2m1;
    case Code::kNf4:
      return nf4;
    case Code::kFp4:
      return fp4;
    default:
      fail(ErrorKind::kUnsupported, "code ", static_cast<int>(code), " has no table of 16 values");
  }
}

}  // namespace lowbit::cpu
