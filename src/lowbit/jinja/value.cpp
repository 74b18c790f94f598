#include "lowbit/jinja/value.h"

#include <algorithm>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/arguments.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

constexpr size_t kIndexedDict = 8;  // entries from which a dict is searched by hash

int checked_nesting(int depth) {
  if (depth > limits::kTemplateNesting) {
    refuse("lists and dicts are nested deeper than ", limits::kTemplateNesting, " levels");
  }
  return depth;
}

size_t checked_text(size_t bytes) {
  if (bytes > limits::kTemplateStringBytes) {
    refuse("a string is longer than ", limits::kTemplateStringBytes / limits::kMiB, " MiB");
  }
  return bytes;
}

}  // namespace

int nesting(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->depth;
  if (const Dict* dict = value.dict()) return dict->depth();
  return value.object() ? value.object()->depth() : 0;
}

int nesting(const Values& values) {
  int depth = 0;
  for (const Value& value : values) depth = std::max(depth, nesting(value));
  return checked_nesting(depth);
}

Str::Str(std::string text_in, bool markup)
    : charge(checked_text(text_in.size()) + sizeof(Str)),
      text(std::move(text_in)),
      length(unicode::length(text)),
      markup(markup) {
  charge_bytes(text.size());
}

Sequence::Sequence(Type type, Values items_in)
    : charge(items_in.size() * sizeof(Value) + sizeof(Sequence)),
      type(type),
      items(std::move(items_in)),
      depth(nesting(items) + 1) {
  charge_elements(items.size());
}

size_t Dict::position(const Value& key, size_t hash) const {
  if (index_.empty()) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (equal(entries_[i].first, key)) return i;
    }
    return entries_.size();
  }
  const auto [first, last] = index_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    charge_elements(16);
    if (equal(entries_[it->second].first, key)) return it->second;
  }
  return entries_.size();
}

void Dict::set(Value key, Value value) {
  const size_t hash = hash_value(key);
  depth_ = checked_nesting(std::max({depth_, nesting(key) + 1, nesting(value) + 1}));
  const size_t found = position(key, hash);
  if (found < entries_.size()) {
    entries_[found].second = std::move(value);
    return;
  }
  charge_.grow(4 * sizeof(Value));
  entries_.emplace_back(std::move(key), std::move(value));
  if (entries_.size() == kIndexedDict) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      index_.emplace(hash_value(entries_[i].first), i);
    }
  } else if (entries_.size() > kIndexedDict) {
    index_.emplace(hash, entries_.size() - 1);
  }
}

const Value* Dict::find(const Value& key) const {
  const size_t found = position(key, hash_value(key));
  return found < entries_.size() ? &entries_[found].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto matches = [&](const Value& candidate) {
    const Str* text = candidate.string();
    return text && text->text == key;
  };
  if (index_.empty()) {
    for (const auto& [name, value] : entries_) {
      if (matches(name)) return &value;
    }
    return nullptr;
  }
  const auto [first, last] = index_.equal_range(hash_text(key));
  for (auto it = first; it != last; ++it) {
    if (matches(entries_[it->second].first)) return &entries_[it->second].second;
  }
  return nullptr;
}

Value Value::undefined(std::string message) {
  return Value(Stored{}, Storage(Undefined{std::make_shared<const std::string>(std::move(message))}));
}

Value Value::string(std::string text, bool markup) {
  return Value(Stored{}, Storage(std::make_shared<const Str>(std::move(text), markup)));
}

Value Value::list(Values items) {
  return Value(Stored{}, Storage(std::make_shared<const Sequence>(Sequence::Type::kList, std::move(items))));
}

Value Value::tuple(Values items) {
  return Value(Stored{}, Storage(std::make_shared<const Sequence>(Sequence::Type::kTuple, std::move(items))));
}

Value Value::group(Value grouper, Values items) {
  Values pair = {std::move(grouper), list(std::move(items))};
  return Value(Stored{}, Storage(std::make_shared<const Sequence>(Sequence::Type::kGroup, std::move(pair))));
}

std::string Object::repr() const { return "<" + type_name() + " object>"; }

Value Object::call(Interpreter&, Arguments) {
  raise("TypeError: '", type_name(), "' object is not callable");
}

Value Object::at(size_t) const {
  raise("TypeError: '", type_name(), "' object is not subscriptable");
}

Range::Range(Int start, Int stop, Int step) : start(start), stop(stop), step(step), length_(0) {
  if (step == 0) raise("ValueError: range() arg 3 must not be zero");
  constexpr Int kBound = Int{1} << 100;
  for (const Int bound : {start, stop, step}) {
    if (bound > kBound || bound < -kBound) refuse("range() with integers beyond 100 bits");
  }
  Int count = 0;
  if (step > 0 && stop > start) count = (stop - start - 1) / step + 1;
  if (step < 0 && stop < start) count = (start - stop - 1) / -step + 1;
  if (count > limits::kTemplateRange) {
    raise("OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE (",
          limits::kTemplateRange, ").");
  }
  length_ = static_cast<size_t>(count);
}

std::string Range::repr() const {
  std::string text = "range(" + to_text(start) + ", " + to_text(stop);
  if (step != 1) text += ", " + to_text(step);
  return text + ")";
}

Value Range::at(size_t index) const { return Value(start + static_cast<Int>(index) * step); }

bool Range::equals(const Object& other) const {
  const auto* range = dynamic_cast<const Range*>(&other);
  if (!range || range->length_ != length_) return false;
  if (length_ == 0) return true;
  return range->start == start && (length_ == 1 || range->step == step);
}

bool Range::contains(Int value) const {
  const Int offset = value - start;
  return offset % step == 0 && offset / step >= 0 && offset / step < static_cast<Int>(length_);
}

std::string DictView::type_name() const {
  if (part == Part::kKeys) return "dict_keys";
  return part == Part::kValues ? "dict_values" : "dict_items";
}

std::string DictView::repr() const {
  Values items;
  for (size_t i = 0; i < dict->size(); ++i) items.push_back(at(i));
  return type_name() + "(" + jinja::repr(Value::list(std::move(items))) + ")";
}

Value DictView::at(size_t index) const {
  const auto& [key, value] = dict->entries()[index];
  if (part == Part::kKeys) return key;
  return part == Part::kValues ? value : Value::tuple({key, value});
}

bool DictView::equals(const Object& other) const {
  const auto* view = dynamic_cast<const DictView*>(&other);
  if (!view || view->part != part || part == Part::kValues) return this == &other;
  if (view->dict->size() != dict->size()) return false;
  for (const auto& [key, value] : dict->entries()) {
    const Value* counterpart = view->dict->find(key);
    if (!counterpart || (part == Part::kItems && !equal(value, *counterpart))) return false;
  }
  return true;
}

Iterator::Iterator(std::string type, Values items)
    : charge_(items.size() * sizeof(Value)),
      type_(std::move(type)),
      items_(std::move(items)),
      depth_(nesting(items_) + 1) {}

Value Iterator::make(std::string type, Values items) {
  return Value(std::make_shared<Iterator>(std::move(type), std::move(items)));
}

std::optional<Value> Iterator::next() {
  if (position_ == items_.size()) return std::nullopt;
  return items_[position_++];
}

Iteration::Iteration(Value iterable) : iterable_(std::move(iterable)) {
  if (!is_iterable(iterable_)) {
    raise("TypeError: '", type_name(iterable_), "' object is not iterable");
  }
}

std::optional<Value> Iteration::next() {
  if (Meter* meter = Meter::current()) meter->step();
  if (const Sequence* sequence = iterable_.sequence()) {
    if (position_ == sequence->items.size()) return std::nullopt;
    return sequence->items[position_++];
  }
  if (const Dict* dict = iterable_.dict()) {
    if (position_ == dict->size()) return std::nullopt;
    return dict->entries()[position_++].first;
  }
  if (const Str* string = iterable_.string()) {
    if (position_ == string->text.size()) return std::nullopt;
    const size_t bytes = unicode::sequence_bytes(string->text[position_]);
    position_ += bytes;
    return Value::string(string->text.substr(position_ - bytes, bytes));
  }
  Object* object = iterable_.object();
  if (!object) return std::nullopt;  // Undefined
  if (const auto count = object->length()) {
    if (position_ >= *count) return std::nullopt;
    return object->at(position_++);
  }
  return object->next();
}

bool is_iterable(const Value& value) {
  if (value.sequence() || value.dict() || value.string() || value.is_undefined()) return true;
  return value.object() && value.object()->iterable();
}

Values elements(const Value& iterable) {
  if (const Sequence* sequence = iterable.sequence()) return sequence->items;
  Values items;
  Iteration iteration(iterable);
  while (auto item = iteration.next()) items.push_back(std::move(*item));
  return items;
}

std::optional<size_t> length(const Value& value) {
  if (const Str* string = value.string()) return string->length;
  if (const Sequence* sequence = value.sequence()) return sequence->items.size();
  if (const Dict* dict = value.dict()) return dict->size();
  if (value.is_undefined()) return 0;
  return value.object() ? value.object()->length() : std::nullopt;
}

bool truthy(const Value& value) {
  if (value.is_none()) return false;
  if (value.is_bool()) return value.boolean();
  if (value.is_int()) return value.integer() != 0;
  if (value.is_float()) return value.real() != 0;
  return length(value).value_or(1) != 0;
}

std::string type_name(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.is_bool()) return "bool";
  if (value.is_int()) return "int";
  if (value.is_float()) return "float";
  if (const Str* string = value.string()) return string->markup ? "Markup" : "str";
  if (value.dict()) return "dict";
  if (const Sequence* sequence = value.sequence()) {
    return sequence->type == Sequence::Type::kList ? "list" : "tuple";
  }
  return value.object()->type_name();
}

void raise_undefined(const Value& undefined) {
  raise("UndefinedError: ", *undefined.undefined().message);
}

}  // namespace lowbit::jinja
