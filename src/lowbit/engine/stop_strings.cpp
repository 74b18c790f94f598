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
  if (stopped()) return "";
  held_ += piece;
  size_t begin = 0, end = std::string::npos, partial = 0;  // of the stop string found
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    if (found != std::string::npos &&
        std::pair(found + stop.size(), found) < std::pair(end, begin)) {
      begin = found;
      end = found + stop.size();
      found_ = stop;
    }
    partial = std::max(partial, partial_match(held_, stop));
  }
  size_t shown = stopped() ? begin : held_.size() - partial;
  // A stop string that begins inside a character must not split it.
  while (!stopped() && shown > 0 && shown < held_.size() && continues_character(held_[shown])) {
    --shown;
  }
  std::string text = held_.substr(0, shown);
  held_ = stopped() ? "" : held_.substr(shown);
  return text;
}

std::string StopStrings::finish() { return std::exchange(held_, ""); }

}  // namespace lowbit
