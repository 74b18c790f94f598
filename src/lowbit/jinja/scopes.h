// Finds the names that begin undefined in a scope although an outer one, or the caller, has them.
//
// jinja2 decides from the whole scope's text where a name comes from: one that is assigned before
// it is read, without condition, belongs to the scope from its start. Inner scopes (loops, macros)
// that run before the assignment then see it undefined:
//   {% for m in messages %}{{ tools }}{% endfor %}{% set tools = 1 %}
#pragma once

#include "lowbit/jinja/parser.h"

namespace lowbit::jinja {

// Fills `hidden` of the program and of every statement and macro with a scope.
void find_hidden_names(Program& program);

}  // namespace lowbit::jinja
