#include "lowbit/server/guide.h"

#include "lowbit/server/api_error.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

namespace {

// A schema may come as an object, or as the text of one.
OrderedJson schema_in(const OrderedJson& value, const std::string& param) {
  if (!value.is_string()) return value;
  try {
    return parse_ordered_json(value.get<std::string>(), param);
  } catch (const std::exception& error) {
    throw ApiError(400, error.what(), param);
  }
}

std::string string_in(const OrderedJson& value, const std::string& param) {
  if (!value.is_string()) throw ApiError(400, "'" + param + "' must be a string.", param);
  return value.get<std::string>();
}

std::vector<std::string> choices_in(const OrderedJson& value, const std::string& param) {
  std::vector<std::string> choices;
  if (value.is_array()) {
    for (const OrderedJson& choice : value) choices.push_back(string_in(choice, param));
  }
  if (choices.empty()) {
    throw ApiError(400, "'" + param + "' must be an array of strings, and not empty.", param);
  }
  return choices;
}

// The guides in `object` under "<prefix>json", "<prefix>regex" and so on.
void collect(const OrderedJson& object, const std::string& prefix, const std::string& shown,
             std::vector<Guide>& guides) {
  for (const char* kind : {"json", "regex", "grammar", "choice", "json_object"}) {
    const OrderedJson* value = member(object, (prefix + kind).c_str());
    if (value == nullptr) continue;
    Guide guide;
    guide.param = shown + kind;
    const std::string name = kind;
    if (name == "json") {
      guide.kind = Guide::Kind::kJsonSchema;
      guide.schema = schema_in(*value, guide.param);
    } else if (name == "regex" || name == "grammar") {
      guide.kind = name == "regex" ? Guide::Kind::kRegex : Guide::Kind::kGrammar;
      guide.source = string_in(*value, guide.param);
    } else if (name == "choice") {
      guide.kind = Guide::Kind::kChoice;
      guide.choices = choices_in(*value, guide.param);
    } else {
      if (!value->is_boolean()) {
        throw ApiError(400, "'" + guide.param + "' must be a boolean.", guide.param);
      }
      if (!value->get<bool>()) continue;
    }
    guides.push_back(std::move(guide));
  }
}

void collect_response_format(const OrderedJson& format, std::vector<Guide>& guides) {
  const OrderedJson* type = format.is_object() ? member(format, "type") : nullptr;
  if (type == nullptr || !type->is_string()) {
    throw ApiError(400, "'response_format' must be an object with a string 'type'.",
                   "response_format");
  }
  const std::string name = type->get<std::string>();
  if (name == "text") return;
  if (name == "json_object") {
    guides.push_back({.kind = Guide::Kind::kJsonObject,
                      .schema = nullptr,
                      .source = "",
                      .choices = {},
                      .param = "response_format"});
  } else if (name == "json_schema") {
    const OrderedJson* holder = member(format, "json_schema");
    if (holder == nullptr) {
      throw ApiError(400, "Missing required parameter: 'response_format.json_schema'.",
                     "response_format.json_schema", "missing_required_parameter");
    }
    guides.push_back(json_schema_guide(*holder, "response_format"));
  } else {
    throw ApiError(400,
                   "Invalid value: '" + name.substr(0, 100) +
                       "'. Supported values are: 'text', 'json_object', and 'json_schema'.",
                   "response_format.type", "invalid_value");
  }
}

}  // namespace

Guide json_schema_guide(const OrderedJson& holder, const std::string& param) {
  const OrderedJson* schema = holder.is_object() ? member(holder, "schema") : nullptr;
  if (schema == nullptr) {
    throw ApiError(400, "Missing required parameter: '" + param + ".schema'.", param + ".schema",
                   "missing_required_parameter");
  }
  return {.kind = Guide::Kind::kJsonSchema,
          .schema = *schema,
          .source = "",
          .choices = {},
          .param = param};
}

std::optional<Guide> read_guide(const OrderedJson& body) {
  std::vector<Guide> guides;
  if (const OrderedJson* format = member(body, "response_format")) {
    collect_response_format(*format, guides);
  }
  if (const OrderedJson* structured = member(body, "structured_outputs")) {
    if (!structured->is_object()) {
      throw ApiError(400, "'structured_outputs' must be an object.", "structured_outputs");
    }
    collect(*structured, "", "structured_outputs.", guides);
    if (member(*structured, "structural_tag") != nullptr) {
      throw ApiError(400, "'structural_tag' is not supported.", "structured_outputs");
    }
  }
  collect(body, "guided_", "guided_", guides);
  if (guides.empty()) return std::nullopt;
  if (guides.size() > 1) {
    throw ApiError(400,
                   "Only one of response_format, structured_outputs and guided_* can shape an "
                   "answer; found '" +
                       guides[0].param + "' and '" + guides[1].param + "'.",
                   guides[1].param);
  }
  return guides.front();
}

}  // namespace lowbit::server
