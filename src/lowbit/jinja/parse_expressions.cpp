// The expression half of the parser: precedence from conditional (loosest) to primary.
#include <algorithm>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/parser_state.h"

namespace lowbit::jinja {

using Type = Token::Type;
using Kind = Expr::Kind;

std::string describe(const Token& token) {
  switch (token.type) {
    case Type::kData: return "template data / text";
    case Type::kBlockBegin: return "begin of statement block";
    case Type::kBlockEnd: return "end of statement block";
    case Type::kVariableBegin: return "begin of print statement";
    case Type::kVariableEnd: return "end of print statement";
    case Type::kString: return "string";
    case Type::kNumber: return token.number.is_int() ? "integer" : "float";
    case Type::kEnd: return "end of template";
    case Type::kName:
    case Type::kOperator: break;
  }
  return token.text;
}

void ParserBase::fail(const std::string& message, Position position) const {
  throw TemplateError(ErrorKind::kCorruptFile, "TemplateSyntaxError: " + message, position);
}

const Token& ParserBase::expect(Type type, const char* description) {
  if (!is(type)) {
    fail(concat("expected token '", description, "', got '", describe(current()), "'"));
  }
  return next();
}

void ParserBase::expect_name(const char* name) {
  if (!skip_name(name)) {
    fail(concat("expected token '", name, "', got '", describe(current()), "'"));
  }
}

void ParserBase::expect_operator(const char* op) {
  if (!skip_operator(op)) {
    fail(concat("expected token '", op, "', got '", describe(current()), "'"));
  }
}

int ParserBase::symbol(const std::string& name) {
  const auto [found, added] = symbols_.emplace(name, static_cast<int>(names_.size()));
  if (added) names_.push_back(name);
  return found->second;
}

ParserBase::Nesting::Nesting(ParserBase& parser) : parser_(parser) {
  if (++parser.nesting_ > limits::kTemplateNesting) {
    --parser.nesting_;
    throw TemplateError(ErrorKind::kUnsupported,
                        concat("syntax is nested deeper than ", limits::kTemplateNesting, " levels"),
                        parser.current().position);
  }
}

ExprPtr ExpressionParser::make(Kind kind, Position position, std::vector<ExprPtr> operands) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->position = position;
  for (const ExprPtr& operand : operands) {
    if (operand) node->depth = std::max(node->depth, operand->depth + 1);
  }
  if (node->depth > limits::kTemplateNesting) {
    throw TemplateError(
        ErrorKind::kUnsupported,
        concat("an expression of more than ", limits::kTemplateNesting, " levels"), position);
  }
  node->operands = std::move(operands);
  return node;
}

namespace {

template <typename... Operands>
std::vector<ExprPtr> nodes(Operands... operands) {
  std::vector<ExprPtr> out;
  (out.push_back(std::move(operands)), ...);
  return out;
}

}  // namespace

ExprPtr ExpressionParser::binary(Operator op, ExprPtr left, ExprPtr right, Position position) {
  ExprPtr node = make(Kind::kBinary, position, nodes(std::move(left), std::move(right)));
  node->op = op;
  return node;
}

ExprPtr ExpressionParser::parse_expression(bool with_conditional) {
  const Nesting nesting(*this);
  return with_conditional ? parse_conditional() : parse_or();
}

ExprPtr ExpressionParser::parse_conditional() {
  // Parts of a conditional are soft; that it is one shows only behind its first part.
  const size_t unknown = unknown_.size();
  ExprPtr node = parse_or();
  while (is_name("if")) {
    const Position position = next().position;
    ExprPtr condition = parse_or();
    ExprPtr otherwise;
    if (skip_name("else")) {
      const Nesting nesting(*this);
      otherwise = parse_conditional();
    }
    node = make(Kind::kConditional, position,
                nodes(std::move(node), std::move(condition), std::move(otherwise)));
    unknown_.resize(unknown);
  }
  return node;
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (is_name("or")) {
    const Position position = next().position;
    ExprPtr right = parse_and();
    left = make(Kind::kOr, position, nodes(std::move(left), std::move(right)));
  }
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (is_name("and")) {
    const Position position = next().position;
    ExprPtr right = parse_not();
    left = make(Kind::kAnd, position, nodes(std::move(left), std::move(right)));
  }
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const Position position = next().position;
  return make(Kind::kNot, position, nodes(parse_not()));
}

bool ExpressionParser::parse_comparison(Comparison& comparison) {
  constexpr std::pair<const char*, Comparison> kOperators[] = {
      {"==", Comparison::kEq}, {"!=", Comparison::kNe}, {"<", Comparison::kLt},
      {"<=", Comparison::kLe}, {">", Comparison::kGt},  {">=", Comparison::kGe}};
  for (const auto& [op, meaning] : kOperators) {
    if (skip_operator(op)) {
      comparison = meaning;
      return true;
    }
  }
  comparison = Comparison::kIn;
  if (skip_name("in")) return true;
  if (!is_name("not") || ahead().type != Type::kName || ahead().text != "in") return false;
  comparison = Comparison::kNotIn;
  next();
  next();
  return true;
}

ExprPtr ExpressionParser::parse_compare() {
  const Position position = current().position;
  std::vector<ExprPtr> operands = nodes(parse_sum());
  std::vector<Comparison> comparisons;
  Comparison comparison;
  while (parse_comparison(comparison)) {
    comparisons.push_back(comparison);
    operands.push_back(parse_sum());
  }
  if (comparisons.empty()) return std::move(operands[0]);
  ExprPtr node = make(Kind::kCompare, position, std::move(operands));
  node->comparisons = std::move(comparisons);
  return node;
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr left = parse_concat();
  while (is_operator("+") || is_operator("-")) {
    const Token& token = next();
    left = binary(token.text == "+" ? Operator::kAdd : Operator::kSub, std::move(left),
                  parse_concat(), token.position);
  }
  return left;
}

ExprPtr ExpressionParser::parse_concat() {
  const Position position = current().position;
  std::vector<ExprPtr> operands = nodes(parse_product());
  while (skip_operator("~")) operands.push_back(parse_product());
  if (operands.size() == 1) return std::move(operands[0]);
  return make(Kind::kConcat, position, std::move(operands));
}

ExprPtr ExpressionParser::parse_product() {
  ExprPtr left = parse_power();
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    const Token& token = next();
    const Operator op = token.text == "*"    ? Operator::kMul
                        : token.text == "/"  ? Operator::kDiv
                        : token.text == "//" ? Operator::kFloorDiv
                                             : Operator::kMod;
    left = binary(op, std::move(left), parse_power(), token.position);
  }
  return left;
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr left = parse_unary();
  while (is_operator("**")) {
    const Position position = next().position;
    left = binary(Operator::kPow, std::move(left), parse_unary(), position);
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filter) {
  ExprPtr node;
  if (is_operator("-") || is_operator("+")) {
    const Nesting nesting(*this);
    const Token& token = next();
    node = make(token.text == "-" ? Kind::kNegate : Kind::kPositive, token.position,
                nodes(parse_unary(false)));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filter_expression(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::parse_named() {
  const Token& token = next();
  const std::string& name = token.text;
  ExprPtr node = make(Kind::kConstant, token.position);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->value = Value(name == "true" || name == "True");
  } else if (name != "none" && name != "None") {
    node->kind = Kind::kName;
    node->name = name;
    node->symbol = symbol(name);
    for (auto& reads : reads_) {
      if (name == "loop" || name == "caller" || name == "kwargs" || name == "varargs") {
        reads.insert(name);
      }
    }
  }
  return node;
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = current();
  if (token.type == Type::kName) return parse_named();
  if (token.type == Type::kString) {
    std::string text;
    while (is(Type::kString)) text += next().text;
    ExprPtr node = make(Kind::kConstant, token.position);
    node->value = Value::string(std::move(text));
    return node;
  }
  if (token.type == Type::kNumber) {
    ExprPtr node = make(Kind::kConstant, token.position);
    node->value = next().number;
    return node;
  }
  if (skip_operator("(")) {
    ExprPtr node = parse_tuple(true, nullptr, true);
    expect_operator(")");
    return node;
  }
  if (is_operator("[")) return parse_list();
  if (is_operator("{")) return parse_dict();
  fail(concat("unexpected '", describe(token), "'"));
}

bool ExpressionParser::at_tuple_end(const char* end_name) const {
  return is(Type::kVariableEnd) || is(Type::kBlockEnd) || is_operator(")") ||
         (end_name && is_name(end_name));
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional, const char* end_name,
                                      bool explicit_parentheses) {
  const Position position = current().position;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect_operator(",");
    if (at_tuple_end(end_name)) break;
    items.push_back(parse_expression(with_conditional));
    if (!is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!explicit_parentheses) {
      fail(concat("Expected an expression, got '", describe(current()), "'"));
    }
  }
  return make(Kind::kTuple, position, std::move(items));
}

ExprPtr ExpressionParser::parse_list() {
  const Position position = next().position;
  std::vector<ExprPtr> items;
  while (!is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("]")) break;
    items.push_back(parse_expression());
  }
  expect_operator("]");
  return make(Kind::kList, position, std::move(items));
}

ExprPtr ExpressionParser::parse_dict() {
  const Position position = next().position;
  std::vector<ExprPtr> items;
  while (!is_operator("}")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("}")) break;
    items.push_back(parse_expression());
    expect_operator(":");
    items.push_back(parse_expression());
  }
  expect_operator("}");
  return make(Kind::kDict, position, std::move(items));
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  for (;;) {
    if (is_operator(".") || is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filter_expression(ExprPtr node) {
  for (;;) {
    if (is_operator("|")) {
      node = parse_filters(std::move(node), false);
    } else if (is_name("is")) {
      node = parse_test(std::move(node));
    } else if (is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr node) {
  const Token& token = next();
  if (token.text == ".") {
    const Token& attribute = next();
    if (attribute.type == Type::kName) {
      node = make(Kind::kAttribute, token.position, nodes(std::move(node)));
      node->name = attribute.text;
      return node;
    }
    if (attribute.type != Type::kNumber || !attribute.number.is_int()) {
      fail("expected name or number", attribute.position);
    }
    ExprPtr index = make(Kind::kConstant, attribute.position);
    index->value = attribute.number;
    return make(Kind::kItem, token.position, nodes(std::move(node), std::move(index)));
  }
  std::vector<ExprPtr> subscripts;
  while (!is_operator("]")) {
    if (!subscripts.empty()) expect_operator(",");
    subscripts.push_back(parse_subscribed());
  }
  expect_operator("]");
  if (subscripts.size() != 1) {
    ExprPtr tuple = make(Kind::kTuple, token.position, std::move(subscripts));
    return make(Kind::kItem, token.position, nodes(std::move(node), std::move(tuple)));
  }
  ExprPtr subscript = std::move(subscripts[0]);
  if (subscript->kind != Kind::kSliceArgument) {
    return make(Kind::kItem, token.position, nodes(std::move(node), std::move(subscript)));
  }
  std::vector<ExprPtr>& bounds = subscript->operands;
  return make(Kind::kSlice, token.position,
              nodes(std::move(node), std::move(bounds[0]), std::move(bounds[1]),
                    std::move(bounds[2])));
}

ExprPtr ExpressionParser::parse_subscribed() {
  const Position position = current().position;
  ExprPtr start, stop, step;
  if (!is_operator(":")) {
    start = parse_expression();
    if (!is_operator(":")) return start;
  }
  next();
  if (!is_operator(":") && !is_operator("]") && !is_operator(",")) stop = parse_expression();
  if (skip_operator(":") && !is_operator("]") && !is_operator(",")) step = parse_expression();
  return make(Kind::kSliceArgument, position,
              nodes(std::move(start), std::move(stop), std::move(step)));
}

void ExpressionParser::parse_argument(CallSyntax& call, Position position) {
  const auto ensure = [&](bool holds) {
    if (!holds) fail("invalid syntax for function call expression", position);
  };
  if (skip_operator("*")) {
    ensure(!call.more_positional && !call.more_named);
    call.more_positional = parse_expression();
  } else if (skip_operator("**")) {
    ensure(!call.more_named);
    call.more_named = parse_expression();
  } else if (is(Type::kName) && ahead().type == Type::kOperator && ahead().text == "=") {
    ensure(!call.more_named);
    const std::string name = next().text;
    next();
    for (const auto& [other, value] : call.named) {
      if (other == name) fail("keyword argument repeated: " + name, position);
    }
    call.named.emplace_back(name, parse_expression());
  } else {
    ensure(!call.more_positional && !call.more_named && call.named.empty());
    call.positional.push_back(parse_expression());
  }
}

std::unique_ptr<CallSyntax> ExpressionParser::parse_call_syntax() {
  const Position position = current().position;
  expect_operator("(");
  auto call = std::make_unique<CallSyntax>();
  for (bool first = true; !is_operator(")"); first = false) {
    if (!first) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    parse_argument(*call, position);
  }
  expect_operator(")");
  return call;
}

void ExpressionParser::attach(Expr& node, std::unique_ptr<CallSyntax> call) {
  const auto deepen = [&](const ExprPtr& argument) {
    if (argument) node.depth = std::max(node.depth, argument->depth + 1);
  };
  for (const ExprPtr& argument : call->positional) deepen(argument);
  for (const auto& [name, argument] : call->named) deepen(argument);
  deepen(call->more_positional);
  deepen(call->more_named);
  node.call = std::move(call);
}

ExprPtr ExpressionParser::parse_call(ExprPtr node) {
  const Position position = current().position;
  auto call = parse_call_syntax();
  ExprPtr out = make(Kind::kCall, position, nodes(std::move(node)));
  attach(*out, std::move(call));
  return out;
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = expect(Type::kName, "name").text;
  while (skip_operator(".")) name += "." + expect(Type::kName, "name").text;
  return name;
}

void ExpressionParser::check_known(const std::string& name, bool filter, Position position) {
  if (soft_ || (filter ? find_filter(name) != nullptr : find_test(name) != nullptr)) return;
  unknown_.emplace_back(concat("No ", filter ? "filter" : "test", " named '", name, "'."), position);
}

ExprPtr ExpressionParser::parse_filters(ExprPtr node, bool start_inline) {
  while (is_operator("|") || start_inline) {
    if (!start_inline) next();
    start_inline = false;
    const Position position = current().position;
    const std::string name = parse_dotted_name();
    check_known(name, true, position);
    ExprPtr filter = make(Kind::kFilter, position, nodes(std::move(node)));
    filter->name = name;
    attach(*filter, is_operator("(") ? parse_call_syntax() : std::make_unique<CallSyntax>());
    node = std::move(filter);
  }
  return node;
}

ExprPtr ExpressionParser::parse_test(ExprPtr node) {
  next();
  const bool negated = skip_name("not");
  const Position position = current().position;
  const std::string name = parse_dotted_name();
  check_known(name, false, position);
  auto call = std::make_unique<CallSyntax>();
  const bool argument = is(Type::kName) || is(Type::kString) || is(Type::kNumber) ||
                        is_operator("[") || is_operator("{");
  if (is_operator("(")) {
    call = parse_call_syntax();
  } else if (argument && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) fail("You cannot chain multiple tests with is");
    const Nesting nesting(*this);
    call->positional.push_back(parse_postfix(parse_primary()));
  }
  ExprPtr test = make(Kind::kTest, position, nodes(std::move(node)));
  test->name = name;
  attach(*test, std::move(call));
  return negated ? make(Kind::kNot, position, nodes(std::move(test))) : std::move(test);
}

const Token& ExpressionParser::parse_name_target() {
  const Token& token = expect(Type::kName, "name");
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (token.text == constant) fail("can't assign to 'name'", token.position);
  }
  return token;
}

ExprPtr ExpressionParser::parse_simple_target(bool with_namespace) {
  const Nesting nesting(*this);
  const Token& token = current();
  if (skip_operator("(")) {
    ExprPtr tuple = parse_target_list(false, nullptr, true);
    expect_operator(")");
    return tuple;
  }
  if (token.type != Type::kName) fail(concat("can't assign to '", describe(token), "'"));
  parse_name_target();
  ExprPtr node = make(Kind::kName, token.position);
  node->symbol = symbol(token.text);
  node->name = token.text;
  if (with_namespace && skip_operator(".")) {
    node->kind = Kind::kNamespaceRef;
    node->name = expect(Type::kName, "name").text;
  }
  return node;
}

ExprPtr ExpressionParser::parse_target(bool with_namespace, const char* end_name) {
  return parse_target_list(with_namespace, end_name, false);
}

ExprPtr ExpressionParser::parse_target_list(bool with_namespace, const char* end_name,
                                            bool parenthesized) {
  const Position position = current().position;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect_operator(",");
    if (at_tuple_end(end_name)) break;
    items.push_back(parse_simple_target(with_namespace));
    if (!is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (items.empty() && !parenthesized) {
    fail(concat("Expected an expression, got '", describe(current()), "'"));
  }
  return make(Kind::kTuple, position, std::move(items));
}

}  // namespace lowbit::jinja
