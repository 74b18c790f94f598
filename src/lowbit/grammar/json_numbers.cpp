#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/grammar/json_text.h"

namespace lowbit::grammar {

namespace {

constexpr int64_t kLargest = 1'000'000'000'000'000;  // 10^15: doubles have all of them
constexpr int64_t kFractionDigits = 15;

Fragment digits(Builder& builder, int64_t count) {
  return builder.repeat([&] { return builder.bytes('0', '9'); }, count, count);
}

Fragment digit_between(Builder& builder, char low, char high) {
  return builder.bytes(static_cast<uint8_t>(low), static_cast<uint8_t>(high));
}

// Decimal numbers of one length between two of that length.
Fragment same_length(Builder& builder, std::string_view low, std::string_view high) {
  if (low.empty()) return builder.empty();
  const auto rest = static_cast<int64_t>(low.size()) - 1;
  const bool all = low.find_first_not_of('0') == std::string_view::npos &&
                   high.find_first_not_of('9') == std::string_view::npos;
  if (all) return digits(builder, rest + 1);
  if (low[0] == high[0]) {
    return builder.sequence({digit_between(builder, low[0], low[0]),
                             same_length(builder, low.substr(1), high.substr(1))});
  }
  std::vector<Fragment> parts = {
      builder.sequence({digit_between(builder, low[0], low[0]),
                        same_length(builder, low.substr(1), std::string(low.size() - 1, '9'))}),
      builder.sequence({digit_between(builder, high[0], high[0]),
                        same_length(builder, std::string(low.size() - 1, '0'), high.substr(1))})};
  if (high[0] - low[0] > 1) {
    parts.push_back(builder.sequence(
        {digit_between(builder, static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)),
         digits(builder, rest)}));
  }
  return builder.choice(parts);
}

// Integers in [low, high], 0 <= low <= high.
Fragment natural(Builder& builder, int64_t low, int64_t high) {
  std::vector<Fragment> parts;
  for (int64_t begin = low; begin <= high;) {
    const std::string text = std::to_string(begin);
    int64_t last = 9;  // the largest with as many digits
    for (size_t i = 1; i < text.size(); ++i) last = last * 10 + 9;
    const int64_t end = std::min(last, high);
    parts.push_back(same_length(builder, text, std::to_string(end)));
    begin = end + 1;
  }
  return builder.choice(parts);
}

int64_t checked(double bound) {
  LOWBIT_CHECK(std::abs(bound) <= static_cast<double>(kLargest), "a bound beyond 10^15");
  return static_cast<int64_t>(bound);
}

// 0 <= low <= high; ends that do not belong to it are named by `above` and `below`.
Fragment decimal(Builder& builder, int64_t low, int64_t high, bool above, bool below) {
  const auto fraction = [&] {
    return builder.sequence(
        {builder.literal("."),
         builder.repeat([&] { return builder.bytes('0', '9'); }, 1, kFractionDigits)});
  };
  std::vector<Fragment> parts;
  const int64_t first = above ? low + 1 : low;
  if (first < high) {
    parts.push_back(
        builder.sequence({natural(builder, first, high - 1), builder.optional(fraction())}));
  }
  if (above && low < high) {  // the bound with anything but zeros behind it
    parts.push_back(builder.sequence(
        {builder.literal(std::to_string(low) + "."),
         builder.repeat([&] { return builder.bytes('0', '9'); }, 0, kFractionDigits - 1),
         builder.bytes('1', '9')}));
  }
  if (!below && (low < high || !above)) {
    const Fragment zeros = builder.sequence(
        {builder.literal("."),
         builder.repeat([&] { return builder.literal("0"); }, 1, kFractionDigits)});
    parts.push_back(
        builder.sequence({builder.literal(std::to_string(high)), builder.optional(zeros)}));
  }
  LOWBIT_CHECK(!parts.empty(), "no number is within the bounds");
  return builder.choice(parts);
}

}  // namespace

Fragment integer_within(Builder& builder, const Bounds& bounds) {
  int64_t low = -kLargest, high = kLargest;
  if (bounds.minimum) {
    low = checked(std::ceil(*bounds.minimum));
    if (bounds.above && static_cast<double>(low) == *bounds.minimum) ++low;
  }
  if (bounds.maximum) {
    high = checked(std::floor(*bounds.maximum));
    if (bounds.below && static_cast<double>(high) == *bounds.maximum) --high;
  }
  LOWBIT_CHECK(low <= high, "no integer is within the bounds");
  std::vector<Fragment> parts;
  if (high >= 0) parts.push_back(natural(builder, std::max<int64_t>(low, 0), high));
  if (low < 0) {
    parts.push_back(builder.sequence(
        {builder.literal("-"), natural(builder, std::max<int64_t>(-high, 1), -low)}));
  }
  return builder.choice(parts);
}

Fragment number_within(Builder& builder, const Bounds& bounds) {
  const auto whole = [](std::optional<double> bound, int64_t fallback) {
    if (!bound) return fallback;
    LOWBIT_CHECK(std::trunc(*bound) == *bound, "a bound that is not an integer, on a \"number\"");
    return checked(*bound);
  };
  const int64_t low = whole(bounds.minimum, -kLargest), high = whole(bounds.maximum, kLargest);
  LOWBIT_CHECK(low <= high, "no number is within the bounds");
  std::vector<Fragment> parts;
  if (high > 0 || (high == 0 && !bounds.below)) {
    const bool from_low = low >= 0;
    parts.push_back(decimal(builder, from_low ? low : 0, high, from_low && bounds.above,
                            bounds.below));
  }
  if (low < 0) {  // the same behind a minus, seen from the other side
    const bool to_high = high <= 0;
    parts.push_back(builder.sequence(
        {builder.literal("-"),
         decimal(builder, to_high ? -high : 0, -low, !to_high || bounds.below, bounds.above)}));
  }
  LOWBIT_CHECK(!parts.empty(), "no number is within the bounds");
  return builder.choice(parts);
}

}  // namespace lowbit::grammar
