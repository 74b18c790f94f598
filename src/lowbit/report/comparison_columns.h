// The columns of a comparison's tables, once for all their forms.
#pragma once

#include <span>
#include <string>

#include "lowbit/report/comparison.h"

namespace lowbit {

struct ComparisonColumn {
  enum class Better { kNone, kLess, kMore };

  const char* key;     // "file_mib", in CSV and JSON
  const char* header;  // "MiB"
  const char* meaning;
  Better better;
  // One of the two: the number and its text, or a text.
  double (*value)(const Comparison&, const ComparisonRow&);
  std::string (*text)(const ComparisonRow&, double value);

  bool numeric() const { return value != nullptr; }
  // "–" if not measured.
  std::string cell(const Comparison& comparison, const ComparisonRow& row) const;
  bool empty(const Comparison& comparison) const;  // for every row
};
std::span<const ComparisonColumn> comparison_columns();

}  // namespace lowbit
