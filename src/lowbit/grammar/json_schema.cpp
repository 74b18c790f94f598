#include "lowbit/grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <map>

#include "lowbit/base/check.h"
#include "lowbit/grammar/json_formats.h"
#include "lowbit/grammar/regex.h"

namespace lowbit::grammar {

namespace {

constexpr std::array kAnnotations = {
    "title",     "description", "default",  "examples",   "$schema",   "$id",
    "$comment",  "deprecated",  "readOnly", "writeOnly",  "$defs",     "definitions",
    "nullable",  "example",     "$anchor",  "discriminator", "xml",    "externalDocs",
    "contentEncoding", "contentMediaType", "contentSchema"};
constexpr std::array kUnsupported = {
    "not",           "if",          "then",        "else",           "patternProperties",
    "propertyNames", "minProperties", "maxProperties", "contains",   "minContains",
    "maxContains",   "multipleOf",  "dependencies", "dependentRequired", "dependentSchemas",
    "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "additionalItems"};

template <typename List>
bool listed(const List& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

const OrderedJson* find(const OrderedJson& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

class Compiler {
 public:
  Compiler(Builder& builder, JsonText& json, const OrderedJson& root)
      : builder_(builder), json_(json), root_(root) {}

  Fragment compile() { return reference("#"); }

 private:
  [[noreturn]] void refuse(ErrorKind kind, const std::string& what) const {
    fail(kind, "JSON schema at ", path_.empty() ? "the root" : path_, ": ", what);
  }
  [[noreturn]] void bad(const std::string& what) const {
    refuse(ErrorKind::kInvalidArgument, what);
  }

  // Compiles the schema at a place below the one that is being compiled.
  Fragment below(const std::string& name, const OrderedJson& schema) {
    const size_t length = path_.size();
    path_ += "/" + name;
    if (++depth_ > kMaxNesting) bad(concat("nested deeper than ", kMaxNesting));
    const Fragment fragment = any_schema(schema);
    --depth_;
    path_.resize(length);
    return fragment;
  }

  Fragment any_schema(const OrderedJson& schema) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) bad("false allows nothing");
      return json_.value();
    }
    if (!schema.is_object()) bad("a schema must be an object or a boolean");
    check_keywords(schema);
    const Fragment fragment = typed_schema(schema);
    const OrderedJson* nullable = find(schema, "nullable");
    const bool null = nullable != nullptr && *nullable == true;
    return null ? builder_.choice({fragment, builder_.literal("null")}) : fragment;
  }

  void check_keywords(const OrderedJson& schema) const {
    for (const auto& [name, value] : schema.items()) {
      if (listed(kUnsupported, name)) {
        refuse(ErrorKind::kUnsupported, "\"" + name + "\" is not supported");
      }
      if (name == "uniqueItems" && value == true) {
        refuse(ErrorKind::kUnsupported, "\"uniqueItems\" is not supported");
      }
    }
  }

  // Only annotations may stand beside what says everything.
  void alone(const OrderedJson& schema, const std::string& keyword,
             std::initializer_list<const char*> besides = {}) const {
    for (const auto& [name, value] : schema.items()) {
      if (name == keyword || listed(kAnnotations, name) || listed(besides, name)) continue;
      refuse(ErrorKind::kUnsupported, "\"" + name + "\" beside \"" + keyword +
                                          "\" is not supported; move it into the branches");
    }
  }

  Fragment typed_schema(const OrderedJson& schema) {
    if (const OrderedJson* target = find(schema, "$ref")) {
      alone(schema, "$ref");
      if (!target->is_string()) bad("\"$ref\" must be a string");
      return reference(target->get<std::string>());
    }
    if (const OrderedJson* constant = find(schema, "const")) {
      alone(schema, "const", {"type", "enum"});
      return builder_.literal(dump_json(*constant));
    }
    if (const OrderedJson* values = find(schema, "enum")) {
      alone(schema, "enum", {"type"});
      return one_of_values(*values, find(schema, "type"));
    }
    if (const OrderedJson* branches = find(schema, "anyOf")) {
      alone(schema, "anyOf", {"type"});
      return any_of("anyOf", *branches);
    }
    if (const OrderedJson* branches = find(schema, "oneOf")) {
      alone(schema, "oneOf", {"type"});
      if (!exclusive(*branches)) {
        refuse(ErrorKind::kUnsupported,
               "\"oneOf\" is supported only if its branches have different types, or objects with "
               "a member whose \"const\" tells them apart; use \"anyOf\"");
      }
      return any_of("oneOf", *branches);
    }
    if (const OrderedJson* branches = find(schema, "allOf")) {
      alone(schema, "allOf");
      if (!branches->is_array() || branches->size() != 1) {
        refuse(ErrorKind::kUnsupported, "\"allOf\" of more than one schema is not supported");
      }
      return below("allOf/0", branches->front());
    }
    return by_type(schema);
  }

  Fragment by_type(const OrderedJson& schema) {
    const OrderedJson* type = find(schema, "type");
    if (type == nullptr) return of_type(implied_type(schema), schema);
    if (type->is_string()) return of_type(type->get<std::string>(), schema);
    if (!type->is_array() || type->empty()) bad("\"type\" must be a string or an array of them");
    std::vector<Fragment> parts;
    for (const OrderedJson& one : *type) {
      if (!one.is_string()) bad("\"type\" must be a string or an array of them");
      parts.push_back(of_type(one.get<std::string>(), schema));
    }
    return builder_.choice(parts);
  }

  // What a schema without a type is about: the texts it then allows are some of those it does.
  static std::string implied_type(const OrderedJson& schema) {
    const auto any = [&](std::initializer_list<const char*> names) {
      return std::any_of(names.begin(), names.end(),
                         [&](const char* name) { return schema.contains(name); });
    };
    if (any({"properties", "required", "additionalProperties"})) return "object";
    if (any({"items", "prefixItems", "minItems", "maxItems"})) return "array";
    if (any({"pattern", "format", "minLength", "maxLength"})) return "string";
    if (any({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) return "number";
    return "";
  }

  Fragment of_type(const std::string& type, const OrderedJson& schema) {
    if (type.empty()) return json_.value();
    if (type == "object") return object(schema);
    if (type == "array") return array(schema);
    if (type == "string") return string(schema);
    if (type == "boolean") {
      return builder_.choice({builder_.literal("true"), builder_.literal("false")});
    }
    if (type == "null") return builder_.literal("null");
    if (type == "integer" || type == "number") return number(type, schema);
    bad("there is no type \"" + type.substr(0, 100) + "\"");
  }

  Fragment reference(const std::string& target) {
    const auto found = references_.find(target);
    if (found != references_.end()) return builder_.call(found->second);
    const int32_t rule = builder_.add_rule();  // before it is compiled: it may refer to itself
    references_[target] = rule;
    const std::string path = std::exchange(path_, target == "#" ? "" : target);
    if (++depth_ > kMaxNesting) bad(concat("references nested deeper than ", kMaxNesting));
    const Fragment body = any_schema(resolve(target));
    --depth_;
    path_ = path;
    builder_.define(rule, body);
    return builder_.call(rule);
  }

  const OrderedJson& resolve(const std::string& target) const {
    if (target != "#" && !target.starts_with("#/")) {
      refuse(ErrorKind::kUnsupported, "a \"$ref\" must point into the schema, with #/");
    }
    try {
      return root_.at(OrderedJson::json_pointer(target.substr(1)));
    } catch (const OrderedJson::exception&) {
      bad("\"$ref\" points to nothing: " + target.substr(0, 200));
    }
  }

  Fragment any_of(const char* keyword, const OrderedJson& branches) {
    if (!branches.is_array() || branches.empty()) bad("an empty list of schemas");
    std::vector<Fragment> parts;
    for (size_t i = 0; i < branches.size(); ++i) {
      parts.push_back(below(concat(keyword, "/", i), branches[i]));
    }
    return builder_.choice(parts);
  }

  const OrderedJson& behind_reference(const OrderedJson& schema) const {
    const OrderedJson* at = &schema;
    for (int i = 0; i < kMaxNesting && at->is_object() && at->contains("$ref"); ++i) {
      if (!(*at)["$ref"].is_string()) break;
      at = &resolve((*at)["$ref"].get<std::string>());
    }
    return *at;
  }

  // No value is valid for two of the schemas.
  bool exclusive(const OrderedJson& branches) const {
    if (!branches.is_array()) return false;
    for (size_t i = 0; i < branches.size(); ++i) {
      for (size_t k = 0; k < i; ++k) {
        if (!exclude(behind_reference(branches[i]), behind_reference(branches[k]))) return false;
      }
    }
    return true;
  }

  static bool exclude(const OrderedJson& a, const OrderedJson& b) {
    if (!a.is_object() || !b.is_object()) return false;
    const OrderedJson *const_a = find(a, "const"), *const_b = find(b, "const");
    if (const_a != nullptr && const_b != nullptr) return *const_a != *const_b;
    const OrderedJson *type_a = find(a, "type"), *type_b = find(b, "type");
    if (type_a == nullptr || type_b == nullptr || !type_a->is_string() || !type_b->is_string()) {
      return false;
    }
    if (*type_a != *type_b) {
      const auto numeric = [](const OrderedJson& t) { return t == "integer" || t == "number"; };
      return !(numeric(*type_a) && numeric(*type_b));
    }
    const OrderedJson *in_a = find(a, "properties"), *in_b = find(b, "properties");
    if (*type_a != "object" || in_a == nullptr || in_b == nullptr) return false;
    for (const auto& [name, schema] : in_a->items()) {
      const OrderedJson* other = find(*in_b, name.c_str());
      const bool constants = other != nullptr && schema.is_object() && other->is_object() &&
                             schema.contains("const") && other->contains("const");
      if (constants && schema["const"] != (*other)["const"] && requires_member(a, name) &&
          requires_member(b, name)) {
        return true;
      }
    }
    return false;
  }

  static bool requires_member(const OrderedJson& schema, const std::string& name) {
    const OrderedJson* required = find(schema, "required");
    return required != nullptr && required->is_array() &&
           std::find(required->begin(), required->end(), OrderedJson(name)) != required->end();
  }

  static bool has_type(const OrderedJson& value, const OrderedJson* type) {
    if (type == nullptr) return true;
    if (type->is_array()) {
      return std::any_of(type->begin(), type->end(),
                         [&](const OrderedJson& one) { return has_type(value, &one); });
    }
    if (*type == "string") return value.is_string();
    if (*type == "integer") return value.is_number_integer();
    if (*type == "number") return value.is_number();
    if (*type == "boolean") return value.is_boolean();
    if (*type == "null") return value.is_null();
    if (*type == "object") return value.is_object();
    return *type == "array" && value.is_array();
  }

  Fragment one_of_values(const OrderedJson& values, const OrderedJson* type) {
    if (!values.is_array() || values.empty()) bad("\"enum\" must be an array, and not empty");
    std::vector<Fragment> parts;
    for (const OrderedJson& value : values) {
      if (has_type(value, type)) parts.push_back(builder_.literal(dump_json(value)));
    }
    if (parts.empty()) bad("no value of \"enum\" has the \"type\"");
    return builder_.choice(parts);
  }

  int64_t count(const OrderedJson& schema, const char* name, int64_t fallback) const {
    const OrderedJson* value = find(schema, name);
    if (value == nullptr) return fallback;
    const bool good = value->is_number_integer() && value->get<int64_t>() >= 0;
    if (!good) bad(concat("\"", name, "\" must be an integer of at least 0"));
    return value->get<int64_t>();
  }

  Fragment string(const OrderedJson& schema) {
    const int64_t min = count(schema, "minLength", 0), max = count(schema, "maxLength", -1);
    const OrderedJson *pattern = find(schema, "pattern"), *format = find(schema, "format");
    const bool bounded = min > 0 || max >= 0;
    if ((pattern != nullptr) + (format != nullptr) + bounded > 1) {
      refuse(ErrorKind::kUnsupported,
             "more than one of \"pattern\", \"format\" and a length is not supported");
    }
    const auto quoted = [&](Fragment inside) {
      return builder_.sequence({builder_.literal("\""), inside, builder_.literal("\"")});
    };
    if (bounded) {
      if (max >= 0 && max < min) bad("\"maxLength\" is below \"minLength\"");
      return quoted(builder_.repeat([&] { return json_.character(); }, min, max));
    }
    if (pattern == nullptr && format == nullptr) return json_.string();
    const OrderedJson& source = pattern != nullptr ? *pattern : *format;
    if (!source.is_string()) bad("\"pattern\" and \"format\" must be strings");
    const auto text = source.get<std::string>();
    try {
      if (pattern != nullptr) {
        return quoted(regex(builder_, text, Anchoring::kSearch, Spelling::kJsonString));
      }
      return quoted(json_format(builder_, text));
    } catch (const Error& error) {
      refuse(error.kind(), error.what());
    }
  }

  Fragment number(const std::string& type, const OrderedJson& schema) {
    Bounds bounds;
    const auto bound = [&](const char* inclusive, const char* exclusive,
                           std::optional<double>& value, bool& excluded, double sign) {
      const OrderedJson *in = find(schema, inclusive), *out = find(schema, exclusive);
      if ((in != nullptr && !in->is_number()) || (out != nullptr && !out->is_number())) {
        bad(concat("\"", inclusive, "\" and \"", exclusive, "\" must be numbers"));
      }
      if (in != nullptr) value = in->get<double>();
      if (out != nullptr && (!value || sign * out->get<double>() >= sign * *value)) {
        value = out->get<double>();
        excluded = true;
      }
    };
    bound("minimum", "exclusiveMinimum", bounds.minimum, bounds.above, 1);
    bound("maximum", "exclusiveMaximum", bounds.maximum, bounds.below, -1);
    if (!bounds.minimum && !bounds.maximum) {
      return type == "integer" ? json_.integer() : json_.number();
    }
    try {
      return type == "integer" ? integer_within(builder_, bounds)
                               : number_within(builder_, bounds);
    } catch (const Error& error) {
      refuse(error.kind(), error.what());
    }
  }

  Fragment array(const OrderedJson& schema) {
    const int64_t min = count(schema, "minItems", 0);
    int64_t max = count(schema, "maxItems", -1);
    const OrderedJson *items = find(schema, "items"), *prefix = find(schema, "prefixItems");
    std::vector<Fragment> first;
    if (prefix != nullptr) {
      if (!prefix->is_array()) bad("\"prefixItems\" must be an array");
      for (size_t i = 0; i < prefix->size(); ++i) {
        if (i > 0) first.insert(first.end(), {builder_.literal(","), json_.space()});
        first.push_back(below(concat("prefixItems/", i), (*prefix)[i]));
      }
    }
    const auto given = static_cast<int64_t>(prefix == nullptr ? 0 : prefix->size());
    const bool closed = items != nullptr ? *items == false : prefix != nullptr;
    if (closed) max = max < 0 ? given : std::min(max, given);
    if (max >= 0 && (max < min || max < given)) {
      bad("the numbers of items contradict each other");
    }
    const auto whole = [&](Fragment inside) {
      return builder_.sequence({builder_.literal("["), json_.space(), inside, json_.space(),
                                builder_.literal("]")});
    };
    if (max == given) return whole(builder_.sequence(first));
    const int32_t rule = builder_.add_rule();
    builder_.define(rule, items == nullptr ? json_.value() : below("items", *items));
    const auto item = [&] { return builder_.call(rule); };
    if (given == 0) return whole(json_.comma_separated(item, min, max));
    const auto next = [&] {
      return builder_.sequence({builder_.literal(","), json_.space(), item()});
    };
    first.push_back(builder_.repeat(next, std::max<int64_t>(min - given, 0),
                                    max < 0 ? -1 : max - given));
    return whole(builder_.sequence(first));
  }

  struct Member {
    std::string name;
    const OrderedJson* schema;
    bool required;
  };

  std::vector<Member> members_of(const OrderedJson& schema) const {
    std::vector<Member> members;
    static const OrderedJson kAny = true;
    const OrderedJson *properties = find(schema, "properties"), *required = find(schema, "required");
    if (properties != nullptr && !properties->is_object()) bad("\"properties\" must be an object");
    if (required != nullptr && !required->is_array()) bad("\"required\" must be an array");
    if (properties != nullptr) {
      for (const auto& [name, member] : properties->items()) {
        const bool needed = requires_member(schema, name);
        if (member == false && !needed) continue;
        members.push_back({name, &member, needed});
      }
    }
    if (required == nullptr) return members;
    const OrderedJson* additional = find(schema, "additionalProperties");
    for (const OrderedJson& name : *required) {
      if (!name.is_string()) bad("\"required\" must be an array of strings");
      if (properties != nullptr && properties->contains(name.get<std::string>())) continue;
      if (additional != nullptr && *additional == false) {
        bad("\"required\" names a member that \"additionalProperties\" forbids");
      }
      members.push_back({name.get<std::string>(), additional == nullptr ? &kAny : additional, true});
    }
    return members;
  }

  Fragment object(const OrderedJson& schema) {
    const std::vector<Member> members = members_of(schema);
    const OrderedJson* additional = find(schema, "additionalProperties");
    const bool open = additional == nullptr ? members.empty() : *additional != false;
    if (members.empty() && (additional == nullptr || *additional == true)) return json_.object();
    // Two paths side by side: nothing has been written yet, or a comma is due.
    int32_t none = builder_.add_node(), some = builder_.add_node();
    const int32_t start = none;
    for (const Member& member : members) {
      const int32_t rule = builder_.add_rule();
      builder_.define(rule, below("properties/" + member.name, *member.schema));
      const int32_t next_none = builder_.add_node(), next_some = builder_.add_node();
      const auto entry = [&](bool comma, int32_t from) {
        const Fragment key = builder_.sequence(
            {builder_.literal(comma ? "," : ""), comma ? json_.space() : builder_.empty(),
             builder_.literal(dump_json(OrderedJson(member.name)) + ":"), json_.space(),
             builder_.call(rule)});
        builder_.join(from, key.start);
        builder_.join(key.end, next_some);
      };
      entry(false, none);
      entry(true, some);
      if (!member.required) {
        builder_.join(none, next_none);
        builder_.join(some, next_some);
      }
      none = next_none;
      some = next_some;
    }
    if (open) add_further(members, additional, none, some);
    const int32_t end = builder_.add_node();
    builder_.join(none, end);
    builder_.join(some, end);
    return builder_.sequence({builder_.literal("{"), json_.space(), Fragment{start, end},
                              json_.space(), builder_.literal("}")});
  }

  // Members of other names, any number, that go on at `some`.
  void add_further(const std::vector<Member>& members, const OrderedJson* schema, int32_t none,
                   int32_t some) {
    std::vector<std::string> names;
    for (const Member& member : members) names.push_back(member.name);
    const int32_t rule = builder_.add_rule();
    const Fragment value = below("additionalProperties", *schema);
    builder_.define(rule, builder_.sequence({builder_.literal("\""), json_.other_string(names),
                                             builder_.literal(":"), json_.space(), value}));
    const Fragment first = builder_.call(rule);
    builder_.join(none, first.start);
    builder_.join(first.end, some);
    const Fragment next =
        builder_.sequence({builder_.literal(","), json_.space(), builder_.call(rule)});
    builder_.join(some, next.start);
    builder_.join(next.end, some);
  }

  Builder& builder_;
  JsonText& json_;
  const OrderedJson& root_;
  std::map<std::string, int32_t> references_;
  std::string path_;
  int depth_ = 0;
};

}  // namespace

Fragment json_schema(Builder& builder, JsonText& json, const OrderedJson& schema) {
  return Compiler(builder, json, schema).compile();
}

}  // namespace lowbit::grammar
