#include "lowbit/engine/stop_strings.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

// Length of the longest end of `text` that begins `stop` without being all of it.
size_t partial_match(std::string_view text, std::string_view stop) {
  size_t length = std::min(text.size(), stop.size() - 1);
  while (length > 0 && text.substr(text.size() - length) != stop.substr(0, length)) --length;
  return length;
}

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0u) == 0x80u; }

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) LOWBIT_CHECK(!stop.empty(), "a stop string is empty");
}

std::string StopStrings::push(const std::string& piece) {
  if (stopped_) return "";
  held_ += piece;
  size_t end = held_.size(), partial = 0;
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    stopped_ = stopped_ || found != std::string::npos;
    end = std::min(end, found);
    partial = std::max(partial, partial_match(held_, stop));
  }
  if (!stopped_) {
    end = held_.size() - partial;
    // A stop string that begins inside a character must not split it.
    while (end > 0 && end < held_.size() && continues_character(held_[end])) --end;
  }
  std::string shown = held_.substr(0, end);
  held_ = stopped_ ? "" : held_.substr(end);
  return shown;
}

std::string StopStrings::finish() { return std::exchange(held_, ""); }

}  // namespace lowbit
