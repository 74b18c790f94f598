#include "lowbit/base/json.h"

#include <set>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"

namespace lowbit {

namespace {

constexpr size_t kReasonBytes = 200;
constexpr size_t kOrderedMembers = 1'024;  // of one ordered object, which finds them one by one

// Walks the text once before it becomes a document: nlohmann's own parser neither limits depth
// (copying a deep document overflows the stack) nor refuses duplicate members.
class Checker final : public nlohmann::json_sax<Json> {
 public:
  Checker(const std::string& origin, size_t max_members)
      : origin_(origin), max_members_(max_members) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override {
    enter();
    members_.emplace_back();
    return true;
  }
  bool end_object() override {
    --depth_;
    members_.pop_back();
    return true;
  }
  bool start_array(size_t) override {
    enter();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    LOWBIT_CHECK_KIND(members_.back().insert(name).second, ErrorKind::kCorruptFile, origin_,
                      ": JSON member \"", name, "\" appears twice");
    LOWBIT_CHECK_KIND(members_.back().size() <= max_members_, ErrorKind::kCorruptFile, origin_,
                      ": a JSON object has more than ", max_members_, " members");
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // The message repeats the last token, which may be megabytes.
    const std::string reason = std::string(error.what()).substr(0, kReasonBytes);
    fail(ErrorKind::kCorruptFile, origin_, ": not valid JSON at byte ", position, ": ", reason);
  }

 private:
  void enter() {
    LOWBIT_CHECK_KIND(++depth_ <= limits::kJsonDepth, ErrorKind::kCorruptFile, origin_,
                      ": JSON nested deeper than ", limits::kJsonDepth, " levels");
  }

  const std::string& origin_;
  const size_t max_members_;
  int depth_ = 0;
  std::vector<std::set<std::string>> members_;
};

template <typename Document>
Document parse(std::string_view text, const std::string& origin, size_t max_members = SIZE_MAX) {
  LOWBIT_CHECK_KIND(text.size() <= limits::kJsonBytes, ErrorKind::kCorruptFile, origin, ": ",
                    text.size(), " bytes of JSON, the limit is ", limits::kJsonBytes);
  Checker checker(origin, max_members);
  Json::sax_parse(text, &checker);
  return Document::parse(text);
}

[[noreturn]] void wrong_type(const Json& value, const char* key, const char* expected,
                             const std::string& origin) {
  std::string shown = dump_json(value);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  fail(ErrorKind::kCorruptFile, origin, ": \"", key, "\" must be ", expected, ", found ", shown);
}

const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

template <typename Document>
std::string dump(const Document& value, int indent) {
  return value.dump(indent, ' ', false, Document::error_handler_t::replace);
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin) {
  return parse<Json>(text, origin);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& origin) {
  return parse<OrderedJson>(text, origin, kOrderedMembers);
}

Json read_json(const std::string& path, size_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

int64_t json_int(const Json& object, const char* key, int64_t fallback, const std::string& origin) {
  const Json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX) {
    wrong_type(*value, key, "an integer below 2^63", origin);
  }
  if (!value->is_number_integer()) wrong_type(*value, key, "an integer", origin);
  return value->get<int64_t>();
}

double json_double(const Json& object, const char* key, double fallback,
                   const std::string& origin) {
  const Json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) wrong_type(*value, key, "a number", origin);
  return value->get<double>();
}

bool json_bool(const Json& object, const char* key, bool fallback, const std::string& origin) {
  const Json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) wrong_type(*value, key, "true or false", origin);
  return value->get<bool>();
}

std::string json_string(const Json& object, const char* key, const std::string& fallback,
                        const std::string& origin) {
  const Json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) wrong_type(*value, key, "a string", origin);
  return value->get<std::string>();
}

std::string dump_json(const Json& value, int indent) { return dump(value, indent); }
std::string dump_json(const OrderedJson& value, int indent) { return dump(value, indent); }

}  // namespace lowbit
