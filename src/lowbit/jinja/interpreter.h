// Renders a parsed template: walks its tree with the scoping of jinja2's compiled templates.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lowbit/jinja/arguments.h"
#include "lowbit/jinja/parser.h"

namespace lowbit::jinja {

class Macro;
class Loop;
class Namespace;

// Variables of a loop's iteration, a macro's call, a with block, ...; the template's own are the
// interpreter's.
struct Scope {
  std::shared_ptr<Scope> parent;  // null: the template's
  std::vector<std::pair<int, Value>> variables;
  bool captured = false;
  MemoryCharge charge{sizeof(Scope)};
};
using ScopePtr = std::shared_ptr<Scope>;
using Variables = std::vector<std::pair<std::string, Value>>;

class Interpreter {
 public:
  // `now` is what strftime_now sees; absent: the clock. Needs a Meter that outlives it.
  Interpreter(const Program& program, Variables variables, std::optional<std::time_t> now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string run();
  Position position() const { return position_; }  // of what was last evaluated

  Value call(const Value& callee, Arguments arguments);
  Value call_macro(const MacroSyntax& macro, const ScopePtr& closure, Arguments arguments);
  Value call_loop(const Stmt& loop, const ScopePtr& scope, Value iterable, int depth0);
  Value apply_filter(const std::string& name, const Value& value, Arguments arguments);
  bool apply_test(const std::string& name, const Value& value, Arguments arguments);
  Value make_namespace(Arguments arguments);
  std::time_t now() const { return now_.value_or(std::time(nullptr)); }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Statements.
  Flow execute(const Block& block, const ScopePtr& scope);
  Flow execute(const Stmt& statement, const ScopePtr& scope);
  Flow execute_if(const Stmt& statement, const ScopePtr& scope);
  Flow execute_for(const Stmt& statement, const ScopePtr& scope, const Value& iterable, int depth0);
  void execute_iterations(const Stmt& statement, const ScopePtr& scope,
                          const std::shared_ptr<Loop>& loop, bool& iterated);
  Flow execute_set_block(const Stmt& statement, const ScopePtr& scope);
  Flow execute_with(const Stmt& statement, const ScopePtr& scope);
  Flow execute_filter(const Stmt& statement, const ScopePtr& scope);
  void execute_set(const Stmt& statement, const ScopePtr& scope);
  void execute_call(const Stmt& statement, const ScopePtr& scope);
  void bind_parameters(const MacroSyntax& macro, const ScopePtr& scope, Arguments& arguments);
  void check_namespaces(const Expr& target, const ScopePtr& scope);
  void assign(const Expr& target, const Value& value, const ScopePtr& scope);
  void assign(int symbol, Value value, const ScopePtr& scope);
  ScopePtr inner(const ScopePtr& scope, const std::vector<int>& hidden = {});
  Value make_macro(const MacroSyntax& macro, const ScopePtr& scope);
  template <typename Body>
  std::string captured(Body body);
  void emit(std::string_view text);
  void emit_string(const Value& value);

  // Expressions.
  Value evaluate(const Expr& expr, const ScopePtr& scope);
  Value evaluate_name(const Expr& expr, const ScopePtr& scope);
  Value evaluate_items(const Expr& expr, const ScopePtr& scope);
  Value evaluate_dict(const Expr& expr, const ScopePtr& scope);
  Value evaluate_slice(const Expr& expr, const ScopePtr& scope);
  Value evaluate_call(const Expr& expr, const ScopePtr& scope, const Value* caller = nullptr);
  Value evaluate_filter(const Expr& expr, const ScopePtr& scope, const Value* input = nullptr);
  Value evaluate_test(const Expr& expr, const ScopePtr& scope);
  Value evaluate_concat(const Expr& expr, const ScopePtr& scope);
  Value evaluate_compare(const Expr& expr, const ScopePtr& scope);
  Value evaluate_conditional(const Expr& expr, const ScopePtr& scope);
  Arguments evaluate_arguments(const CallSyntax& call, const ScopePtr& scope);
  Values evaluate_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope);
  const Value* find(int symbol, const ScopePtr& scope);

  const Program& program_;
  Meter& meter_;
  std::optional<std::time_t> now_;
  std::vector<std::optional<Value>> variables_;  // the template's, by symbol
  std::string* output_ = nullptr;
  Position position_;
  // What may be part of a cycle of references; emptied at the end.
  std::vector<ScopePtr> captured_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace lowbit::jinja
