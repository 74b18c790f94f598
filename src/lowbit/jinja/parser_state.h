// What parsing expressions and parsing statements share.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "lowbit/jinja/lexer.h"
#include "lowbit/jinja/parser.h"

namespace lowbit::jinja {

class ParserBase {
 protected:
  explicit ParserBase(std::string_view source) : tokens_(tokenize(source)) {}

  const Token& current() const { return tokens_[index_]; }
  const Token& ahead() const { return tokens_[std::min(index_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = current();
    if (index_ + 1 < tokens_.size()) ++index_;
    return token;
  }
  bool is(Token::Type type) const { return current().type == type; }
  bool is_name(const char* name) const { return is(Token::Type::kName) && current().text == name; }
  bool is_operator(const char* op) const {
    return is(Token::Type::kOperator) && current().text == op;
  }
  bool skip_name(const char* name) { return is_name(name) && (next(), true); }
  bool skip_operator(const char* op) { return is_operator(op) && (next(), true); }
  const Token& expect(Token::Type type, const char* description);
  void expect_name(const char* name);
  void expect_operator(const char* op);

  [[noreturn]] void fail(const std::string& message, Position position) const;
  [[noreturn]] void fail(const std::string& message) const { fail(message, current().position); }

  int symbol(const std::string& name);

  // One level of nested syntax, for its scope.
  class Nesting {
   public:
    explicit Nesting(ParserBase& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ParserBase& parser_;
  };

  std::vector<Token> tokens_;
  size_t index_ = 0;
  int nesting_ = 0;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int> symbols_;
  // Below an if, unknown filters and tests fail only when they are reached.
  bool soft_ = false;
  std::vector<std::pair<std::string, Position>> unknown_;  // those elsewhere
  // Names read since the innermost collector was set up: what a body uses of loop, caller, ...
  std::vector<std::set<std::string>> reads_;
};

std::string describe(const Token& token);

class ExpressionParser : protected ParserBase {
 protected:
  using ParserBase::ParserBase;

  ExprPtr parse_expression(bool with_conditional = true);
  // A tuple without parentheses, or one expression. end_name: a name that ends it ("in").
  ExprPtr parse_tuple(bool with_conditional = true, const char* end_name = nullptr,
                      bool explicit_parentheses = false);
  // Names, tuples of names, and namespace attributes if with_namespace.
  ExprPtr parse_target(bool with_namespace, const char* end_name = nullptr);
  const Token& parse_name_target();
  ExprPtr parse_filters(ExprPtr node, bool start_inline);
  ExprPtr make(Expr::Kind kind, Position position, std::vector<ExprPtr> operands = {});

 private:
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  bool parse_comparison(Comparison& comparison);
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter = true);
  ExprPtr parse_primary();
  ExprPtr parse_named();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filter_expression(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_subscribed();
  ExprPtr parse_call(ExprPtr node);
  std::unique_ptr<CallSyntax> parse_call_syntax();
  void parse_argument(CallSyntax& call, Position position);
  ExprPtr parse_test(ExprPtr node);
  std::string parse_dotted_name();
  bool at_tuple_end(const char* end_name) const;
  ExprPtr parse_simple_target(bool with_namespace);
  ExprPtr parse_target_list(bool with_namespace, const char* end_name, bool parenthesized);
  ExprPtr binary(Operator op, ExprPtr left, ExprPtr right, Position position);
  void attach(Expr& node, std::unique_ptr<CallSyntax> call);
  void check_known(const std::string& name, bool filter, Position position);
};

}  // namespace lowbit::jinja
