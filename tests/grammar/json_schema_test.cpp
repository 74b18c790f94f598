#include "lowbit/grammar/json_schema.h"

#include <gtest/gtest.h>

#include "grammar/grammar_texts.h"
#include "lowbit/base/check.h"

namespace lowbit::grammar {
namespace {

Network compile(const std::string& schema) {
  Builder builder;
  JsonText json(builder);
  const int32_t root = builder.add_rule();
  builder.define(root, json_schema(builder, json, OrderedJson::parse(schema)));
  return builder.finish(root);
}

void expect(const std::string& schema, std::initializer_list<const char*> yes,
            std::initializer_list<const char*> no) {
  Matcher matcher(compile(schema));
  for (const char* text : yes) EXPECT_TRUE(test::takes(matcher, text)) << schema << " " << text;
  for (const char* text : no) EXPECT_FALSE(test::takes(matcher, text)) << schema << " " << text;
}

TEST(JsonSchema, SimpleTypes) {
  expect(R"({"type": "string"})", {R"("")", R"("a\n\u00e9 \ud83d\ude00 é")"},
         {R"(")", "\"\n\"", R"("\x")", R"("\ud83d")", "1"});
  expect(R"({"type": "integer"})", {"0", "-12"}, {"1.5", "01", "-", "1e3"});
  expect(R"({"type": "number"})", {"0", "-1.50", "2e-7", "1E+10"}, {".5", "1.", "+1", "0x1"});
  expect(R"({"type": ["boolean", "null"]})", {"true", "false", "null"}, {"0", "True"});
  expect(R"({"type": "string", "nullable": true})", {"null", R"("")"}, {"1"});
  expect("true", {"{}", "[1, {\"a\": null}]", "\"x\""}, {"", "{", "[1,]"});
  expect("{}", {"1"}, {"nul"});
}

TEST(JsonSchema, Objects) {
  const char* schema = R"({"type": "object", "additionalProperties": false,
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}},
    "required": ["b"]})";
  expect(schema,
         {R"({"a": 1, "b": "x", "c": null})", R"({"b":"x"})", R"({"a":1,"b":""})",
          "{\n  \"b\": \"x\",\n  \"c\": null\n}"},
         {"{}", R"({"a": 1})", R"({"b": "x", "a": 1})", R"({"b": "x",})", R"({"b": "x", "d": 1})",
          R"({"b": 1})", R"({"b" : "x"})"});
  expect(R"({"type": "object"})", {"{}", R"({"x": [1, 2]})"}, {"[]", R"({x: 1})"});
  expect(R"({"properties": {}, "additionalProperties": false})", {"{}"}, {R"({"a": 1})"});
}

TEST(JsonSchema, FurtherMembersNeverTakeTheNameOfAnother) {
  const char* schema = R"({"type": "object", "properties": {"ab": {"type": "integer"},
    "a\"c": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}})";
  expect(schema,
         {R"({"ab": 1, "x": true})", R"({"x": true, "y": false})", R"({"a": true, "abc": false})",
          R"({"": true})", R"({"xx\u0061b": true})"},
         {R"({"ab": true})", R"({"x": 1})", R"({"\u0061b": true})", R"({"a\u0062": true})",
          R"({"x": true, "ab": true})", R"({"a\"c": true})"});
}

TEST(JsonSchema, Arrays) {
  expect(R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
         {"[1]", "[1, 2, 3]", "[ 1,2 ]"}, {"[]", "[1,2,3,4]", "[\"a\"]", "[1,]"});
  expect(R"({"type": "array"})", {"[]", "[1, \"a\", [null]]"}, {"{}"});
  expect(R"({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]})",
         {"[1, \"a\"]"}, {"[1]", "[1, \"a\", 2]", "[\"a\", 1]"});
  expect(R"({"prefixItems": [{"const": 1}], "items": {"type": "null"}, "maxItems": 3})",
         {"[1]", "[1, null, null]"}, {"[]", "[1, null, null, null]"});
  expect(R"({"type": "array", "items": false})", {"[]"}, {"[1]"});
}

TEST(JsonSchema, EnumsConstantsAndBranches) {
  expect(R"({"enum": ["a\nb", 1, null, {"x": [1]}]})", {R"("a\nb")", "1", "null", R"({"x":[1]})"},
         {R"("a")", "2"});
  expect(R"({"type": "string", "enum": ["a", 1]})", {R"("a")"}, {"1"});
  expect(R"({"const": "x"})", {R"("x")"}, {R"("y")"});
  expect(R"({"anyOf": [{"type": "integer"}, {"type": "null"}]})", {"1", "null"}, {"true"});
  expect(R"({"oneOf": [
    {"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "integer"}}, "required": ["k", "v"]},
    {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]}]})",
         {R"({"k": "a", "v": 1})", R"({"k": "b"})"}, {R"({"k": "a"})"});
  expect(R"({"allOf": [{"type": "null"}]})", {"null"}, {"1"});
}

TEST(JsonSchema, StringsWithPatternsFormatsAndLengths) {
  expect(R"({"type": "string", "pattern": "^[a-z]\"+$"})", {R"("a\"\"")"}, {R"("a")", R"("A\"")"});
  expect(R"({"pattern": "b"})", {R"("abc")"}, {R"("ac")"});
  expect(R"({"minLength": 2, "maxLength": 3})", {R"("ab")", R"("é\n€")"}, {R"("a")", R"("abcd")"});
  expect(R"({"format": "date"})", {R"("2024-02-28")", R"("1999-12-31")"},
         {R"("2024-02-30")", R"("2024-13-01")", R"("24-01-01")"});
  expect(R"({"format": "date-time"})", {R"("2024-02-28T23:59:59.5+01:00")"}, {R"("2024-02-28")"});
  expect(R"({"format": "uuid"})", {R"("123e4567-e89b-12d3-a456-426614174000")"}, {R"("123")"});
  expect(R"({"format": "email"})", {R"("a.b@example.org")"}, {R"("a@b")", R"("@example.org")"});
  expect(R"({"format": "ipv4"})", {R"("192.168.0.255")"}, {R"("192.168.0.256")", R"("1.2.3")"});
}

TEST(JsonSchema, IntegersWithinEveryKindOfBounds) {
  const int bounds[] = {-1234, -100, -99, -10, -9, -1, 0, 1, 7, 9, 10, 11, 99, 100, 101, 1234};
  for (const int low : bounds) {
    for (const int high : bounds) {
      const std::string schema = R"({"type": "integer", "minimum": )" + std::to_string(low) +
                                 R"(, "exclusiveMaximum": )" + std::to_string(high) + "}";
      if (low >= high) {
        EXPECT_THROW(compile(schema), Error);
        continue;
      }
      Matcher matcher(compile(schema));
      for (int value = -1300; value <= 1300; ++value) {
        if (value % 7 != 0 && std::abs(value - low) > 2 && std::abs(value - high) > 2) continue;
        EXPECT_EQ(test::takes(matcher, std::to_string(value)), value >= low && value < high)
            << schema << value;
      }
    }
  }
  expect(R"({"type": "integer", "minimum": 5})", {"5", "1000000"}, {"4", "-5", "05"});
  expect(R"({"type": "integer", "exclusiveMaximum": 0.5})", {"0", "-1"}, {"1"});
}

TEST(JsonSchema, NumbersWithinBounds) {
  expect(R"({"type": "number", "minimum": 0, "maximum": 10})",
         {"0", "0.5", "9.999", "10", "10.00"}, {"-1", "-0.1", "10.01", "11", "1e1"});
  expect(R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 2})",
         {"0.001", "1", "1.99"}, {"0", "0.0", "2", "2.0"});
  expect(R"({"type": "number", "minimum": -3, "exclusiveMaximum": -1})", {"-3", "-1.5", "-2"},
         {"-1", "-3.1", "0", "2"});
  expect(R"({"type": "number", "minimum": -2})", {"-2", "-0.5", "0", "7.25"}, {"-2.5", "-3"});
  EXPECT_THROW(compile(R"({"type": "number", "minimum": 0.5})"), Error);
}

TEST(JsonSchema, References) {
  const char* tree = R"({"$defs": {"node": {"type": "object", "properties": {
      "value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
      "required": ["value", "next"], "additionalProperties": false}}, "$ref": "#/$defs/node"})";
  expect(tree, {R"({"value": 1, "next": null})", R"({"value": 1, "next": {"value": 2, "next": null}})"},
         {R"({"value": 1})", R"({"value": 1, "next": {}})"});
  expect(R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[], [[]]]"}, {"[1]"});
}

TEST(JsonSchema, RefusesByNameWhatItCannotPromise) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"not": {}})", "\"not\""},
      {R"({"type": "object", "patternProperties": {}})", "patternProperties"},
      {R"({"type": "array", "uniqueItems": true})", "uniqueItems"},
      {R"({"type": "number", "multipleOf": 2})", "multipleOf"},
      {R"({"properties": {"a": {"if": {}}}})", "properties/a"},
      {R"({"allOf": [{}, {}]})", "allOf"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf"},
      {R"({"anyOf": [{}], "properties": {}})", "properties"},
      {R"({"type": "string", "format": "regex"})", "regex"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "look-around"},
      {R"({"pattern": "a", "maxLength": 3})", "more than one"},
      {R"({"$ref": "http://example.org/x"})", "$ref"},
      {R"({"$ref": "#/nowhere"})", "nothing"},
      {R"({"$ref": "#"})", "complete"},
      {R"({"type": "text"})", "text"},
      {R"({"enum": []})", "enum"},
      {R"({"type": "object", "required": ["x"], "properties": {"y": {}}, "additionalProperties": false})",
       "required"},
      {R"({"minLength": 1000000})", "repetition"},
      {R"([])", "object"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "complete"},
  };
  for (const auto& [schema, word] : cases) {
    try {
      compile(schema);
      ADD_FAILURE() << schema;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
}

TEST(JsonSchema, DeepSchemasAreRefusedNotFollowed) {
  std::string deep = "{}";
  for (int i = 0; i < 50; ++i) deep = R"({"anyOf": [)" + deep + "]}";
  EXPECT_NO_THROW(compile(deep));
  std::string chain = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < 2'000; ++i) {
    chain += concat("\"d", i, R"(": {"$ref": "#/$defs/d)", i + 1, "\"},");
  }
  EXPECT_THROW(compile(chain + R"("d2000": {}}})"), Error);
}

// Whatever is generated is JSON with the right members.
TEST(JsonSchema, RandomTextsAreValid) {
  const char* schema = R"({"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 4},
    "more": {"type": "object", "additionalProperties": {"type": "number", "minimum": 1}},
    "any": {}}, "required": ["name", "age", "tags"], "additionalProperties": false})";
  Matcher matcher(compile(schema));
  test::Random random(7);
  int made = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string text = test::random_text(matcher, random);
    if (text.empty()) continue;
    ++made;
    OrderedJson value;
    ASSERT_NO_THROW(value = OrderedJson::parse(text)) << text;
    EXPECT_TRUE(value["age"].is_number_integer() && value["age"] >= 0 && value["age"] <= 150);
    EXPECT_LE(value["tags"].size(), 4u);
    const OrderedJson more = value.value("more", OrderedJson::object());
    for (const auto& [key, number] : more.items()) {
      EXPECT_GE(number.get<double>(), 1);
    }
  }
  EXPECT_GT(made, 100);
}

}  // namespace
}  // namespace lowbit::grammar
