#include "lowbit/report/comparison.h"

#include <algorithm>
#include <cmath>

#include "lowbit/report/comparison_columns.h"
#include "lowbit/report/table.h"

namespace lowbit {

namespace {

using Better = ComparisonColumn::Better;

template <double ComparisonRow::*kMember>
double member(const Comparison&, const ComparisonRow& row) {
  return row.*kMember;
}
template <std::string ComparisonRow::*kMember>
std::string words(const ComparisonRow& row, double) {
  return row.*kMember;
}
template <int kDigits>
std::string digits(const ComparisonRow&, double value) {
  return fixed(value, kDigits);
}

double change_percent(const Comparison& comparison, const ComparisonRow& row) {
  return 100 * comparison.change(row);
}
double same_top_percent(const Comparison&, const ComparisonRow& row) { return 100 * row.same_top; }

std::string signed_percent(const ComparisonRow&, double value) {
  return (value >= 0 ? "+" : "") + fixed(value, 2) + " %";
}
std::string percent(const ComparisonRow&, double value) { return fixed(value, 2) + " %"; }
// Of a run that went on after an interruption only the last part's time is known.
std::string seconds(const ComparisonRow& row, double value) {
  return (row.quantize_resumed ? "≥ " : "") + fixed(value, 1);
}

using Row = ComparisonRow;
constexpr ComparisonColumn kColumns[] = {
    {"method", "method", "The row's name", Better::kNone, nullptr, words<&Row::name>},
    {"format", "format", "How the weights are stored", Better::kNone, nullptr, words<&Row::format>},
    {"bits_per_weight", "bits/weight", "Of the blocks' linear layers, scales and zeros included",
     Better::kLess, member<&Row::bits_per_weight>, digits<2>},
    {"file_mib", "MiB", "Size of the files with weights", Better::kLess, member<&Row::file_mib>,
     digits<1>},
    {"peak_mib", "peak MiB", "Most resident memory while loading and measuring speed",
     Better::kLess, member<&Row::peak_mib>, digits<0>},
    {"quantize_s", "quantize s", "Seconds to quantize", Better::kNone,
     member<&Row::quantize_seconds>, seconds},
    {"perplexity", "perplexity", "Of the evaluation text", Better::kLess, member<&Row::perplexity>,
     digits<3>},
    {"change_percent", "change", "Of perplexity, against the source", Better::kLess, change_percent,
     signed_percent},
    {"kl", "KL", "Mean Kullback-Leibler divergence from the source's predictions, in nats",
     Better::kLess, member<&Row::kl>, digits<4>},
    {"same_top_percent", "top-1", "Share of positions with the source's likeliest token",
     Better::kMore, same_top_percent, percent},
    {"prefill_tok_s", "prefill tok/s", "Tokens of a prompt read per second", Better::kMore,
     member<&Row::prefill_tok_s>, digits<1>},
    {"decode_tok_s", "decode tok/s", "Tokens generated per second", Better::kMore,
     member<&Row::decode_tok_s>, digits<1>},
    {"loads_in", "loads in", "Programs that read the format", Better::kNone, nullptr,
     words<&Row::loads_in>},
};

// Letters that mean something in a Markdown table or paragraph.
std::string escape_markdown(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n' || c == '\r') {
      out += ' ';
      continue;
    }
    if (std::string_view("\\|`*_[]<>#~").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

// Quoted where commas, quotes or line ends ask for it, or where a spreadsheet would take the text
// for a formula.
std::string escape_csv(const std::string& text) {
  if (text.empty()) return text;
  const bool formula = std::string_view("=+-@\t").find(text[0]) != std::string_view::npos;
  if (!formula && text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = formula ? "\"'" : "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

// JSON has no NaN.
OrderedJson number(double value) {
  return std::isfinite(value) ? OrderedJson(value) : OrderedJson();
}

OrderedJson row_json(const Comparison& comparison, const ComparisonRow& row) {
  OrderedJson out;
  for (const ComparisonColumn& column : kColumns) {
    out[column.key] =
        column.numeric() ? number(column.value(comparison, row)) : OrderedJson(column.text(row, 0));
  }
  out["description"] = row.description;
  out["source"] = row.source;
  out["quantize_peak_mib"] = number(row.quantize_peak_mib);
  out["quantize_resumed"] = row.quantize_resumed;
  out["perplexity_stderr"] = number(row.perplexity_error);
  out["kl_stderr"] = number(row.kl_error);
  out["kl_median"] = number(row.kl_median);
  out["kl_q99"] = number(row.kl_q99);
  out["kl_max"] = number(row.kl_max);
  out["failed"] = row.failed;
  out["notes"] = row.notes;
  out["layers"] = OrderedJson::array();
  for (const auto& [module, error] : row.layer_errors) {
    out["layers"].push_back({{"module", module}, {"relative_error", number(error)}});
  }
  return out;
}

std::vector<const ComparisonColumn*> filled_columns(const Comparison& comparison) {
  std::vector<const ComparisonColumn*> columns;
  for (const ComparisonColumn& column : kColumns) {
    if (!column.empty(comparison)) columns.push_back(&column);
  }
  return columns;
}

}  // namespace

std::span<const ComparisonColumn> comparison_columns() { return kColumns; }

std::string ComparisonColumn::cell(const Comparison& comparison, const ComparisonRow& row) const {
  if (!numeric()) return text(row, 0);
  const double number = value(comparison, row);
  return std::isfinite(number) ? text(row, number) : "–";
}

bool ComparisonColumn::empty(const Comparison& comparison) const {
  return std::none_of(comparison.rows.begin(), comparison.rows.end(), [&](const auto& row) {
    return numeric() ? std::isfinite(value(comparison, row)) : !text(row, 0).empty();
  });
}

const ComparisonRow* Comparison::source() const {
  const auto it =
      std::find_if(rows.begin(), rows.end(), [](const auto& row) { return row.source; });
  return it == rows.end() ? nullptr : &*it;
}

double Comparison::change(const ComparisonRow& row) const {
  const ComparisonRow* original = source();
  if (original == nullptr || original == &row) return kNotMeasured;
  return row.perplexity / original->perplexity - 1;
}

std::string comparison_text(const Comparison& comparison) {
  const std::vector<const ComparisonColumn*> columns = filled_columns(comparison);
  std::vector<std::string> headers;
  for (const auto* column : columns) {
    headers.push_back((column->numeric() ? ">" : "") + std::string(column->header));
  }
  Table table(headers);
  for (const ComparisonRow& row : comparison.rows) {
    std::vector<std::string> cells;
    for (const auto* column : columns) cells.push_back(column->cell(comparison, row));
    table.add(std::move(cells));
  }
  return table.text();
}

std::string comparison_markdown(const Comparison& comparison) {
  const std::vector<const ComparisonColumn*> columns = filled_columns(comparison);
  std::string out = "# " + escape_markdown(comparison.title) + "\n\n";
  if (!comparison.description.empty()) out += escape_markdown(comparison.description) + "\n\n";
  for (const auto& [name, value] : comparison.conditions) {
    out += "- " + escape_markdown(name) + ": " + escape_markdown(value) + "\n";
  }
  std::string header = "\n|", rule = "\n|";
  for (const auto* column : columns) {
    header += std::string(" ") + column->header + " |";
    rule += column->numeric() ? "---:|" : "---|";
  }
  out += header + rule + "\n";
  for (const ComparisonRow& row : comparison.rows) {
    out += "|";
    for (const auto* column : columns) {
      out += " " + escape_markdown(column->cell(comparison, row)) + " |";
    }
    out += "\n";
  }
  std::string notes;
  for (const ComparisonRow& row : comparison.rows) {
    for (const std::string& note : row.notes) {
      notes += "- " + escape_markdown(row.name) + ": " + escape_markdown(note) + "\n";
    }
  }
  return notes.empty() ? out : out + "\n" + notes;
}

std::string comparison_csv(const Comparison& comparison) {
  std::string out;
  for (const ComparisonColumn& column : kColumns) {
    out += std::string(out.empty() ? "" : ",") + column.key;
  }
  out += ",notes\r\n";
  for (const ComparisonRow& row : comparison.rows) {
    for (const ComparisonColumn& column : kColumns) {
      if (!column.numeric()) {
        out += escape_csv(column.text(row, 0)) + ",";
        continue;
      }
      const double value = column.value(comparison, row);
      out += (std::isfinite(value) ? fixed(value, 6) : "") + ",";
    }
    std::string notes;
    for (const std::string& note : row.notes) notes += (notes.empty() ? "" : "; ") + note;
    out += escape_csv(notes) + "\r\n";
  }
  return out;
}

OrderedJson comparison_json(const Comparison& comparison) {
  OrderedJson out;
  out["title"] = comparison.title;
  out["description"] = comparison.description;
  out["conditions"] = OrderedJson::object();
  for (const auto& [name, value] : comparison.conditions) out["conditions"][name] = value;
  out["rows"] = OrderedJson::array();
  for (const ComparisonRow& row : comparison.rows) out["rows"].push_back(row_json(comparison, row));
  return out;
}

}  // namespace lowbit
