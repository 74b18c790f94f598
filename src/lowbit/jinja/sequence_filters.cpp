// jinja2's filters of lists, dicts and other iterables.
#include <algorithm>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/builtins.h"
#include "lowbit/jinja/keys.h"
#include "lowbit/jinja/operators.h"
#include "lowbit/jinja/print.h"
#include "lowbit/jinja/text.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

Value filter_length(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "length", {});
  const auto count = length(value);
  if (!count) raise("TypeError: object of type '", type_name(value), "' has no len()");
  return Value(*count);
}

Value filter_first(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "first", {});
  auto item = Iteration(value).next();
  return item ? *item : Value::undefined("No first item, sequence was empty.");
}

// Python's reversed(value) as a list; none if it has no order from the end.
std::optional<Values> reversed(const Value& value) {
  const bool ordered = value.sequence() || value.string() || value.dict() ||
                       value.is_undefined() || value.object_as<Range>() ||
                       value.object_as<DictView>();
  if (!ordered) return std::nullopt;
  Values items = elements(value);
  std::reverse(items.begin(), items.end());
  return items;
}

Value filter_last(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "last", {});
  if (const Sequence* sequence = value.sequence(); sequence && !sequence->items.empty()) {
    return sequence->items.back();
  }
  const auto items = reversed(value);
  if (!items) raise("TypeError: '", type_name(value), "' object is not reversible");
  return items->empty() ? Value::undefined("No last item, sequence was empty.") : items->front();
}

Value filter_list(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "list", {});
  return Value::list(elements(value));
}

Value filter_reverse(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "reverse", {});
  if (const Str* text = value.string()) {
    std::u32string points = unicode::decode(text->text);
    std::reverse(points.begin(), points.end());
    return Value::string(unicode::encode(points), text->markup);
  }
  if (auto items = reversed(value)) {
    return Iterator::make(value.sequence() ? "list_reverseiterator" : "reversed",
                          std::move(*items));
  }
  if (!is_iterable(value)) raise("FilterArgumentError: argument must be iterable");
  Values items = elements(value);
  std::reverse(items.begin(), items.end());
  return Value::list(std::move(items));
}

Value filter_join(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "join", {"d", "attribute"});
  const std::string separator = bound.has(0) ? to_text(bound[0]) : "";
  const KeyGetter key(bound.has(1) ? bound[1] : Value());
  std::string out;
  bool first = true;
  Iteration iteration(value);
  while (const auto item = iteration.next()) {
    if (!std::exchange(first, false)) out += separator;
    const std::string text = to_text(key(*item));
    check_text_size(out.size() + text.size());
    charge_bytes(text.size() + separator.size());
    out += text;
  }
  return Value::string(std::move(out));
}

template <typename Getter>
Values keys_of(const Values& items, const Getter& getter) {
  Values keys;
  for (const Value& item : items) keys.push_back(getter(item));
  return keys;
}

Value filter_sort(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "sort", {"reverse", "case_sensitive", "attribute"});
  const MultiKeyGetter getter(bound.value_or(2, Value()), !bound.truth(1, false));
  const Values items = elements(value);
  return Value::list(sorted_by(items, keys_of(items, getter), bound.truth(0, false)));
}

Value filter_dictsort(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "dictsort", {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") {
    raise("FilterArgumentError: You can only sort by either \"key\" or \"value\"");
  }
  require_defined(value);
  const Dict* dict = value.dict();
  if (!dict) raise("AttributeError: '", type_name(value), "' object has no attribute 'items'");
  Values pairs;
  for (const auto& [key, item] : dict->entries()) pairs.push_back(Value::tuple({key, item}));
  const KeyGetter getter(Value(by == "key" ? 0 : 1), !bound.truth(0, false));
  return Value::list(sorted_by(pairs, keys_of(pairs, getter), bound.truth(2, false)));
}

Value filter_items(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound none(arguments, "items", {});
  Values pairs;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, item] : dict->entries()) pairs.push_back(Value::tuple({key, item}));
  } else if (!value.is_undefined()) {
    raise("TypeError: Can only get item pairs from a mapping.");
  }
  return Iterator::make("generator", std::move(pairs));
}

Value filter_unique(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "unique", {"case_sensitive", "attribute"});
  const KeyGetter getter(bound.value_or(1, Value()), !bound.truth(0, false));
  Dict seen;
  Values items;
  Iteration iteration(value);
  while (auto item = iteration.next()) {
    Value key = getter(*item);
    if (seen.find(key)) continue;
    seen.set(std::move(key), Value());
    items.push_back(std::move(*item));
  }
  return Iterator::make("generator", std::move(items));
}

template <bool largest>
Value filter_extreme(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, largest ? "max" : "min", {"case_sensitive", "attribute"});
  const KeyGetter getter(bound.value_or(1, Value()), !bound.truth(0, false));
  std::optional<Value> best, best_key;
  Iteration iteration(value);
  while (auto item = iteration.next()) {
    Value key = getter(*item);
    if (best && !(largest ? less(*best_key, key) : less(key, *best_key))) continue;
    best = std::move(item);
    best_key = std::move(key);
  }
  return best ? *best : Value::undefined("No aggregated item, sequence was empty.");
}

Value filter_sum(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "sum", {"attribute", "start"});
  const KeyGetter getter(bound.value_or(0, Value()));
  Value sum = bound.value_or(1, Value(0));
  if (sum.is_string()) raise("TypeError: sum() can't sum strings [use ''.join(seq) instead]");
  Iteration iteration(value);
  while (const auto item = iteration.next()) sum = arithmetic(Operator::kAdd, sum, getter(*item));
  return sum;
}

Value filter_batch(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "batch", {"linecount", "fill_with"}, 1);
  const Int count = bound.integer(0, 0);
  Values lines, line;
  Iteration iteration(value);
  while (auto item = iteration.next()) {
    if (static_cast<Int>(line.size()) == count) {
      lines.push_back(Value::list(std::exchange(line, {})));
    }
    line.push_back(std::move(*item));
  }
  if (!line.empty()) {
    if (bound.has_value(1) && count > static_cast<Int>(line.size())) {
      line.resize(bounded_size(count, limits::kTemplateElements), bound[1]);
    }
    lines.push_back(Value::list(std::move(line)));
  }
  return Iterator::make("generator", std::move(lines));
}

Value filter_slice(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "slice", {"slices", "fill_with"}, 1);
  const Values items = elements(value);
  const Int wanted = bound.integer(0, 0);
  if (wanted == 0) raise("ZeroDivisionError: integer division or modulo by zero");
  const size_t slices = bounded_size(wanted, limits::kTemplateElements);
  Values out;
  size_t begin = 0;
  for (size_t i = 0; i < slices; ++i) {
    const bool extra = i < items.size() % slices;
    const size_t end = begin + items.size() / slices + extra;
    Values slice(items.begin() + static_cast<std::ptrdiff_t>(begin),
                 items.begin() + static_cast<std::ptrdiff_t>(end));
    if (bound.has_value(1) && !extra) slice.push_back(bound[1]);
    out.push_back(Value::list(std::move(slice)));
    begin = end;
  }
  return Iterator::make("generator", std::move(out));
}

Value filter_groupby(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "groupby", {"attribute", "default", "case_sensitive"}, 1);
  const bool case_sensitive = bound.truth(2, false);
  const KeyGetter getter(bound[0], !case_sensitive, bound.value_or(1, Value()));
  const KeyGetter shown(bound[0], false, bound.value_or(1, Value()));
  const Values items = elements(value);
  const Values sorted = sorted_by(items, keys_of(items, getter), false);
  Values groups, group;
  std::optional<Value> key;
  const auto close = [&] {
    if (key) groups.push_back(Value::group(shown(group[0]), group));
    group.clear();
  };
  for (const Value& item : sorted) {
    Value next = getter(item);
    if (!key || !equal(*key, next)) {
      close();
      key = std::move(next);
    }
    group.push_back(item);
  }
  close();
  return Value::list(std::move(groups));
}

constexpr Named<Filter> kFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"groupby", filter_groupby},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"max", filter_extreme<true>},
    {"min", filter_extreme<false>},
    {"reverse", filter_reverse},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

const Filter* find_sequence_filter(const std::string& name) {
  for (const auto& filter : kFilters) {
    if (name == filter.name) return &filter.function;
  }
  return nullptr;
}

}  // namespace lowbit::jinja
