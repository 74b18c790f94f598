#include "lowbit/tokenizer/unicode.h"

#include <cstring>
#include <iterator>
#include <memory>

namespace lowbit {

namespace {

constexpr uint32_t kCodePoints = 0x110000;

constexpr uint32_t kRuns[] = {
#include "lowbit/tokenizer/unicode_ranges.inc"
};

std::unique_ptr<uint8_t[]> expand() {
  auto classes = std::make_unique<uint8_t[]>(kCodePoints);
  for (size_t i = 0; i < std::size(kRuns); ++i) {
    const uint32_t begin = kRuns[i] >> 6;
    const uint32_t end = i + 1 < std::size(kRuns) ? kRuns[i + 1] >> 6 : kCodePoints;
    std::memset(classes.get() + begin, static_cast<int>(kRuns[i] & 63), end - begin);
  }
  return classes;
}

}  // namespace

const uint8_t* character_classes() {
  static const std::unique_ptr<uint8_t[]> classes = expand();
  return classes.get();
}

}  // namespace lowbit
