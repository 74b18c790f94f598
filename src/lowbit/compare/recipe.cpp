#include "lowbit/compare/recipe.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/paths.h"
#include "lowbit/compare/yaml.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

namespace {

constexpr int64_t kMany = int64_t{1} << 20;  // of samples, steps, chunks

// Values ---------------------------------------------------------------------------------------

[[noreturn]] void refuse(const YamlNode& node, const std::string& expected) {
  const std::string found = node.kind == YamlNode::Kind::kScalar     ? "\"" + node.text + "\""
                            : node.kind == YamlNode::Kind::kNull     ? "nothing"
                            : node.kind == YamlNode::Kind::kSequence ? "a list"
                                                                     : "a map";
  fail(ErrorKind::kInvalidArgument, node.where, ": expected ", expected, ", found ", found);
}

std::string read_text(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) refuse(node, "text");
  return node.text;
}

template <typename Number>
bool parse_number(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && rest == end;
}

template <typename Number>
Number read_number(const YamlNode& node, Number least, Number most) {
  Number value{};
  if (node.kind != YamlNode::Kind::kScalar || node.quoted || !parse_number(node.text, value) ||
      !(value >= least && value <= most)) {
    refuse(node, concat("a number from ", least, " to ", most));
  }
  return value;
}

bool read_bool(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar || (node.text != "true" && node.text != "false")) {
    refuse(node, "true or false");
  }
  return node.text == "true";
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string read_choice(const YamlNode& node, const std::vector<std::string>& choices) {
  if (node.kind != YamlNode::Kind::kScalar ||
      std::find(choices.begin(), choices.end(), node.text) == choices.end()) {
    refuse(node, "one of " + join(choices));
  }
  return node.text;
}

std::vector<std::string> read_list(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kSequence) refuse(node, "a list");
  std::vector<std::string> items;
  for (const YamlNode& item : node.items) items.push_back(read_text(item));
  return items;
}

Activations read_activations(const YamlNode& node) {
  return parse_activations(read_choice(node, {"default", "f32", "int8"}));
}

// Maps -----------------------------------------------------------------------------------------

// What may stand in a map, and what to do with it.
struct Field {
  const char* key;
  std::function<void(const YamlNode&)> read;
};
using Fields = std::vector<Field>;

// A field for a number, a flag or a text that lives elsewhere.
template <typename Number>
Field number(const char* key, Number& value, Number least, Number most) {
  return {key, [&value, least, most](const YamlNode& node) {
            value = read_number<Number>(node, least, most);
          }};
}
Field flag(const char* key, bool& value) {
  return {key, [&value](const YamlNode& node) { value = read_bool(node); }};
}
Field text(const char* key, std::string& value) {
  return {key, [&value](const YamlNode& node) { value = read_text(node); }};
}

void read_map(const YamlNode& node, const std::string& what, const Fields& fields) {
  if (node.kind == YamlNode::Kind::kNull) return;
  if (node.kind != YamlNode::Kind::kMap) refuse(node, concat("a map (", what, ")"));
  for (const YamlNode::Member& member : node.members) {
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const Field& candidate) {
      return member.key == candidate.key;
    });
    if (field == fields.end()) {
      std::vector<std::string> possible;
      for (const Field& candidate : fields) possible.emplace_back(candidate.key);
      fail(ErrorKind::kInvalidArgument, member.where, ": ", what, " has no \"", member.key,
           "\"; possible are: ", join(possible));
    }
    field->read(member.value);
  }
}

// What of the calibrated methods can be chosen, by the names of `lowbit quantize`'s options.
void add_method_option_fields(Fields& fields, QuantizeOptions& options) {
  GptqOptions& gptq = options.method_options.gptq;
  fields.push_back(number("damp_percent", gptq.damp_percent, 1e-6, 1.0));
  fields.push_back({"act_order", [&gptq](const YamlNode& node) {
                      const std::string order = read_choice(node, {"none", "static", "kept"});
                      gptq.act_order = order == "none"     ? ActOrder::kNone
                                       : order == "static" ? ActOrder::kStatic
                                                           : ActOrder::kKept;
                    }});
  fields.push_back(flag("search_scale", gptq.search_scale));
  fields.push_back(number<int64_t>("block_size", gptq.block_size, 1, 4096));
  fields.push_back(flag("duo_scaling", options.method_options.awq.duo_scaling));
  fields.push_back(flag("clip", options.method_options.awq.clip));
  fields.push_back(number("alpha", options.method_options.smoothquant.alpha, 0.0, 1.0));
  fields.push_back(text("act_scales", options.act_scales));
  fields.push_back(
      number<int64_t>("outliers", options.method_options.mixq.outliers, 0, limits::kDimension));
  AutoRoundOptions& autoround = options.method_options.autoround;
  fields.push_back(number<int64_t>("iters", autoround.iterations, 1, kMany));
  fields.push_back(number<int64_t>("batch_size", autoround.batch_size, 1, kMany));
  fields.push_back(number("lr", autoround.learning_rate, 1e-6, 1.0));
  AutoOptions& automatic = options.method_options.automatic;
  fields.push_back(text("auto_method", automatic.method));
  fields.push_back(number("target_bits", automatic.target_bits, 1.0, 16.0));
  RefineOptions& refine = options.method_options.refine;
  fields.push_back(number<int64_t>("refine_steps", refine.steps, 1, kMany));
  fields.push_back(number("refine_lr", refine.rate, 1e-6, 1.0));
}

void read_scheme(const YamlNode& node, RecipeMethod& method) {
  QuantizeOptions& options = method.options;
  Fields fields = {
      text("name", method.name),
      text("method", options.method),
      number("bits", options.bits, 1, 8),
      {"input_bits",
       [&options](const YamlNode& value) {
         parse_number(read_choice(value, {"4", "8", "16"}), options.input_bits);
       }},
      {"group_size",
       [&options](const YamlNode& value) {
         const std::string size = read_choice(value, {"-1", "32", "64", "128"});
         parse_number(size, options.group_size);
       }},
      flag("symmetric", options.symmetric),
      text("format", options.format),
      {"skip", [&options](const YamlNode& value) { options.skip = read_list(value); }},
  };
  add_method_option_fields(fields, options);
  read_map(node, "a method", fields);
}

RecipeMethod read_method(const YamlNode& node, const RecipeMethod& defaults) {
  RecipeMethod method = defaults;
  if (node.kind != YamlNode::Kind::kMap) refuse(node, "a map with \"method\"");
  method.options.method.clear();
  read_scheme(node, method);
  LOWBIT_CHECK(!method.options.method.empty(), node.where, ": \"method\" is missing");
  if (method.name.empty()) method.name = method.options.method;
  try {
    quantize_method(method.options.method);
  } catch (const Error& error) {
    fail(error.kind(), node.where, ": ", error.what());
  }
  LOWBIT_CHECK(is_plain_name(method.name), node.where, ": \"", method.name,
               "\" cannot be a row's name; use letters, digits, '.', '_' and '-'");
  LOWBIT_CHECK(method.name != "source", node.where, ": \"source\" is the name of the model's row");
  return method;
}

void read_methods(const YamlNode& node, const RecipeMethod& defaults, Recipe& recipe) {
  if (node.kind != YamlNode::Kind::kSequence) refuse(node, "a list of methods");
  LOWBIT_CHECK(node.items.size() <= limits::kRecipeMethods, node.where, ": ", node.items.size(),
               " methods; at most ", limits::kRecipeMethods, " are possible");
  std::set<std::string> names;
  for (const YamlNode& item : node.items) {
    recipe.methods.push_back(read_method(item, defaults));
    const std::string& name = recipe.methods.back().name;
    LOWBIT_CHECK(names.insert(name).second, item.where, ": a second row \"", name,
                 "\"; give it another \"name\"");
  }
}

void read_windows(const YamlNode& node, const std::string& what, WindowOptions& options,
                  Activations* activations) {
  Fields fields = {number<int64_t>("context", options.context, 2, limits::kContext),
                   number<int64_t>("chunks", options.chunks, -1, kMany)};
  if (activations != nullptr) {  // of perplexity
    fields.push_back({"protocol", [&options](const YamlNode& value) {
                        options.protocol = read_choice(value, protocol_names());
                      }});
    fields.push_back({"activations", [activations](const YamlNode& value) {
                        *activations = read_activations(value);
                      }});
  }
  read_map(node, what, fields);
  LOWBIT_CHECK(options.chunks != 0, node.where, ": chunks must be positive, or -1 for all");
}

void read_speed(const YamlNode& node, Recipe& recipe) {
  LatencyOptions& speed = recipe.speed;
  read_map(node, "speed",
           {number<int64_t>("prompt", speed.prompt_tokens.front(), 1, limits::kContext),
            number<int64_t>("decode", speed.decode_tokens, 1, limits::kContext),
            number("repetitions", speed.repetitions, 1, 1000),
            {"activations", [&recipe](const YamlNode& value) {
               recipe.speed_activations = read_activations(value);
             }}});
}

void read_calibration(const YamlNode& node, CalibrationOptions& calibration) {
  read_map(node, "calibration",
           {number<int64_t>("samples", calibration.samples, 1, kMany),
            number<int64_t>("seqlen", calibration.seqlen, 2, limits::kContext),
            number<int64_t>("seed", calibration.seed, -1, std::numeric_limits<int64_t>::max())});
}

Recipe read_tree(YamlNode& root, const std::string& origin) {
  Recipe recipe;
  RecipeMethod defaults;
  // Methods begin as copies of the defaults, wherever those stand.
  if (const YamlNode* node = root.find("defaults")) {
    LOWBIT_CHECK(node->kind != YamlNode::Kind::kMap ||
                     std::none_of(node->members.begin(), node->members.end(),
                                  [](const YamlNode::Member& member) {
                                    return member.key == "name" || member.key == "method";
                                  }),
                 node->where, ": defaults are for all methods; they cannot have a name or method");
    read_scheme(*node, defaults);
  }
  if (const YamlNode* node = root.find("calibration")) {
    read_calibration(*node, defaults.options.calibration);
  }
  read_map(root, "a recipe",
           {text("name", recipe.name),
            text("description", recipe.description),
            {"defaults", [](const YamlNode&) {}},
            {"methods", [&](const YamlNode& node) { read_methods(node, defaults, recipe); }},
            {"eval",
             [&](const YamlNode& node) {
               read_windows(node, "eval", recipe.eval, &recipe.eval_activations);
             }},
            {"divergence",
             [&](const YamlNode& node) {
               read_windows(node, "divergence", recipe.divergence, nullptr);
             }},
            {"speed", [&](const YamlNode& node) { read_speed(node, recipe); }},
            {"calibration", [](const YamlNode&) {}}});
  LOWBIT_CHECK(!recipe.methods.empty(), origin, ": \"methods\" is missing or empty");
  return recipe;
}

// Overrides ------------------------------------------------------------------------------------

// The element of `methods` with this name, or of this method.
YamlNode& find_row(YamlNode& methods, const std::string& name, const std::string& origin) {
  std::vector<std::string> names;
  for (YamlNode& item : methods.items) {
    const YamlNode* named = item.find("name");
    if (named == nullptr) named = item.find("method");
    if (named == nullptr) continue;
    if (named->text == name) return item;
    names.push_back(named->text);
  }
  fail(ErrorKind::kInvalidArgument, origin, ": there is no method \"", name,
       "\"; there are: ", join(names));
}

// The member `key` of a map, made if it is not there.
YamlNode& descend(YamlNode& node, const std::string& key, const std::string& origin) {
  if (node.kind == YamlNode::Kind::kSequence) return find_row(node, key, origin);
  if (YamlNode* found = node.find(key)) return *found;
  LOWBIT_CHECK(node.kind == YamlNode::Kind::kMap || node.kind == YamlNode::Kind::kNull, origin,
               ": \"", key, "\" would be inside of a value (", node.where, ")");
  node.kind = YamlNode::Kind::kMap;
  node.members.push_back({key, origin, {}});
  node.members.back().value.where = origin;
  return node.members.back().value;
}

// Names of rows may hold dots: the last dot of "methods.<row>.<key>" is the one that counts.
std::vector<std::string> split_path(const std::string& path) {
  constexpr std::string_view kMethods = "methods.";
  const size_t last = path.rfind('.');
  if (path.rfind(kMethods, 0) == 0 && last > kMethods.size()) {
    return {"methods", path.substr(kMethods.size(), last - kMethods.size()), path.substr(last + 1)};
  }
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t dot; (dot = path.find('.', begin)) != std::string::npos; begin = dot + 1) {
    parts.push_back(path.substr(begin, dot - begin));
  }
  parts.push_back(path.substr(begin));
  return parts;
}

void apply_override(YamlNode& root, const std::string& assignment) {
  const std::string origin = "override " + assignment;
  const size_t equals = assignment.find('=');
  LOWBIT_CHECK(equals != std::string::npos && equals > 0, origin,
               ": expected path=value, such as eval.context=512");
  YamlNode value = parse_yaml(assignment.substr(equals + 1), origin);
  value.where = origin;
  const std::vector<std::string> parts = split_path(assignment.substr(0, equals));
  LOWBIT_CHECK(parts.size() <= limits::kRecipeDepth, origin, ": too many parts");
  YamlNode* node = &root;
  for (const std::string& part : parts) node = &descend(*node, part, origin);
  *node = std::move(value);
}

}  // namespace

Recipe parse_recipe(const std::string& text, const std::string& origin,
                    const std::vector<std::string>& overrides) {
  YamlNode root = parse_yaml(text, origin);
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  return read_tree(root, origin);
}

Recipe read_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_recipe(read_file(path, limits::kRecipeBytes), path, overrides);
}

std::string recipe_of(const std::vector<std::string>& methods) {
  std::string text = "defaults: {bits: 4}\nmethods:\n";
  for (const std::string& method : methods) {
    quantize_method(method);
    text += "  - method: " + method + "\n";
  }
  return text;
}

void keep_methods(Recipe& recipe, const std::vector<std::string>& names) {
  std::vector<RecipeMethod> kept;
  std::vector<std::string> rows;
  std::set<std::string> found;
  for (const RecipeMethod& method : recipe.methods) {
    rows.push_back(method.name);
    for (const std::string& name : names) {
      if (name != method.name && name != method.options.method) continue;
      if (kept.empty() || kept.back().name != method.name) kept.push_back(method);
      found.insert(name);
    }
  }
  for (const std::string& name : names) {
    LOWBIT_CHECK(found.count(name) > 0, "the recipe has no method \"", name,
                 "\"; it has: ", join(rows));
  }
  recipe.methods = std::move(kept);
}

Activations parse_activations(const std::string& name) {
  if (name == "f32") return Activations::kF32;
  if (name == "int8") return Activations::kInt8;
  LOWBIT_CHECK(name == "default", "no activations \"", name, "\"; there are: default, f32, int8");
  return Activations::kDefault;
}

const char* name_of(Activations activations) {
  switch (activations) {
    case Activations::kF32:
      return "f32";
    case Activations::kInt8:
      return "int8";
    case Activations::kDefault:
      break;
  }
  return "default";
}

}  // namespace lowbit
