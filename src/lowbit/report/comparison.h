// What `lowbit compare` found, and its forms: a table for the terminal, CSV, Markdown, JSON, and
// one HTML page that needs nothing else.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

struct ComparisonRow {
  std::string name;         // "gptq-asym"
  std::string description;  // "gptq, 4 bits, group 64, asymmetric"
  std::string format;       // of the checkpoint
  std::string loads_in;     // programs
  bool source = false;      // the model that the others were made from or are compared with

  double bits_per_weight = kNotMeasured;  // of the blocks' linears, scales and zeros included
  double file_mib = kNotMeasured;
  double peak_mib = kNotMeasured;  // resident, of the process that loads it and measures speed
  double quantize_seconds = kNotMeasured;
  double quantize_peak_mib = kNotMeasured;
  bool quantize_resumed = false;  // the time is that of the last part
  double perplexity = kNotMeasured, perplexity_error = kNotMeasured;
  double kl = kNotMeasured, kl_error = kNotMeasured;  // mean, nats
  double kl_median = kNotMeasured, kl_q99 = kNotMeasured, kl_max = kNotMeasured;
  double same_top = kNotMeasured;  // share of positions
  double prefill_tok_s = kNotMeasured, decode_tok_s = kNotMeasured;

  // ||W - W'|| / ||W|| of each linear, in the model's order, by its module's name; and of each
  // block the root of the mean square of its linears'.
  std::vector<std::pair<std::string, double>> layer_errors;
  std::vector<double> block_errors;
  std::vector<std::string> notes;  // what one should know, or what went wrong
  bool failed = false;
};

struct Comparison {
  std::string title, description;
  std::vector<std::pair<std::string, std::string>> conditions;  // {"Perplexity", "..., hf, 2048"}
  std::vector<ComparisonRow> rows;

  // The source's row, or null.
  const ComparisonRow* source() const;
  // Perplexity relative to the source's, minus 1.
  double change(const ComparisonRow& row) const;
};

// Columns that no row has a value for are left out of what people read.
std::string comparison_text(const Comparison& comparison);
std::string comparison_markdown(const Comparison& comparison);
std::string comparison_csv(const Comparison& comparison);  // RFC 4180, all columns
OrderedJson comparison_json(const Comparison& comparison);
std::string comparison_html(const Comparison& comparison);

}  // namespace lowbit
