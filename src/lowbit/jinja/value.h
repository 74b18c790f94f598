// Values of templates: Python's None, bool, int, float, str, list, tuple and dict, jinja2's
// Undefined, and objects with behaviour (ranges, macros, namespaces, ...). Immutable and shared,
// except what objects hold.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "lowbit/jinja/error.h"
#include "lowbit/jinja/meter.h"

namespace lowbit::jinja {

class Value;
class Dict;
class Object;
struct Sequence;
class Interpreter;
struct Arguments;

__extension__ using Int = __int128;  // Python's int; more bits are refused
using Values = std::vector<Value>;

struct None {};

// jinja2's Undefined. Printing it gives nothing; most uses raise its message.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

// A str of `length` code points in valid UTF-8. markup: escaped HTML (markupsafe.Markup).
struct Str {
  Str(std::string text, bool markup);
  bool ascii() const { return length == text.size(); }

  MemoryCharge charge;  // first: throws before anything is copied
  std::string text;
  size_t length;
  bool markup;
};

class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, Int, double, std::shared_ptr<const Str>,
                               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                               std::shared_ptr<Object>>;

  Value() : storage_(None{}) {}
  explicit Value(bool value) : storage_(value) {}
  explicit Value(double value) : storage_(value) {}
  explicit Value(Int value) : storage_(value) {}
  explicit Value(int value) : storage_(Int{value}) {}
  explicit Value(int64_t value) : storage_(Int{value}) {}
  explicit Value(size_t value) : storage_(static_cast<Int>(value)) {}
  explicit Value(std::shared_ptr<const Dict> dict) : storage_(std::move(dict)) {}
  explicit Value(std::shared_ptr<Object> object) : storage_(std::move(object)) {}
  template <typename T>
  explicit Value(T*) = delete;

  static Value undefined(std::string message);
  static Value string(std::string text, bool markup = false);
  static Value list(Values items);
  static Value tuple(Values items);
  static Value group(Value grouper, Values items);

  bool is_undefined() const { return std::holds_alternative<Undefined>(storage_); }
  bool is_none() const { return std::holds_alternative<None>(storage_); }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }
  bool is_int() const { return std::holds_alternative<Int>(storage_); }  // not bool
  bool is_float() const { return std::holds_alternative<double>(storage_); }
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_number() const { return is_integral() || is_float(); }
  bool is_string() const { return string() != nullptr; }

  const Undefined& undefined() const { return std::get<Undefined>(storage_); }
  bool boolean() const { return std::get<bool>(storage_); }
  Int integer() const { return is_bool() ? Int{boolean()} : std::get<Int>(storage_); }
  double real() const {  // of any number
    return is_float() ? std::get<double>(storage_) : static_cast<double>(integer());
  }
  // Null if the value is of another type.
  const Str* string() const { return get<const Str>(); }
  const Sequence* sequence() const { return get<const Sequence>(); }
  const Dict* dict() const { return get<const Dict>(); }
  Object* object() const { return get<Object>(); }
  template <typename T>
  T* object_as() const {
    return dynamic_cast<T*>(object());
  }
  const std::shared_ptr<const Dict>& shared_dict() const {
    return std::get<std::shared_ptr<const Dict>>(storage_);
  }
  const Storage& storage() const { return storage_; }

 private:
  template <typename T>
  T* get() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&storage_);
    return pointer ? pointer->get() : nullptr;
  }
  struct Stored {};
  Value(Stored, Storage storage) : storage_(std::move(storage)) {}

  Storage storage_;
};

// A list or tuple.
struct Sequence {
  enum class Type { kList, kTuple, kGroup };  // kGroup: groupby's (grouper, list)
  Sequence(Type type, Values items);

  MemoryCharge charge;
  Type type;
  Values items;
  int depth;
};

// A dict in insertion order.
class Dict {
 public:
  Dict() : charge_(sizeof(Dict)) {}
  void set(Value key, Value value);  // raises TypeError if key is not hashable
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }

 private:
  size_t position(const Value& key, size_t hash) const;

  MemoryCharge charge_;
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_multimap<size_t, size_t> index_;  // hash -> entry; filled from 8 entries on
  int depth_ = 1;
};

// What is neither data nor Undefined.
class Object : public std::enable_shared_from_this<Object> {
 public:
  virtual ~Object() = default;
  virtual std::string type_name() const = 0;  // as Python's type(x).__name__
  virtual std::string repr() const;
  virtual bool callable() const { return false; }
  virtual Value call(Interpreter& interpreter, Arguments arguments);
  virtual std::optional<Value> attribute(const std::string&) { return std::nullopt; }
  virtual std::optional<size_t> length() const { return std::nullopt; }
  // Element `index` of something indexable by integers; raises IndexError beyond its length.
  virtual bool indexable() const { return false; }
  virtual Value at(size_t) const;
  virtual bool iterable() const { return indexable(); }
  virtual std::optional<Value> next() { return std::nullopt; }  // of an iterator
  virtual bool equals(const Object& other) const { return this == &other; }
  virtual int depth() const { return 0; }  // nesting of what it holds for good
};

// Python's range.
class Range final : public Object {
 public:
  Range(Int start, Int stop, Int step);  // raises ValueError if step is 0
  std::string type_name() const override { return "range"; }
  std::string repr() const override;
  std::optional<size_t> length() const override { return length_; }
  bool indexable() const override { return true; }
  Value at(size_t index) const override;
  bool equals(const Object& other) const override;
  bool contains(Int value) const;
  Int start, stop, step;

 private:
  size_t length_;
};

// dict.keys(), .values(), .items()
class DictView final : public Object {
 public:
  enum class Part { kKeys, kValues, kItems };
  DictView(std::shared_ptr<const Dict> dict, Part part) : dict(std::move(dict)), part(part) {}
  std::string type_name() const override;
  std::string repr() const override;
  std::optional<size_t> length() const override { return dict->size(); }
  bool iterable() const override { return true; }
  Value at(size_t index) const override;
  bool equals(const Object& other) const override;
  int depth() const override { return dict->depth(); }
  std::shared_ptr<const Dict> dict;
  Part part;
};

// A generator or another iterator over known items: gives each once.
class Iterator final : public Object {
 public:
  Iterator(std::string type, Values items);
  static Value make(std::string type, Values items);
  std::string type_name() const override { return type_; }
  bool iterable() const override { return true; }
  std::optional<Value> next() override;
  int depth() const override { return depth_; }

 private:
  MemoryCharge charge_;
  std::string type_;
  Values items_;
  int depth_;
  size_t position_ = 0;
};

// Walks any iterable; raises TypeError for other values. Charges one step per element.
class Iteration {
 public:
  explicit Iteration(Value iterable);
  std::optional<Value> next();

 private:
  Value iterable_;
  size_t position_ = 0;  // elements, or bytes of a string
};

// Levels of containers in a value or in any of several; capped when containers are made, because
// destructors and repr recurse.
int nesting(const Value& value);
int nesting(const Values& values);

bool is_iterable(const Value& value);
Values elements(const Value& iterable);            // list(iterable)
std::optional<size_t> length(const Value& value);  // len(); none: the value has none
bool truthy(const Value& value);
std::string type_name(const Value& value);  // as Python's type(x).__name__
[[noreturn]] void raise_undefined(const Value& undefined);
// Raises UndefinedError if the value is undefined.
inline void require_defined(const Value& value) {
  if (value.is_undefined()) raise_undefined(value);
}

}  // namespace lowbit::jinja
