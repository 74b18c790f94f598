// The global functions of Hugging Face's environment.
#include "lowbit/base/limits.h"
#include "lowbit/jinja/objects.h"
#include "lowbit/jinja/print.h"

namespace lowbit::jinja {

namespace {

Value call_range(Interpreter&, Arguments& arguments) {
  if (!arguments.named.empty()) raise("TypeError: range() takes no keyword arguments");
  Values& bounds = arguments.positional;
  if (bounds.empty() || bounds.size() > 3) {
    raise("TypeError: range expected 1 to 3 arguments, got ", bounds.size());
  }
  for (const Value& bound : bounds) {
    if (!bound.is_integral()) {
      raise("TypeError: '", type_name(bound), "' object cannot be interpreted as an integer");
    }
  }
  const Int start = bounds.size() > 1 ? bounds[0].integer() : 0;
  const Int stop = bounds.size() > 1 ? bounds[1].integer() : bounds[0].integer();
  return Value(std::make_shared<Range>(start, stop, bounds.size() > 2 ? bounds[2].integer() : 1));
}

void set_pair(Dict& dict, const Value& pair) {
  const Values both = elements(pair);
  if (both.size() != 2) {
    raise("ValueError: dictionary update sequence element has length ", both.size(),
          "; 2 is required");
  }
  dict.set(both[0], both[1]);
}

Value call_dict(Interpreter&, Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    raise("TypeError: dict expected at most 1 argument, got ", arguments.positional.size());
  }
  auto dict = std::make_shared<Dict>();
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (const Dict* other = source.dict()) {
      for (const auto& [key, value] : other->entries()) dict->set(key, value);
    } else {
      Iteration iteration(source);
      while (const auto pair = iteration.next()) set_pair(*dict, *pair);
    }
  }
  for (auto& [name, value] : arguments.named) dict->set(Value::string(name), std::move(value));
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

// The global `dict`: callable, with fromkeys.
class DictType final : public Object {
 public:
  std::string type_name() const override { return "TemplateDict"; }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, Arguments arguments) override {
    return call_dict(interpreter, arguments);
  }
  std::optional<Value> attribute(const std::string& name) override {
    if (name != "fromkeys") return std::nullopt;
    return Function::make(name, [](Interpreter&, Arguments& arguments) {
      const Bound bound(arguments, "fromkeys", {"iterable", "value"}, 1);
      auto dict = std::make_shared<Dict>();
      Iteration keys(bound[0]);
      while (auto key = keys.next()) dict->set(std::move(*key), bound.value_or(1, Value()));
      return Value(std::shared_ptr<const Dict>(std::move(dict)));
    });
  }
};

Value call_namespace(Interpreter& interpreter, Arguments& arguments) {
  return interpreter.make_namespace(std::move(arguments));
}

Value call_cycler(Interpreter&, Arguments& arguments) {
  if (!arguments.named.empty()) raise("TypeError: cycler() takes no keyword arguments");
  return Value(std::make_shared<Cycler>(std::move(arguments.positional)));
}

Value call_joiner(Interpreter&, Arguments& arguments) {
  const Bound bound(arguments, "joiner", {"sep"});
  return Value(std::make_shared<Joiner>(bound.has(0) ? to_text(bound[0]) : ", "));
}

Value call_raise_exception(Interpreter&, Arguments& arguments) {
  const Bound bound(arguments, "raise_exception", {"message"}, 1);
  throw Error(ErrorKind::kInvalidArgument, to_text(bound[0]));
}

Value call_strftime_now(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound(arguments, "strftime_now", {"format"}, 1);
  return Value::string(format_time(bound.string(0).text, interpreter.now()));
}

Value call_lipsum(Interpreter&, Arguments&) { refuse("the function 'lipsum' is not supported"); }

}  // namespace

std::optional<Value> find_global(Interpreter&, const std::string& name) {
  static constexpr std::pair<const char*, Value (*)(Interpreter&, Arguments&)> kFunctions[] = {
      {"range", call_range},
      {"namespace", call_namespace},
      {"cycler", call_cycler},
      {"joiner", call_joiner},
      {"raise_exception", call_raise_exception},
      {"strftime_now", call_strftime_now},
      {"lipsum", call_lipsum},
  };
  if (name == "dict") return Value(std::shared_ptr<Object>(std::make_shared<DictType>()));
  for (const auto& [known, function] : kFunctions) {
    if (name == known) return Function::make(name, function);
  }
  return std::nullopt;
}

std::string format_time(const std::string& format, std::time_t time) {
  // A naive datetime has no zone, and lowbit's has whole seconds.
  std::string pattern;
  for (size_t i = 0; i < format.size(); ++i) {
    const char directive = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (directive == '\0') {
      pattern += format[i];
      continue;
    }
    ++i;
    if (directive == 'f') pattern += "000000";
    if (directive != 'f' && directive != 'z' && directive != 'Z') {
      pattern += '%';
      pattern += directive;
    }
  }
  if (pattern.empty()) return "";
  std::tm local{};
  localtime_r(&time, &local);
  pattern += ' ';  // tells an empty result from a full buffer
  constexpr size_t kLongest = size_t{1} << 16;
  for (size_t size = 256; size <= kLongest; size *= 4) {
    std::string text(size, '\0');
    const size_t written = std::strftime(text.data(), text.size(), pattern.c_str(), &local);
    if (written > 0) return text.substr(0, written - 1);
  }
  refuse("strftime_now gives more than ", kLongest, " bytes");
}

}  // namespace lowbit::jinja
