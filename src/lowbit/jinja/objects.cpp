#include "lowbit/jinja/objects.h"

#include <algorithm>

#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

std::string Macro::repr() const {
  return "<Macro " + (syntax_.name.empty() ? "anonymous" : jinja::repr(syntax_.name)) + ">";
}

Value Macro::call(Interpreter& interpreter, Arguments arguments) {
  return interpreter.call_macro(syntax_, closure_, std::move(arguments));
}

std::optional<Value> Macro::attribute(const std::string& name) {
  if (name == "name") {
    return syntax_.name.empty() ? Value() : Value::string(syntax_.name);
  }
  if (name == "catch_kwargs") return Value(syntax_.uses_kwargs);
  if (name == "catch_varargs") return Value(syntax_.uses_varargs);
  if (name == "caller") return Value(syntax_.uses_caller);
  if (name != "arguments") return std::nullopt;
  Values names;
  for (const Parameter& parameter : syntax_.parameters) {
    names.push_back(Value::string(parameter.name));
  }
  return Value::list(std::move(names));
}

std::optional<Value> Loop::advance() {
  std::optional<Value> item = after_ ? std::exchange(after_, std::nullopt) : source_();
  if (!item) return std::nullopt;
  ++index_;
  before_ = std::move(current_);
  current_ = item;
  return item;
}

void Loop::finish() {
  finished_ = true;
  if (!length_) length_ = index_ + (after_ ? 1 : 0);
  source_ = [] { return std::nullopt; };
  before_ = current_ = after_ = std::nullopt;
  last_changed_.reset();
}

size_t Loop::count() const {
  if (length_) return *length_;
  auto rest = std::make_shared<Values>();
  while (auto item = source_()) rest->push_back(std::move(*item));
  length_ = rest->size() + index_ + (after_ ? 1 : 0);
  source_ = [rest, next = size_t{0}]() mutable -> std::optional<Value> {
    if (next == rest->size()) return std::nullopt;
    return (*rest)[next++];
  };
  return *length_;
}

const std::optional<Value>& Loop::peek() {
  if (!after_) after_ = source_();
  return after_;
}

std::string Loop::repr() const {
  return concat("<LoopContext ", index_, "/", count(), ">");
}

Value Loop::call(Interpreter& interpreter, Arguments arguments) {
  Bound bound(arguments, "loop", {"iterable"}, 1);
  if (!statement_.recursive) {
    raise("TypeError: The loop must have the 'recursive' marker to be called recursively.");
  }
  return interpreter.call_loop(statement_, scope_, bound[0], depth0_ + 1);
}

Value Loop::cycle(Arguments& arguments) const {
  if (arguments.positional.empty()) raise("TypeError: no items for cycling given");
  return arguments.positional[(index_ - 1) % arguments.positional.size()];
}

bool Loop::changed(Arguments& arguments) {
  if (last_changed_ &&
      equal(Value::tuple(*last_changed_), Value::tuple(arguments.positional))) {
    return false;
  }
  if (!finished_) last_changed_ = arguments.positional;
  return true;
}

std::optional<Value> Loop::attribute(const std::string& name) {
  if (name == "index") return Value(index_);
  if (name == "index0") return Value(static_cast<Int>(index_) - 1);
  if (name == "length") return Value(count());
  if (name == "revindex") return Value(static_cast<Int>(count()) - static_cast<Int>(index_) + 1);
  if (name == "revindex0") return Value(static_cast<Int>(count()) - static_cast<Int>(index_));
  if (name == "first") return Value(index_ == 1);
  if (name == "last") return Value(!peek());
  if (name == "depth") return Value(depth0_ + 1);
  if (name == "depth0") return Value(depth0_);
  if (name == "previtem") {
    return before_ ? *before_ : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return peek() ? *peek() : Value::undefined("there is no next item");
  }
  if (name != "cycle" && name != "changed") return std::nullopt;
  // A method that looks the loop up again would outlive it; this one is bound to its variable.
  const auto self = std::static_pointer_cast<Loop>(shared_from_this());
  if (name == "cycle") {
    return Function::make(name, [self](Interpreter&, Arguments& a) { return self->cycle(a); });
  }
  return Function::make(name,
                        [self](Interpreter&, Arguments& a) { return Value(self->changed(a)); });
}

std::string Namespace::repr() const {
  const Recursion recursion;
  std::string out = "<Namespace {";
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (i) out += ", ";
    out += jinja::repr(entries_[i].first) + ": " + jinja::repr(entries_[i].second);
    charge_bytes(256);
  }
  return out + "}>";
}

std::optional<Value> Namespace::attribute(const std::string& name) {
  for (const auto& [key, value] : entries_) {
    if (key == name) return value;
  }
  return std::nullopt;
}

void Namespace::set(const std::string& name, Value value) {
  if (name.starts_with("_")) {
    raise("SecurityError: Chat templates cannot store underscore-prefixed attributes on a "
          "namespace, but got ", jinja::repr(name), ". Please rename the attribute.");
  }
  charge_elements(entries_.size());
  for (auto& [key, old] : entries_) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  charge_.grow(sizeof(entries_[0]) + name.size());
  entries_.emplace_back(name, std::move(value));
}

Cycler::Cycler(Values items) : items_(std::move(items)), depth_(nesting(items_) + 1) {
  if (items_.empty()) raise("RuntimeError: at least one item has to be provided");
}

std::optional<Value> Cycler::attribute(const std::string& name) {
  if (name == "current") return items_[position_];
  if (name == "pos") return Value(position_);
  if (name == "items") return Value::tuple(items_);
  if (name != "next" && name != "reset") return std::nullopt;
  const auto self = std::static_pointer_cast<Cycler>(shared_from_this());
  return Function::make(name, [self, next = name == "next"](Interpreter&, Arguments& arguments) {
    const Bound none(arguments, "cycler method", {});
    const Value current = self->items_[self->position_];
    self->position_ = next ? (self->position_ + 1) % self->items_.size() : 0;
    return next ? current : Value();
  });
}

Value Joiner::call(Interpreter&, Arguments arguments) {
  const Bound none(arguments, "joiner", {});
  return Value::string(std::exchange(used_, true) ? separator_ : "");
}

std::optional<Value> Joiner::attribute(const std::string& name) {
  if (name == "sep") return Value::string(separator_);
  if (name == "used") return Value(used_);
  return std::nullopt;
}

BoundMethod::BoundMethod(Value self, std::string name, Method method)
    : self_(std::move(self)), name_(std::move(name)), method_(method), depth_(nesting(self_) + 1) {}

std::string BoundMethod::repr() const {
  return "<built-in method " + name_ + " of " + jinja::type_name(self_) + " object>";
}

Value BoundMethod::call(Interpreter&, Arguments arguments) { return method_(self_, arguments); }

}  // namespace lowbit::jinja
