// Attributes, items and slices, with jinja2's fallbacks and its sandbox.
#include <algorithm>

#include "lowbit/jinja/objects.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

template <size_t N>
bool is_one_of(const std::string& name, const char* const (&names)[N]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Value unsafe(const Value& self, const std::string& name) {
  return Value::undefined("access to attribute " + repr(name) + " of " + repr(type_name(self)) +
                          " object is unsafe.");
}

// What the immutable sandbox hides because it would change the value.
bool is_mutator(const Value& self, const std::string& name) {
  static constexpr const char* kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr const char* kList[] = {"append", "clear", "pop",    "reverse",
                                          "insert", "sort",  "extend", "remove"};
  if (self.dict()) return is_one_of(name, kDict);
  const Sequence* sequence = self.sequence();
  return sequence && sequence->type == Sequence::Type::kList && is_one_of(name, kList);
}

bool is_dunder(const std::string& name) {
  return name.size() > 4 && name.starts_with("__") && name.ends_with("__");
}

std::optional<Value> number_attribute(const Value& self, const std::string& name) {
  if (name == "real") return self.is_integral() ? Value(self.integer()) : self;
  if (name == "imag") return self.is_integral() ? Value(0) : Value(0.0);
  if (!self.is_integral()) return std::nullopt;
  if (name == "numerator") return Value(self.integer());
  if (name == "denominator") return Value(1);
  return std::nullopt;
}

std::string no_attribute(const Value& value, const Value& key) {
  const std::string type = type_name(value);
  const std::string object = value.is_none() ? "None" : type + " object";
  if (key.is_string()) return repr(object) + " has no attribute " + repr(key);
  return object + " has no element " + repr(key);
}

// The element at a Python index; none beyond the ends.
std::optional<Value> element(const Value& value, Int index) {
  const auto count = length(value);
  if (!count) return std::nullopt;
  const auto size = static_cast<Int>(*count);
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  const auto position = static_cast<size_t>(index);
  if (const Sequence* sequence = value.sequence()) return sequence->items[position];
  if (const Str* text = value.string()) {
    if (text->ascii()) return Value::string(text->text.substr(position, 1), text->markup);
    charge_bytes(text->text.size());
    const size_t begin = unicode::offset(text->text, position);
    return Value::string(text->text.substr(begin, unicode::sequence_bytes(text->text[begin])),
                         text->markup);
  }
  if (value.object() && value.object()->indexable()) return value.object()->at(position);
  return std::nullopt;
}

// Python's slice.indices: the positions that start:stop:step selects of `size` elements.
struct Selection {
  Int start, stop, step;

  Selection(const Value& start_value, const Value& stop_value, const Value& step_value, Int size) {
    step = bound(step_value, 1);
    if (step == 0) raise("ValueError: slice step cannot be zero");
    const Int lowest = step < 0 ? -1 : 0, highest = step < 0 ? size - 1 : size;
    const auto clamp = [&](const Value& value, Int fallback) {
      if (value.is_none()) return fallback;
      const Int index = bound(value, 0);
      return std::clamp(index < 0 ? index + size : index, lowest, highest);
    };
    start = clamp(start_value, step < 0 ? highest : lowest);
    stop = clamp(stop_value, step < 0 ? lowest : highest);
    step = std::clamp(step, -size - 1, size + 1);
  }

  static Int bound(const Value& value, Int fallback) {
    constexpr Int kFar = Int{1} << 100;
    if (value.is_none()) return fallback;
    if (value.is_integral()) return std::clamp(value.integer(), -kFar, kFar);
    raise("TypeError: slice indices must be integers or None or have an __index__ method");
  }

  template <typename Visit>
  void each(Visit visit) const {
    for (Int i = start; step > 0 ? i < stop : i > stop; i += step) visit(static_cast<size_t>(i));
  }
};

Value slice_text(const Str& text, const Selection& selection) {
  if (text.ascii() && selection.step == 1) {
    if (selection.start >= selection.stop) return Value::string("", text.markup);
    return Value::string(text.text.substr(static_cast<size_t>(selection.start),
                                          static_cast<size_t>(selection.stop - selection.start)),
                         text.markup);
  }
  charge_bytes(text.text.size() * 4);
  std::string out;
  if (text.ascii()) {
    selection.each([&](size_t i) { out += text.text[i]; });
  } else {
    const std::u32string points = unicode::decode(text.text);
    selection.each([&](size_t i) { unicode::append(out, points[i]); });
  }
  return Value::string(std::move(out), text.markup);
}

}  // namespace

std::optional<Value> python_attribute(const Value& self, const std::string& name) {
  if (is_dunder(name) || is_mutator(self, name)) return unsafe(self, name);
  if (Object* object = self.object()) {
    auto value = object->attribute(name);
    if (value && name.starts_with("_")) return unsafe(self, name);
    if (value) return value;
  }
  const Method* method =
      self.is_string() ? find_string_method(name) : find_container_method(self, name);
  if (method) {
    return Value(std::shared_ptr<Object>(std::make_shared<BoundMethod>(self, name, *method)));
  }
  const Sequence* sequence = self.sequence();
  if (sequence && sequence->type == Sequence::Type::kGroup) {
    if (name == "grouper") return sequence->items[0];
    if (name == "list") return sequence->items[1];
  }
  return self.is_number() ? number_attribute(self, name) : std::nullopt;
}

Value get_attribute(const Value& value, const std::string& name) {
  require_defined(value);
  const Dict* dict = value.dict();
  if (dict && is_dunder(name)) {
    if (const Value* found = dict->find(name)) return *found;
  }
  if (auto attribute = python_attribute(value, name)) return *attribute;
  if (dict) {
    if (const Value* found = dict->find(name)) return *found;
  }
  return Value::undefined(no_attribute(value, Value::string(name)));
}

Value get_item(const Value& value, const Value& key) {
  require_defined(value);
  if (const Dict* dict = value.dict()) {
    const bool unhashable =
        key.dict() || (key.sequence() && key.sequence()->type == Sequence::Type::kList);
    const Value* found = unhashable ? nullptr : dict->find(key);
    if (found) return *found;
  } else if (key.is_integral()) {
    if (auto found = element(value, key.integer())) return *found;
  }
  if (key.is_string()) {
    if (auto attribute = python_attribute(value, key.string()->text)) return *attribute;
  }
  return Value::undefined(no_attribute(value, key));
}

Value get_slice(const Value& value, const Value& start, const Value& stop, const Value& step) {
  require_defined(value);
  const auto* range = value.object_as<Range>();
  if (!value.string() && !value.sequence() && !range) {
    raise("TypeError: '", type_name(value), "' object is not subscriptable by a slice");
  }
  const Selection selection(start, stop, step, static_cast<Int>(*length(value)));
  if (const Str* text = value.string()) return slice_text(*text, selection);
  if (range) {
    return Value(std::make_shared<Range>(range->start + selection.start * range->step,
                                         range->start + selection.stop * range->step,
                                         range->step * selection.step));
  }
  Values items;
  const Sequence& sequence = *value.sequence();
  selection.each([&](size_t i) { items.push_back(sequence.items[i]); });
  return sequence.type == Sequence::Type::kList ? Value::list(std::move(items))
                                                : Value::tuple(std::move(items));
}

}  // namespace lowbit::jinja
