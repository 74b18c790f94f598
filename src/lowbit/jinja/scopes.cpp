#include "lowbit/jinja/scopes.h"

#include <functional>
#include <map>
#include <unordered_set>

namespace lowbit::jinja {

namespace {

// What a scope's own statements do with a name first, as jinja2's symbol tables.
class Frame {
 public:
  explicit Frame(const Frame* parent) : parent_(parent) {}

  void load(int symbol) {
    if (!known(symbol)) add(symbol, false);
  }
  void store(int symbol) {
    if (!names_.count(symbol)) add(symbol, !known(symbol));
  }
  void declare(int symbol) { add(symbol, false); }

  // Names in the order in which they came up; true: assigned first, and unknown further out.
  using Added = std::vector<std::pair<int, bool>>;
  size_t mark() const { return added_.size(); }
  // Forgets what came up since the mark.
  Added take_back(size_t mark) {
    Added taken(added_.begin() + static_cast<std::ptrdiff_t>(mark), added_.end());
    added_.resize(mark);
    for (const auto& [symbol, hides] : taken) names_.erase(symbol);
    return taken;
  }
  void add(int symbol, bool hides) {
    if (names_.insert(symbol).second) added_.emplace_back(symbol, hides);
  }

  std::vector<int> hidden() const {
    std::vector<int> symbols;
    for (const auto& [symbol, hides] : added_) {
      if (hides) symbols.push_back(symbol);
    }
    return symbols;
  }

 private:
  bool known(int symbol) const {
    for (const Frame* frame = this; frame; frame = frame->parent_) {
      if (frame->names_.count(symbol)) return true;
    }
    return false;
  }

  const Frame* parent_;
  std::unordered_set<int> names_;
  Added added_;
};

// Walks one scope; inner scopes wait until it is known as a whole.
class ScopeWalk {
 public:
  explicit ScopeWalk(const Frame* parent) : frame_(parent) {}

  Frame& frame() { return frame_; }

  std::vector<int> finish(Block& body) {
    block(body);
    const std::vector<int> hidden = frame_.hidden();
    for (const auto& scope : inner_) scope();
    return hidden;
  }

 private:
  void loads(const ExprPtr& expr) {
    if (!expr) return;
    using Kind = Expr::Kind;
    if (expr->kind == Kind::kName || expr->kind == Kind::kNamespaceRef) frame_.load(expr->symbol);
    for (const ExprPtr& operand : expr->operands) loads(operand);
    if (!expr->call) return;
    for (const ExprPtr& argument : expr->call->positional) loads(argument);
    for (const auto& [name, argument] : expr->call->named) loads(argument);
    loads(expr->call->more_positional);
    loads(expr->call->more_named);
  }

  void stores(const Expr& target) {
    if (target.kind == Expr::Kind::kName) frame_.store(target.symbol);
    if (target.kind == Expr::Kind::kNamespaceRef) frame_.load(target.symbol);
    for (const ExprPtr& item : target.operands) stores(*item);
  }

  static void parameters(Frame& frame, const Expr& target) {
    if (target.kind == Expr::Kind::kName) frame.declare(target.symbol);
    for (const ExprPtr& item : target.operands) parameters(frame, *item);
  }

  void block(Block& body) {
    for (const auto& statement : body) visit(*statement);
  }

  void visit(Stmt& statement) {
    using Kind = Stmt::Kind;
    switch (statement.kind) {
      case Kind::kIf:
        return branches(statement);
      case Kind::kFor:
        return visit_for(statement);
      case Kind::kMacro:
        frame_.store(statement.symbol);
        return later([&statement, this] { macro(*statement.macro); });
      case Kind::kCall:
        loads(statement.expression);
        return later([&statement, this] { macro(*statement.macro); });
      case Kind::kWith:
        for (const ExprPtr& value : statement.expressions) loads(value);
        return later([&statement, this] {
          ScopeWalk inner(&frame_);
          for (const ExprPtr& target : statement.targets) parameters(inner.frame(), *target);
          statement.hidden = inner.finish(statement.body);
        });
      case Kind::kSetBlock:
        stores(*statement.target);
        return plain_scope(statement);
      case Kind::kFilter:
        loads(statement.expression);
        return plain_scope(statement);
      case Kind::kScope:
      case Kind::kBlock:
        return plain_scope(statement);
      case Kind::kData:
      case Kind::kPrint:
      case Kind::kSet:
      case Kind::kDo:
      case Kind::kBreak:
      case Kind::kContinue:
      case Kind::kUnsupported:
        break;
    }
    loads(statement.expression);
    for (const ExprPtr& expr : statement.expressions) loads(expr);
    if (statement.target) stores(*statement.target);
  }

  void later(std::function<void()> scope) { inner_.push_back(std::move(scope)); }

  void plain_scope(Stmt& statement) {
    later([&statement, this] { statement.hidden = ScopeWalk(&frame_).finish(statement.body); });
  }

  // jinja2 tells three branches apart: if, all elif, else. Only what all of them assign is
  // assigned without condition.
  void branches(Stmt& statement) {
    loads(statement.branches[0].condition);
    std::map<int, int> assigned;  // name -> branches
    const auto branch = [&](const auto& walk) {
      const size_t mark = frame_.mark();
      walk();
      for (const auto& [symbol, hides] : frame_.take_back(mark)) assigned[symbol] += hides;
    };
    branch([&] { block(statement.branches[0].body); });
    branch([&] {
      for (size_t i = 1; i < statement.branches.size(); ++i) {
        loads(statement.branches[i].condition);
        elif (statement.branches[i]);
      }
    });
    branch([&] { block(statement.else_body); });
    for (const auto& [symbol, count] : assigned) frame_.add(symbol, count == 3);
  }

  // An elif is an if of its own, with two empty branches.
  void elif (Stmt::Branch& only) {
    const size_t mark = frame_.mark();
    block(only.body);
    for (const auto& [symbol, hides] : frame_.take_back(mark)) frame_.add(symbol, false);
  }

  void visit_for(Stmt& statement) {
    loads(statement.expression);
    later([&statement, this] {
      ScopeWalk body(&frame_);
      parameters(body.frame(), *statement.target);
      statement.hidden = body.finish(statement.body);
      ScopeWalk(&frame_).finish(statement.else_body);
    });
  }

  void macro(MacroSyntax& macro) {
    ScopeWalk inner(&frame_);
    for (const Parameter& parameter : macro.parameters) inner.frame().declare(parameter.symbol);
    for (const int special : {macro.caller, macro.kwargs, macro.varargs}) {
      inner.frame().declare(special);
    }
    for (const Parameter& parameter : macro.parameters) inner.loads(parameter.fallback);
    macro.hidden = inner.finish(macro.body);
  }

  Frame frame_;
  std::vector<std::function<void()>> inner_;
};

}  // namespace

void find_hidden_names(Program& program) {
  program.hidden = ScopeWalk(nullptr).finish(program.body);
}

}  // namespace lowbit::jinja
