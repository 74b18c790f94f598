// JSON texts as fragments: what any schema allows, and numbers within bounds.
#pragma once

#include <optional>

#include "lowbit/base/json.h"
#include "lowbit/grammar/characters.h"

namespace lowbit::grammar {

// Rules that are made when they are first wanted. White space between tokens is at most a space, or
// a line end with an indentation: a model cannot go on with it for ever.
class JsonText {
 public:
  explicit JsonText(Builder& builder) : builder_(builder) {}

  Fragment value();   // any
  Fragment object();  // any
  Fragment array();   // any
  Fragment string();  // any, with its quotes
  Fragment number();
  Fragment integer();
  Fragment space();
  // One character of a string, as it is spelled there.
  Fragment character();
  // A string that is none of these, followed by its quote; the opening quote stands before it.
  Fragment other_string(const std::vector<std::string>& strings);

  // name: value, ... with `entry` for one of them; without the braces.
  Fragment comma_separated(const Builder::Make& entry, int64_t min, int64_t max);

 private:
  Fragment rule(int32_t& index, Fragment (JsonText::*make)());
  Fragment make_value();
  Fragment make_object();
  Fragment make_array();
  Fragment make_string();
  Fragment make_number();
  Fragment make_integer();
  Fragment make_space();
  Fragment make_character();

  Builder& builder_;
  int32_t value_ = -1, object_ = -1, array_ = -1, string_ = -1, number_ = -1, integer_ = -1,
          space_ = -1, character_ = -1;
};

struct Bounds {
  std::optional<double> minimum, maximum;
  bool above = false, below = false;  // the bound itself is excluded
};

// Integers within bounds, as JSON writes them. Throws kInvalidArgument if there are none, or a
// bound is beyond 10^15.
Fragment integer_within(Builder& builder, const Bounds& bounds);
// Numbers without exponent within bounds, which must be integers. Throws kInvalidArgument.
Fragment number_within(Builder& builder, const Bounds& bounds);

}  // namespace lowbit::grammar
