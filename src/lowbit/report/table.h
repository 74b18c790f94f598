// A plain-text table for the terminal.
#pragma once

#include <string>
#include <vector>

namespace lowbit {

class Table {
 public:
  // Columns whose header starts with '>' are aligned to the right.
  explicit Table(std::vector<std::string> headers);
  // Missing cells are empty; extra cells are an error.
  void add(std::vector<std::string> cells);
  // Lines end in '\n'; columns are two spaces apart, under a rule.
  std::string text() const;

 private:
  std::vector<std::string> headers_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

// "1.23" with so many digits after the point.
std::string fixed(double value, int digits);
// "98.4 MiB", "1.2 GiB", "512 B"
std::string human_bytes(double bytes);
// "134.5 M", "8.03 B"
std::string human_count(double count);

}  // namespace lowbit
