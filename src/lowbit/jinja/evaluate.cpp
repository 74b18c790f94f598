// The expression half of the interpreter.
#include "lowbit/jinja/objects.h"
#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

Value Interpreter::evaluate(const Expr& expr, const ScopePtr& scope) {
  const Recursion recursion;
  meter_.step();
  using Kind = Expr::Kind;
  const auto operand = [&](size_t i) { return evaluate(*expr.operands[i], scope); };
  const auto here = [&] { position_ = expr.position; };
  switch (expr.kind) {
    case Kind::kConstant: return expr.value;
    case Kind::kName: return evaluate_name(expr, scope);
    case Kind::kTuple:
    case Kind::kList: return evaluate_items(expr, scope);
    case Kind::kDict: return evaluate_dict(expr, scope);
    case Kind::kSlice: return evaluate_slice(expr, scope);
    case Kind::kCall: return evaluate_call(expr, scope);
    case Kind::kFilter: return evaluate_filter(expr, scope);
    case Kind::kTest: return evaluate_test(expr, scope);
    case Kind::kConcat: return evaluate_concat(expr, scope);
    case Kind::kCompare: return evaluate_compare(expr, scope);
    case Kind::kConditional: return evaluate_conditional(expr, scope);
    case Kind::kNot: return Value(!truthy(operand(0)));
    case Kind::kAttribute: {
      const Value object = operand(0);
      here();
      return get_attribute(object, expr.name);
    }
    case Kind::kItem: {
      const Value object = operand(0), key = operand(1);
      here();
      return get_item(object, key);
    }
    case Kind::kNegate:
    case Kind::kPositive: {
      const Value value = operand(0);
      here();
      return expr.kind == Kind::kNegate ? negate(value) : positive(value);
    }
    case Kind::kAnd:
    case Kind::kOr: {
      Value left = operand(0);
      return truthy(left) == (expr.kind == Kind::kAnd) ? operand(1) : left;
    }
    case Kind::kBinary: {
      const Value left = operand(0), right = operand(1);
      here();
      return arithmetic(expr.op, left, right);
    }
    case Kind::kSliceArgument: refuse("a slice in a subscript of several parts");
    case Kind::kNamespaceRef: break;
  }
  return Value();
}

const Value* Interpreter::find(int symbol, const ScopePtr& scope) {
  for (const Scope* level = scope.get(); level; level = level->parent.get()) {
    meter_.step(level->variables.size() / 32);
    for (const auto& [name, value] : level->variables) {
      if (name == symbol) return &value;
    }
  }
  const auto& value = variables_[static_cast<size_t>(symbol)];
  return value ? &*value : nullptr;
}

Value Interpreter::evaluate_name(const Expr& expr, const ScopePtr& scope) {
  if (const Value* value = find(expr.symbol, scope)) return *value;
  return Value::undefined(repr(expr.name) + " is undefined");
}

Values Interpreter::evaluate_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope) {
  Values values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) values.push_back(evaluate(*expr, scope));
  return values;
}

Value Interpreter::evaluate_items(const Expr& expr, const ScopePtr& scope) {
  Values items = evaluate_all(expr.operands, scope);
  position_ = expr.position;
  return expr.kind == Expr::Kind::kList ? Value::list(std::move(items))
                                        : Value::tuple(std::move(items));
}

Value Interpreter::evaluate_dict(const Expr& expr, const ScopePtr& scope) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expr.operands.size(); i += 2) {
    Value key = evaluate(*expr.operands[i], scope);
    Value value = evaluate(*expr.operands[i + 1], scope);
    position_ = expr.position;
    dict->set(std::move(key), std::move(value));
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

Value Interpreter::evaluate_slice(const Expr& expr, const ScopePtr& scope) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i) {
    if (expr.operands[i]) parts[i] = evaluate(*expr.operands[i], scope);
  }
  position_ = expr.position;
  return get_slice(parts[0], parts[1], parts[2], parts[3]);
}

Arguments Interpreter::evaluate_arguments(const CallSyntax& call, const ScopePtr& scope) {
  Arguments arguments;
  arguments.positional = evaluate_all(call.positional, scope);
  if (call.more_positional) {
    Iteration more(evaluate(*call.more_positional, scope));
    while (auto item = more.next()) arguments.positional.push_back(std::move(*item));
  }
  for (const auto& [name, expr] : call.named) {
    arguments.named.emplace_back(name, evaluate(*expr, scope));
  }
  if (call.more_named) {
    const Value more = evaluate(*call.more_named, scope);
    const Dict* dict = more.dict();
    if (!dict) raise("TypeError: argument after ** must be a mapping, not ", type_name(more));
    for (const auto& [key, value] : dict->entries()) {
      if (!key.is_string()) raise("TypeError: keywords must be strings");
      for (const auto& [name, expr] : call.named) {
        if (name == key.string()->text) {
          raise("TypeError: got multiple values for keyword argument '", name, "'");
        }
      }
      arguments.named.emplace_back(key.string()->text, value);
    }
  }
  return arguments;
}

Value Interpreter::evaluate_call(const Expr& expr, const ScopePtr& scope, const Value* caller) {
  const Value callee = evaluate(*expr.operands[0], scope);
  Arguments arguments = evaluate_arguments(*expr.call, scope);
  if (caller) arguments.named.emplace_back("caller", *caller);
  position_ = expr.position;
  return call(callee, std::move(arguments));
}

Value Interpreter::call(const Value& callee, Arguments arguments) {
  require_defined(callee);
  Object* object = callee.object();
  if (!object) raise("TypeError: '", type_name(callee), "' object is not callable");
  return object->call(*this, std::move(arguments));
}

Value Interpreter::evaluate_filter(const Expr& expr, const ScopePtr& scope, const Value* input) {
  const Expr* source = expr.operands[0].get();
  Value value;
  if (!source) {
    value = *input;
  } else if (input) {  // a chain of filters, whose first one has no source
    const Recursion recursion;
    value = evaluate_filter(*source, scope, input);
  } else {
    value = evaluate(*source, scope);
  }
  Arguments arguments = evaluate_arguments(*expr.call, scope);
  position_ = expr.position;
  return apply_filter(expr.name, value, std::move(arguments));
}

Value Interpreter::apply_filter(const std::string& name, const Value& value, Arguments arguments) {
  const Filter* filter = find_filter(name);
  if (!filter) raise("TemplateRuntimeError: No filter named '", name, "' found.");
  return (*filter)(*this, value, arguments);
}

Value Interpreter::evaluate_test(const Expr& expr, const ScopePtr& scope) {
  const Value value = evaluate(*expr.operands[0], scope);
  Arguments arguments = evaluate_arguments(*expr.call, scope);
  position_ = expr.position;
  return Value(apply_test(expr.name, value, std::move(arguments)));
}

bool Interpreter::apply_test(const std::string& name, const Value& value, Arguments arguments) {
  const Test* test = find_test(name);
  if (!test) raise("TemplateRuntimeError: No test named '", name, "' found.");
  return (*test)(*this, value, arguments);
}

Value Interpreter::evaluate_concat(const Expr& expr, const ScopePtr& scope) {
  std::string text;
  for (const Value& part : evaluate_all(expr.operands, scope)) {
    position_ = expr.position;
    const MemoryCharge room(text.size());
    text += to_text(part);
  }
  return Value::string(std::move(text));
}

Value Interpreter::evaluate_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = evaluate(*expr.operands[0], scope);
  for (size_t i = 0; i < expr.comparisons.size(); ++i) {
    Value right = evaluate(*expr.operands[i + 1], scope);
    position_ = expr.position;
    if (!compare(expr.comparisons[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_conditional(const Expr& expr, const ScopePtr& scope) {
  if (truthy(evaluate(*expr.operands[1], scope))) return evaluate(*expr.operands[0], scope);
  if (expr.operands[2]) return evaluate(*expr.operands[2], scope);
  return Value::undefined(concat("the inline if-expression on line ", expr.position.line,
                                 " evaluated to false and no else section was defined."));
}

}  // namespace lowbit::jinja
