// The parsed template.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/jinja/operators.h"

namespace lowbit::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

// name(positional..., name=value..., *more, **named)
struct CallSyntax {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional;  // may be null
  ExprPtr more_named;       // may be null
};

struct Expr {
  enum class Kind {
    kConstant,       // value
    kName,           // symbol, name
    kNamespaceRef,   // symbol.name as a target; operands: none
    kTuple,          // operands
    kList,           // operands
    kDict,           // operands: key, value, key, value, ...
    kAttribute,      // operands[0].name
    kItem,           // operands[0][operands[1]]
    kSlice,          // operands[0][operands[1]:operands[2]:operands[3]], the last three may be null
    kSliceArgument,  // a slice inside of a tuple subscript: operands as kSlice's last three
    kCall,           // operands[0](call)
    kFilter,         // operands[0]|name(call); operands[0] is null in a filter block
    kTest,           // operands[0] is name(call)
    kNegate,
    kPositive,
    kNot,
    kAnd,
    kOr,
    kBinary,       // operands[0] op operands[1]
    kConcat,       // operands joined by ~
    kCompare,      // operands[0] comparisons[0] operands[1] comparisons[1] ...
    kConditional,  // operands[0] if operands[1] else operands[2], which may be null
  };
  Kind kind;
  Position position;
  int depth = 1;  // of the tree, capped
  Operator op = Operator::kAdd;
  int symbol = -1;  // index of a name in the template's table
  Value value;
  std::string name;
  std::vector<ExprPtr> operands;
  std::vector<Comparison> comparisons;
  std::unique_ptr<CallSyntax> call;
};

struct Stmt;
using Block = std::vector<std::unique_ptr<Stmt>>;

struct Parameter {
  int symbol;
  std::string name;
  ExprPtr fallback;  // null: none
};

// A macro, or the body of a call block.
struct MacroSyntax {
  std::string name;
  std::vector<Parameter> parameters;
  Block body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  int caller = -1, kwargs = -1, varargs = -1;  // symbols
  std::vector<int> hidden;                     // as Stmt's
};

struct Stmt {
  enum class Kind {
    kData,      // text
    kPrint,     // expressions
    kIf,        // branches, else_body
    kFor,       // target, expression, condition, body, else_body
    kSet,       // target = expression
    kSetBlock,  // target = expression applied to the body; expression may be null
    kWith,      // targets, expressions, body
    kMacro,     // symbol = macro
    kCall,      // expression with macro as its caller
    kFilter,    // expression applied to the body
    kScope,     // body in a scope of its own: generation
    kBlock,     // body in a scope below the template's: block
    kDo,        // expression
    kBreak,
    kContinue,
    kUnsupported,  // text: refused when it is reached
  };
  struct Branch {
    ExprPtr condition;
    Block body;
  };

  Kind kind;
  Position position;
  Value text;
  ExprPtr target, expression, condition;
  std::vector<ExprPtr> targets, expressions;
  std::vector<Branch> branches;
  Block body, else_body;
  std::unique_ptr<MacroSyntax> macro;
  int symbol = -1;
  std::vector<int> hidden;  // symbols of the body's scope that begin undefined: scopes.h
  bool recursive = false;
  bool uses_loop = false;  // the body of a for reads `loop`
};

}  // namespace lowbit::jinja
