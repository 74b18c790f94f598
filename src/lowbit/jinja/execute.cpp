// The statement half of the interpreter.
#include "lowbit/base/limits.h"
#include "lowbit/jinja/objects.h"
#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

Interpreter::Interpreter(const Program& program, Variables variables,
                         std::optional<std::time_t> now)
    : program_(program), meter_(*Meter::current()), now_(now), variables_(program.names.size()) {
  for (size_t i = 0; i < program.names.size(); ++i) {
    variables_[i] = find_global(*this, program.names[i]);
  }
  std::unordered_map<std::string_view, size_t> symbols;
  for (size_t i = 0; i < program.names.size(); ++i) symbols.emplace(program.names[i], i);
  for (auto& [name, value] : variables) {
    const auto found = symbols.find(name);
    if (found != symbols.end()) variables_[found->second] = std::move(value);
  }
  for (const int symbol : program.hidden) variables_[static_cast<size_t>(symbol)].reset();
}

// The registries still hold what the values let go of, so nothing is destroyed recursively.
Interpreter::~Interpreter() {
  variables_.clear();
  for (const auto& space : namespaces_) space->clear();
  for (const ScopePtr& scope : captured_scopes_) scope->variables.clear();
  while (!captured_scopes_.empty()) captured_scopes_.pop_back();
}

std::string Interpreter::run() {
  return captured([&] { execute(program_.body, nullptr); });
}

void Interpreter::emit(std::string_view text) {
  if (text.size() > limits::kTemplateOutputBytes - output_->size()) {
    refuse("the template prints more than ", limits::kTemplateOutputBytes / limits::kMiB, " MiB");
  }
  meter_.step(text.size() / 256);
  output_->append(text);
}

// The result of a filter or call block, which jinja2 prints without str().
void Interpreter::emit_string(const Value& value) {
  if (!value.is_string()) {
    raise("TypeError: the block gives ", type_name(value), " where a str is expected");
  }
  emit(value.string()->text);
}

// What `body` prints.
template <typename Body>
std::string Interpreter::captured(Body body) {
  std::string text;
  std::string* const outer = std::exchange(output_, &text);
  body();
  output_ = outer;
  return text;
}

Interpreter::Flow Interpreter::execute(const Block& block, const ScopePtr& scope) {
  const Recursion recursion;
  for (const auto& statement : block) {
    const Flow flow = execute(*statement, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

// A scope within another one, where some names begin undefined.
ScopePtr Interpreter::inner(const ScopePtr& scope, const std::vector<int>& hidden) {
  auto created = std::make_shared<Scope>();
  created->parent = scope;
  for (const int symbol : hidden) {
    assign(symbol,
           Value::undefined(repr(program_.names[static_cast<size_t>(symbol)]) + " is undefined"),
           created);
  }
  return created;
}

Interpreter::Flow Interpreter::execute(const Stmt& statement, const ScopePtr& scope) {
  meter_.step();
  position_ = statement.position;
  using Kind = Stmt::Kind;
  switch (statement.kind) {
    case Kind::kData:
      emit(statement.text.string()->text);
      break;
    case Kind::kPrint:
      for (const ExprPtr& expr : statement.expressions) {
        const Value value = evaluate(*expr, scope);
        if (const Str* text = value.string()) {
          emit(text->text);
        } else {
          emit(to_text(value));
        }
      }
      break;
    case Kind::kIf:
      return execute_if(statement, scope);
    case Kind::kFor:
      execute_for(statement, scope, evaluate(*statement.expression, scope), 0);
      break;
    case Kind::kSet:
      execute_set(statement, scope);
      break;
    case Kind::kSetBlock:
      return execute_set_block(statement, scope);
    case Kind::kWith:
      return execute_with(statement, scope);
    case Kind::kMacro:
      assign(statement.symbol, make_macro(*statement.macro, scope), scope);
      break;
    case Kind::kCall:
      execute_call(statement, scope);
      break;
    case Kind::kFilter:
      return execute_filter(statement, scope);
    case Kind::kScope:
      return execute(statement.body, inner(scope, statement.hidden));
    case Kind::kBlock:
      return execute(statement.body, inner(nullptr, statement.hidden));
    case Kind::kDo:
      evaluate(*statement.expression, scope);
      break;
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
    case Kind::kUnsupported:
      refuse(statement.text.string()->text, " is not supported");
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_if(const Stmt& statement, const ScopePtr& scope) {
  for (const Stmt::Branch& branch : statement.branches) {
    if (truthy(evaluate(*branch.condition, scope))) return execute(branch.body, scope);
  }
  return execute(statement.else_body, scope);
}

Interpreter::Flow Interpreter::execute_for(const Stmt& statement, const ScopePtr& scope,
                                           const Value& iterable, int depth0) {
  position_ = statement.position;
  auto iteration = std::make_shared<Iteration>(iterable);
  Loop::Source source = [iteration] { return iteration->next(); };
  if (statement.condition) {
    source = [this, iteration, &statement, scope]() -> std::optional<Value> {
      while (auto item = iteration->next()) {
        const ScopePtr test = inner(scope);
        assign(*statement.target, *item, test);
        if (truthy(evaluate(*statement.condition, test))) return item;
      }
      return std::nullopt;
    };
  }
  const auto count = statement.condition ? std::nullopt : length(iterable);
  const auto loop = std::make_shared<Loop>(statement, scope, std::move(source), count, depth0);
  bool iterated = false;
  execute_iterations(statement, scope, loop, iterated);
  loop->finish();
  return iterated ? Flow::kNext : execute(statement.else_body, inner(scope));
}

// jinja2 takes a loop for empty unless an iteration reached the end of its body.
void Interpreter::execute_iterations(const Stmt& statement, const ScopePtr& scope,
                                     const std::shared_ptr<Loop>& loop, bool& iterated) {
  while (const auto item = loop->advance()) {
    meter_.step();
    const ScopePtr iteration = inner(scope, statement.hidden);
    if (statement.uses_loop) assign(program_.loop, Value(std::shared_ptr<Object>(loop)), iteration);
    assign(*statement.target, *item, iteration);
    const Flow flow = execute(statement.body, iteration);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNext) iterated = true;
  }
}

Value Interpreter::call_loop(const Stmt& loop, const ScopePtr& scope, Value iterable, int depth0) {
  const Recursion recursion;
  return Value::string(captured([&] { execute_for(loop, scope, iterable, depth0); }));
}

void Interpreter::execute_set(const Stmt& statement, const ScopePtr& scope) {
  check_namespaces(*statement.target, scope);
  const Value value = evaluate(*statement.expression, scope);
  position_ = statement.position;
  assign(*statement.target, value, scope);
}

Interpreter::Flow Interpreter::execute_set_block(const Stmt& statement, const ScopePtr& scope) {
  const ScopePtr body = inner(scope, statement.hidden);
  Flow flow = Flow::kNext;
  Value value = Value::string(captured([&] { flow = execute(statement.body, body); }));
  if (flow != Flow::kNext) return flow;
  if (statement.expression) value = evaluate_filter(*statement.expression, body, &value);
  check_namespaces(*statement.target, scope);
  assign(*statement.target, value, scope);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_with(const Stmt& statement, const ScopePtr& scope) {
  const ScopePtr body = inner(scope, statement.hidden);
  for (size_t i = 0; i < statement.targets.size(); ++i) {
    assign(*statement.targets[i], evaluate(*statement.expressions[i], scope), body);
  }
  return execute(statement.body, body);
}

Interpreter::Flow Interpreter::execute_filter(const Stmt& statement, const ScopePtr& scope) {
  const ScopePtr body = inner(scope, statement.hidden);
  Flow flow = Flow::kNext;
  const Value text = Value::string(captured([&] { flow = execute(statement.body, body); }));
  if (flow != Flow::kNext) return flow;
  emit_string(evaluate_filter(*statement.expression, body, &text));
  return Flow::kNext;
}

void Interpreter::execute_call(const Stmt& statement, const ScopePtr& scope) {
  const Value caller = make_macro(*statement.macro, scope);
  emit_string(evaluate_call(*statement.expression, scope, &caller));
}

Value Interpreter::make_macro(const MacroSyntax& macro, const ScopePtr& scope) {
  if (scope && !scope->captured) {
    scope->captured = true;
    captured_scopes_.push_back(scope);
  }
  return Value(std::shared_ptr<Object>(std::make_shared<Macro>(macro, scope)));
}

Value Interpreter::call_macro(const MacroSyntax& macro, const ScopePtr& closure,
                              Arguments arguments) {
  const Recursion recursion;
  const ScopePtr scope = inner(closure, macro.hidden);
  bind_parameters(macro, scope, arguments);
  const Position position = position_;
  Value result = Value::string(captured([&] { execute(macro.body, scope); }));
  position_ = position;
  return result;
}

// The order is jinja2's: parameters, caller, kwargs, varargs; defaults see the earlier parameters.
void Interpreter::bind_parameters(const MacroSyntax& macro, const ScopePtr& scope,
                                  Arguments& arguments) {
  const auto take = [&](const std::string& name) -> std::optional<Value> {
    for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
      if (it->first != name) continue;
      Value value = std::move(it->second);
      arguments.named.erase(it);
      return value;
    }
    return std::nullopt;
  };
  const size_t count = macro.parameters.size();
  bool explicit_caller = false;
  std::vector<std::optional<Value>> values(count);
  for (size_t i = 0; i < count; ++i) {
    explicit_caller |= macro.parameters[i].name == "caller";
    values[i] = i < arguments.positional.size() ? std::optional(arguments.positional[i])
                                                : take(macro.parameters[i].name);
  }
  if (macro.uses_caller && !explicit_caller) {
    const auto caller = take("caller");
    const bool given = caller && !caller->is_none();
    assign(macro.caller, given ? *caller : Value::undefined("No caller defined"), scope);
  }
  const std::string quoted = macro.name.empty() ? "None" : repr(macro.name);
  if (macro.uses_kwargs) {
    auto named = std::make_shared<Dict>();
    for (auto& [name, value] : arguments.named) named->set(Value::string(name), value);
    assign(macro.kwargs, Value(std::shared_ptr<const Dict>(std::move(named))), scope);
  } else if (!arguments.named.empty()) {
    raise("TypeError: macro ", quoted, " takes no keyword argument ",
          repr(arguments.named[0].first));
  }
  Values& positional = arguments.positional;
  if (macro.uses_varargs) {
    const size_t first = std::min(count, positional.size());
    assign(macro.varargs, Value::tuple(Values(positional.begin() + first, positional.end())),
           scope);
  } else if (positional.size() > count) {
    raise("TypeError: macro ", quoted, " takes not more than ", count, " argument(s)");
  }
  for (size_t i = 0; i < count; ++i) {
    if (values[i]) assign(macro.parameters[i].symbol, *values[i], scope);
  }
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = macro.parameters[i];
    if (values[i]) continue;
    // Also within its own default, a parameter hides outer variables of its name.
    assign(parameter.symbol,
           Value::undefined("parameter " + repr(parameter.name) + " was not provided"), scope);
    if (parameter.fallback) {
      assign(parameter.symbol, evaluate(*parameter.fallback, scope), scope);
    }
  }
}

void Interpreter::check_namespaces(const Expr& target, const ScopePtr& scope) {
  if (target.kind == Expr::Kind::kNamespaceRef) {
    const Value* holder = find(target.symbol, scope);
    if (!holder || !holder->object_as<Namespace>()) {
      raise("TemplateRuntimeError: cannot assign attribute on non-namespace object");
    }
  }
  for (const ExprPtr& item : target.operands) check_namespaces(*item, scope);
}

void Interpreter::assign(const Expr& target, const Value& value, const ScopePtr& scope) {
  if (target.kind == Expr::Kind::kName) {
    assign(target.symbol, value, scope);
    return;
  }
  if (target.kind == Expr::Kind::kNamespaceRef) {
    const Value* holder = find(target.symbol, scope);
    auto* space = holder ? holder->object_as<Namespace>() : nullptr;
    if (!space)
      raise("TypeError: '", holder ? type_name(*holder) : "Undefined",
            "' object does not support item assignment");
    space->set(target.name, value);
    return;
  }
  const Values items = elements(value);
  if (items.size() != target.operands.size()) {
    raise("ValueError: ", items.size() > target.operands.size() ? "too many" : "not enough",
          " values to unpack (expected ", target.operands.size(), ")");
  }
  for (size_t i = 0; i < items.size(); ++i) assign(*target.operands[i], items[i], scope);
}

void Interpreter::assign(int symbol, Value value, const ScopePtr& scope) {
  if (!scope) {
    variables_[static_cast<size_t>(symbol)] = std::move(value);
    return;
  }
  meter_.step(scope->variables.size() / 32);
  for (auto& [name, old] : scope->variables) {
    if (name == symbol) {
      old = std::move(value);
      return;
    }
  }
  scope->charge.grow(sizeof(scope->variables[0]));
  scope->variables.emplace_back(symbol, std::move(value));
}

Value Interpreter::make_namespace(Arguments arguments) {
  auto space = std::make_shared<Namespace>();
  namespaces_.push_back(space);
  if (arguments.positional.size() > 1) {
    raise("TypeError: dict expected at most 1 argument, got ", arguments.positional.size());
  }
  const auto set = [&](const Value& key, const Value& value) {
    if (!key.is_string()) refuse("a namespace with attributes that are not strings");
    space->set(key.string()->text, value);
  };
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (const Dict* dict = source.dict()) {
      for (const auto& [key, value] : dict->entries()) set(key, value);
    } else {
      for (const Value& pair : elements(source)) {
        const Values both = elements(pair);
        if (both.size() != 2)
          raise("ValueError: dictionary update sequence element has length ", both.size(),
                "; 2 is required");
        set(both[0], both[1]);
      }
    }
  }
  for (auto& [name, value] : arguments.named) space->set(name, std::move(value));
  return Value(std::shared_ptr<Object>(std::move(space)));
}

}  // namespace lowbit::jinja
