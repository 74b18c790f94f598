// Objects that templates make: macros, loops, namespaces, cyclers, joiners, functions, methods.
#pragma once

#include <functional>

#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/interpreter.h"

namespace lowbit::jinja {

class Macro final : public Object {
 public:
  Macro(const MacroSyntax& syntax, ScopePtr closure)
      : syntax_(syntax), closure_(std::move(closure)) {}
  std::string type_name() const override { return "Macro"; }
  std::string repr() const override;
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override;
  std::optional<Value> attribute(const std::string& name) override;

 private:
  const MacroSyntax& syntax_;
  ScopePtr closure_;
};

// jinja2's LoopContext: the variable `loop`.
class Loop final : public Object {
 public:
  using Source = std::function<std::optional<Value>()>;
  // length: of the iterable, if it has one.
  Loop(const Stmt& statement, ScopePtr scope, Source source, std::optional<size_t> length,
       int depth0)
      : statement_(statement),
        scope_(std::move(scope)),
        source_(std::move(source)),
        length_(length),
        depth0_(depth0) {}

  std::optional<Value> advance();
  void finish();  // lets go of the items

  std::string type_name() const override { return "LoopContext"; }
  std::string repr() const override;
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override;
  std::optional<Value> attribute(const std::string& name) override;
  std::optional<size_t> length() const override { return count(); }
  bool iterable() const override { return true; }

 private:
  size_t count() const;
  const std::optional<Value>& peek();
  Value cycle(Arguments& arguments) const;
  bool changed(Arguments& arguments);

  const Stmt& statement_;
  ScopePtr scope_;
  mutable Source source_;
  mutable std::optional<size_t> length_;
  int depth0_;
  size_t index_ = 0;  // of the current item, from 1
  std::optional<Value> before_, current_, after_;
  std::optional<Values> last_changed_;
  bool finished_ = false;
};

class Namespace final : public Object {
 public:
  std::string type_name() const override { return "Namespace"; }
  std::string repr() const override;
  std::optional<Value> attribute(const std::string& name) override;
  void set(const std::string& name, Value value);  // refuses names that begin with _
  void clear() { entries_.clear(); }

 private:
  MemoryCharge charge_{sizeof(Namespace)};
  std::vector<std::pair<std::string, Value>> entries_;
};

class Cycler final : public Object {
 public:
  explicit Cycler(Values items);
  std::string type_name() const override { return "Cycler"; }
  std::optional<Value> attribute(const std::string& name) override;
  int depth() const override { return depth_; }

 private:
  Values items_;
  int depth_;
  size_t position_ = 0;
};

class Joiner final : public Object {
 public:
  explicit Joiner(std::string separator) : separator_(std::move(separator)) {}
  std::string type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override;
  std::optional<Value> attribute(const std::string& name) override;

 private:
  std::string separator_;
  bool used_ = false;
};

class Function final : public Object {
 public:
  using Body = std::function<Value(Interpreter&, Arguments&)>;
  Function(std::string name, Body body, const char* type = "function")
      : name_(std::move(name)), body_(std::move(body)), type_(type) {}
  static Value make(std::string name, Body body) {
    return Value(std::make_shared<Function>(std::move(name), std::move(body)));
  }
  std::string type_name() const override { return type_; }
  std::string repr() const override { return "<" + type_name() + " " + name_ + ">"; }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override {
    return body_(interpreter, arguments);
  }

 private:
  std::string name_;
  Body body_;
  const char* type_;
};

// A method with the value it belongs to.
class BoundMethod final : public Object {
 public:
  BoundMethod(Value self, std::string name, Method method);
  std::string type_name() const override { return "builtin_function_or_method"; }
  std::string repr() const override;
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override;
  int depth() const override { return depth_; }

 private:
  Value self_;
  std::string name_;
  Method method_;
  int depth_;
};

}  // namespace lowbit::jinja
