// The statement half of the parser.
#include <algorithm>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/parser_state.h"
#include "lowbit/jinja/scopes.h"

namespace lowbit::jinja {

namespace {

using Type = Token::Type;
using Kind = Stmt::Kind;
using EndNames = std::initializer_list<const char*>;
using StmtPtr = std::unique_ptr<Stmt>;

class StatementParser final : private ExpressionParser {
 public:
  explicit StatementParser(std::string_view source) : ExpressionParser(source) {}

  Program run() {
    Program program;
    program.loop = symbol("loop");
    program.body = parse_block_until({});
    if (!unknown_.empty()) fail(unknown_.front().first, unknown_.front().second);
    program.names = std::move(names_);
    find_hidden_names(program);
    return program;
  }

 private:
  StmtPtr make_statement(Kind kind, Position position) const {
    auto statement = std::make_unique<Stmt>();
    statement->kind = kind;
    statement->position = position;
    return statement;
  }

  // Statements up to (not including) the name of an end tag; to the end if there are no names.
  Block parse_block_until(EndNames end_names) {
    const Nesting nesting(*this);
    Block body;
    for (;;) {
      if (is(Type::kEnd)) {
        if (end_names.size() == 0) return body;
        fail(concat("Unexpected end of template. Jinja was looking for the following tag: '",
                    *end_names.begin(), "'"));
      }
      const Token& token = next();
      if (token.type == Type::kData) {
        StmtPtr data = make_statement(Kind::kData, token.position);
        data->text = Value::string(token.text);
        body.push_back(std::move(data));
      } else if (token.type == Type::kVariableBegin) {
        StmtPtr print = make_statement(Kind::kPrint, token.position);
        print->expressions.push_back(parse_tuple());
        expect(Type::kVariableEnd, "end of print statement");
        body.push_back(std::move(print));
      } else {
        if (std::any_of(end_names.begin(), end_names.end(),
                        [&](const char* name) { return is_name(name); })) {
          return body;
        }
        body.push_back(parse_statement());
        expect(Type::kBlockEnd, "end of statement block");
      }
    }
  }

  // The rest of a tag and what follows, up to the name of an end tag.
  Block parse_body(EndNames end_names) {
    skip_operator(":");
    expect(Type::kBlockEnd, "end of statement block");
    return parse_block_until(end_names);
  }

  // As parse_body; takes the end tag's name too.
  Block parse_whole_body(const char* end_name) {
    Block body = parse_body({end_name});
    next();
    return body;
  }

  // A body that Python compiles into a scope of its own: not soft any more.
  Block parse_hard_body(const char* end_name) {
    const bool outer = std::exchange(soft_, false);
    Block body = parse_whole_body(end_name);
    soft_ = outer;
    return body;
  }

  // As parse_hard_body, in a function: break and continue do not reach out of it.
  Block parse_function_body(const char* end_name) {
    const int outer = std::exchange(loops_, 0);
    Block body = parse_hard_body(end_name);
    loops_ = outer;
    return body;
  }

  StmtPtr parse_statement() {
    const Nesting nesting(*this);
    const Token& tag = current();
    if (tag.type != Type::kName) fail("tag name expected");
    using Method = StmtPtr (StatementParser::*)();
    static constexpr std::pair<const char*, Method> kTags[] = {
        {"for", &StatementParser::parse_for},
        {"if", &StatementParser::parse_if},
        {"set", &StatementParser::parse_set},
        {"with", &StatementParser::parse_with},
        {"macro", &StatementParser::parse_macro},
        {"call", &StatementParser::parse_call_block},
        {"filter", &StatementParser::parse_filter_block},
        {"print", &StatementParser::parse_print},
        {"generation", &StatementParser::parse_generation},
        {"block", &StatementParser::parse_named_block},
        {"do", &StatementParser::parse_do},
        {"break", &StatementParser::parse_loop_control},
        {"continue", &StatementParser::parse_loop_control},
        {"autoescape", &StatementParser::parse_autoescape},
        {"include", &StatementParser::parse_loader_tag},
        {"extends", &StatementParser::parse_loader_tag},
        {"import", &StatementParser::parse_loader_tag},
        {"from", &StatementParser::parse_loader_tag},
    };
    for (const auto& [name, method] : kTags) {
      if (tag.text == name) return (this->*method)();
    }
    fail("Encountered unknown tag '" + tag.text + "'.");
  }

  StmtPtr parse_for() {
    StmtPtr loop = make_statement(Kind::kFor, next().position);
    ++fors_;
    loop->target = parse_target(false, "in");
    refuse_loop_target(*loop->target);
    expect_name("in");
    loop->expression = parse_tuple(false, "recursive");
    const bool outer_soft = std::exchange(soft_, false);
    if (skip_name("if")) loop->condition = parse_expression();
    loop->recursive = skip_name("recursive");
    reads_.emplace_back();
    const int outer_loops = std::exchange(loops_, loop->recursive ? 1 : loops_ + 1);
    loop->body = parse_body({"endfor", "else"});
    loops_ = outer_loops;
    loop->uses_loop = loop->recursive || reads_.back().count("loop") > 0;
    reads_.pop_back();
    if (next().text == "else") {
      const int outside = std::exchange(loops_, loop->recursive ? 0 : loops_);
      loop->else_body = parse_whole_body("endfor");
      loops_ = outside;
    }
    soft_ = outer_soft;
    --fors_;
    return loop;
  }

  // Also a set anywhere inside of a loop must not touch `loop`.
  void refuse_loop_target(const Expr& target) {
    if (fors_ > 0 && target.kind == Expr::Kind::kName && target.name == "loop") {
      fail("Can't assign to special loop variable in for-loop target", target.position);
    }
    for (const ExprPtr& item : target.operands) refuse_loop_target(*item);
  }

  StmtPtr parse_if() {
    StmtPtr statement = make_statement(Kind::kIf, current().position);
    const bool outer = std::exchange(soft_, true);
    for (;;) {
      next();  // if, elif
      Stmt::Branch branch;
      branch.condition = parse_tuple(false);
      branch.body = parse_body({"elif", "else", "endif"});
      statement->branches.push_back(std::move(branch));
      if (!is_name("elif")) break;
    }
    if (next().text == "else") statement->else_body = parse_whole_body("endif");
    soft_ = outer;
    return statement;
  }

  StmtPtr parse_set() {
    const Position position = next().position;
    ExprPtr target = parse_target(true);
    refuse_loop_target(*target);
    StmtPtr statement;
    if (skip_operator("=")) {
      statement = make_statement(Kind::kSet, position);
      statement->expression = parse_tuple();
    } else {
      statement = make_statement(Kind::kSetBlock, position);
      const bool outer = std::exchange(soft_, false);
      statement->expression = parse_filters(nullptr, false);
      soft_ = outer;
      statement->body = parse_hard_body("endset");
    }
    statement->target = std::move(target);
    return statement;
  }

  StmtPtr parse_with() {
    StmtPtr statement = make_statement(Kind::kWith, next().position);
    while (!is(Type::kBlockEnd) && !is(Type::kEnd)) {
      if (!statement->targets.empty()) expect_operator(",");
      statement->targets.push_back(parse_target(false));
      expect_operator("=");
      statement->expressions.push_back(parse_expression());
    }
    statement->body = parse_hard_body("endwith");
    return statement;
  }

  void parse_signature(MacroSyntax& macro) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (!macro.parameters.empty()) expect_operator(",");
      const Token& name = parse_name_target();
      for (const Parameter& other : macro.parameters) {
        if (other.name == name.text) {
          fail("duplicate argument '" + name.text + "' in macro definition", name.position);
        }
      }
      Parameter parameter{symbol(name.text), name.text, nullptr};
      if (skip_operator("=")) {
        parameter.fallback = parse_expression();
      } else if (!macro.parameters.empty() && macro.parameters.back().fallback) {
        fail("non-default argument follows default argument");
      }
      macro.parameters.push_back(std::move(parameter));
    }
    expect_operator(")");
  }

  void parse_macro_body(MacroSyntax& macro, const char* end_name, Position position) {
    reads_.emplace_back();
    macro.body = parse_function_body(end_name);
    const std::set<std::string> reads = std::move(reads_.back());
    reads_.pop_back();
    const auto parameter = [&](const char* name) {
      return std::find_if(macro.parameters.begin(), macro.parameters.end(),
                          [&](const Parameter& p) { return p.name == name; });
    };
    const auto special = [&](const char* name) {
      return reads.count(name) > 0 && parameter(name) == macro.parameters.end();
    };
    const auto explicit_caller = parameter("caller");
    if (reads.count("caller") && explicit_caller != macro.parameters.end() &&
        !explicit_caller->fallback) {
      fail(
          "When defining macros or call blocks the special \"caller\" argument must be omitted "
          "or be given a default.",
          position);
    }
    macro.uses_caller = reads.count("caller") > 0;
    macro.uses_kwargs = special("kwargs");
    macro.uses_varargs = special("varargs");
    macro.caller = symbol("caller");
    macro.kwargs = symbol("kwargs");
    macro.varargs = symbol("varargs");
  }

  StmtPtr parse_macro() {
    StmtPtr statement = make_statement(Kind::kMacro, next().position);
    statement->macro = std::make_unique<MacroSyntax>();
    statement->macro->name = parse_name_target().text;
    statement->symbol = symbol(statement->macro->name);
    const bool outer = std::exchange(soft_, false);
    parse_signature(*statement->macro);
    soft_ = outer;
    parse_macro_body(*statement->macro, "endmacro", statement->position);
    return statement;
  }

  StmtPtr parse_call_block() {
    StmtPtr statement = make_statement(Kind::kCall, next().position);
    statement->macro = std::make_unique<MacroSyntax>();
    if (is_operator("(")) parse_signature(*statement->macro);
    statement->expression = parse_expression();
    if (statement->expression->kind != Expr::Kind::kCall) {
      fail("expected call", statement->position);
    }
    for (const auto& [name, value] : statement->expression->call->named) {
      if (name == "caller") fail("keyword argument repeated: caller", statement->position);
    }
    parse_macro_body(*statement->macro, "endcall", statement->position);
    statement->symbol = symbol("caller");
    return statement;
  }

  StmtPtr parse_filter_block() {
    StmtPtr statement = make_statement(Kind::kFilter, next().position);
    const bool outer = std::exchange(soft_, false);
    statement->expression = parse_filters(nullptr, true);
    soft_ = outer;
    statement->body = parse_hard_body("endfilter");
    return statement;
  }

  StmtPtr parse_print() {
    StmtPtr statement = make_statement(Kind::kPrint, next().position);
    while (!is(Type::kBlockEnd)) {
      if (!statement->expressions.empty()) expect_operator(",");
      statement->expressions.push_back(parse_expression());
    }
    return statement;
  }

  StmtPtr parse_generation() {
    StmtPtr statement = make_statement(Kind::kScope, next().position);
    statement->body = parse_function_body("endgeneration");
    return statement;
  }

  StmtPtr parse_named_block() {
    StmtPtr statement = make_statement(Kind::kBlock, next().position);
    const std::string name = expect(Type::kName, "name").text;
    if (!blocks_.insert(name).second) {
      fail("block '" + name + "' defined twice", statement->position);
    }
    skip_name("scoped");
    skip_name("required");
    if (is_operator("-")) fail("Block names in Jinja have to be valid Python identifiers");
    statement->body = parse_function_body("endblock");
    skip_name(name.c_str());
    return statement;
  }

  StmtPtr parse_do() {
    StmtPtr statement = make_statement(Kind::kDo, next().position);
    statement->expression = parse_tuple();
    return statement;
  }

  StmtPtr parse_loop_control() {
    const Token& tag = next();
    if (loops_ == 0) fail("'" + tag.text + "' outside loop", tag.position);
    return make_statement(tag.text == "break" ? Kind::kBreak : Kind::kContinue, tag.position);
  }

  StmtPtr unsupported(const std::string& what, Position position) {
    StmtPtr statement = make_statement(Kind::kUnsupported, position);
    statement->text = Value::string(what);
    return statement;
  }

  StmtPtr parse_autoescape() {
    const Position position = next().position;
    const ExprPtr mode = parse_expression();
    const bool off = mode->kind == Expr::Kind::kConstant && !truthy(mode->value);
    Block body = parse_hard_body("endautoescape");
    StmtPtr statement = off ? make_statement(Kind::kScope, position)
                            : unsupported("the tag 'autoescape' with other than false", position);
    statement->body = std::move(body);
    return statement;
  }

  // Tags that name another template, which a chat template has not: skipped up to their end.
  StmtPtr parse_loader_tag() {
    const Token& tag = next();
    while (!is(Type::kBlockEnd) && !is(Type::kEnd)) next();
    return unsupported("the tag '" + tag.text + "' (there are no other templates)", tag.position);
  }

  int loops_ = 0;  // around the current statement, within its function
  int fors_ = 0;   // the same across functions
  std::set<std::string> blocks_;
};

}  // namespace

Program parse(std::string_view source) { return StatementParser(source).run(); }

}  // namespace lowbit::jinja
