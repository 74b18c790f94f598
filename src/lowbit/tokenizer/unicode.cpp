#include "lowbit/tokenizer/unicode.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <utility>

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

bool keeps_composed(char32_t code) {
  constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x10785},
      {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x11938, 0x11938}, {0x1E030, 0x1E06D},
      {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};
  return std::any_of(std::begin(kRanges), std::end(kRanges), [code](const auto& range) {
    return code >= range.first && code <= range.second;
  });
}

char32_t newer_lowercase(char32_t code) {
  if (code >= 0x10D50 && code <= 0x10D65) return code + 0x20;
  if (code >= 0x16EA0 && code <= 0x16EB8) return code + 0x1B;
  switch (code) {
    case 0x1C89:
    case 0xA7CC:
    case 0xA7CE:
    case 0xA7D2:
    case 0xA7D4:
    case 0xA7DA:
      return code + 1;
    case 0xA7CB:
      return 0x264;
    case 0xA7DC:
      return 0x19B;
    default:
      return 0;
  }
}

const uint8_t* character_classes() {
  static const std::unique_ptr<uint8_t[]> classes = expand();
  return classes.get();
}

}  // namespace lowbit
