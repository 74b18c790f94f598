#include "lowbit/compare/recipe.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/compare/yaml.h"
#include "support/paths.h"

namespace lowbit {
namespace {

constexpr const char* kSmall = "methods:\n  - method: rtn\n";

Recipe parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_recipe(text, "r.yaml", overrides);
}

// What an Error says; "" if there is none.
std::string complaint(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Recipe, SaysWhatToRunAndHow) {
  const Recipe recipe = parse(
      "name: 'Three bits: all'\n"
      "description: >-\n  two\n  lines\n"
      "methods:\n"
      "  - {method: gptq, act_order: kept, damp_percent: 0.05}\n"
      "  - method: hqq\n    name: hqq-4\n    bits: 4\n    skip: [lm_head, down_proj]\n"
      "defaults: {bits: 3, group_size: 128, symmetric: false}\n"
      "eval: {protocol: llama.cpp, context: 512, chunks: 4, activations: f32}\n"
      "divergence: {context: 256, chunks: -1}\n"
      "speed: {prompt: 64, decode: 16, repetitions: 2, activations: int8}\n"
      "calibration: {samples: 16, seqlen: 512, seed: 7}\n");
  EXPECT_EQ(recipe.name, "Three bits: all");
  EXPECT_EQ(recipe.description, "two lines");
  ASSERT_EQ(recipe.methods.size(), 2u);
  EXPECT_EQ(recipe.methods[0].name, "gptq");
  const QuantizeOptions& gptq = recipe.methods[0].options;
  EXPECT_EQ(gptq.method, "gptq");
  EXPECT_EQ(gptq.bits, 3);
  EXPECT_EQ(gptq.group_size, 128);
  EXPECT_FALSE(gptq.symmetric);
  EXPECT_EQ(gptq.method_options.gptq.act_order, ActOrder::kKept);
  EXPECT_EQ(gptq.method_options.gptq.damp_percent, 0.05);
  EXPECT_EQ(gptq.calibration.samples, 16);
  EXPECT_EQ(gptq.calibration.seqlen, 512);
  EXPECT_EQ(gptq.calibration.seed, 7);
  EXPECT_EQ(recipe.methods[1].name, "hqq-4");
  EXPECT_EQ(recipe.methods[1].options.bits, 4);
  EXPECT_EQ(recipe.methods[1].options.skip, (std::vector<std::string>{"lm_head", "down_proj"}));
  EXPECT_EQ(recipe.eval.protocol, "llama.cpp");
  EXPECT_EQ(recipe.eval.context, 512);
  EXPECT_EQ(recipe.eval.chunks, 4);
  EXPECT_EQ(recipe.eval_activations, Activations::kF32);
  EXPECT_EQ(recipe.divergence.context, 256);
  EXPECT_EQ(recipe.divergence.chunks, -1);
  EXPECT_EQ(recipe.speed.prompt_tokens, std::vector<int64_t>{64});
  EXPECT_EQ(recipe.speed.decode_tokens, 16);
  EXPECT_EQ(recipe.speed_activations, Activations::kInt8);
}

TEST(Recipe, OverridesChangeAndAddValues) {
  const Recipe recipe =
      parse("methods:\n  - {method: hqq, name: hqq-1.5}\n  - {method: rtn, bits: 8}\n",
            {"eval.context=512", "methods.hqq-1.5.bits=2", "methods.rtn.symmetric=false",
             "defaults.group_size=32", "name=My run", "methods.rtn.skip=[lm_head, o_proj]"});
  EXPECT_EQ(recipe.eval.context, 512);
  EXPECT_EQ(recipe.name, "My run");
  EXPECT_EQ(recipe.methods[0].options.bits, 2);
  EXPECT_EQ(recipe.methods[0].options.group_size, 32);
  EXPECT_EQ(recipe.methods[1].options.bits, 8);
  EXPECT_FALSE(recipe.methods[1].options.symmetric);
  EXPECT_EQ(recipe.methods[1].options.skip.size(), 2u);
}

TEST(Recipe, UnknownKeysAreNamedWithTheirPlaceAndThePossibleOnes) {
  const std::string method = complaint("methods:\n  - method: rtn\n    bit: 4\n");
  EXPECT_TRUE(contains(method, "r.yaml:3:5: a method has no \"bit\"")) << method;
  EXPECT_TRUE(contains(method, "possible are: name, method, bits, input_bits, group_size"))
      << method;
  const std::string top = complaint(std::string(kSmall) + "evals: {}\n");
  EXPECT_TRUE(contains(top, "r.yaml:3:1: a recipe has no \"evals\"")) << top;
  const std::string override = complaint(kSmall, {"eval.contxt=512"});
  EXPECT_TRUE(contains(override, "override eval.contxt=512: eval has no \"contxt\"")) << override;
  const std::string row = complaint(kSmall, {"methods.hqq.bits=2"});
  EXPECT_TRUE(contains(row, "no method \"hqq\"; there are: rtn")) << row;
}

TEST(Recipe, WrongValuesAreNamedWithTheirPlace) {
  const auto expect = [](const std::string& text, const std::string& part) {
    const std::string message = complaint(text);
    EXPECT_TRUE(contains(message, part)) << text << " -> " << message;
  };
  expect("methods:\n  - {method: rtn, bits: 9}\n", "r.yaml:2:25: expected a number from 1 to 8");
  expect("methods:\n  - {method: rtn, bits: four}\n", "found \"four\"");
  expect("methods:\n  - {method: rtn, bits: '4'}\n", "expected a number");
  expect("methods:\n  - {method: rtn, symmetric: yes}\n", "expected true or false");
  expect("methods:\n  - {method: rtn, group_size: 48}\n", "one of -1, 32, 64, 128");
  expect("methods:\n  - {method: gptq, damp_percent: nan}\n", "expected a number");
  expect("methods:\n  - {method: squeeze}\n", "r.yaml:2:5: no quantization method \"squeeze\"");
  expect("methods:\n  - {bits: 4}\n", "\"method\" is missing");
  expect("methods:\n  - rtn\n", "expected a map with \"method\"");
  expect("methods: rtn\n", "expected a list of methods");
  expect("methods:\n  - method: rtn\n  - method: rtn\n", "r.yaml:3:5: a second row \"rtn\"");
  expect("methods:\n  - {method: rtn, name: ../up}\n", "cannot be a row's name");
  expect("methods: []\n", "\"methods\" is missing or empty");
  expect("", "\"methods\" is missing or empty");
  expect("defaults: {method: rtn}\nmethods:\n  - method: rtn\n", "defaults are for all methods");
  expect(std::string(kSmall) + "eval: {protocol: hff}\n", "one of hf");
  expect(std::string(kSmall) + "eval: {chunks: 0}\n", "chunks must be positive");
  expect(std::string(kSmall) + "speed: [1]\n", "expected a map (speed), found a list");
}

TEST(Recipe, ShippedOnesAreValid) {
  for (const char* name : {"weight-only-4bit", "weight-only-3bit", "weight-only-8bit", "w8a8"}) {
    const std::string path = concat(LOWBIT_GOLDEN_DIR, "/../../recipes/", name, ".yaml");
    const Recipe recipe = read_recipe(path, {});
    EXPECT_GE(recipe.methods.size(), 7u) << name;
    EXPECT_FALSE(recipe.description.empty()) << name;
  }
}

TEST(Recipe, MethodsCanBeChosenByRowOrByMethod) {
  const std::string text =
      "methods:\n  - method: rtn\n  - {method: rtn, name: rtn-8, bits: 8}\n  - method: hqq\n";
  Recipe recipe = parse(text);
  keep_methods(recipe, {"hqq", "rtn-8"});
  ASSERT_EQ(recipe.methods.size(), 2u);
  EXPECT_EQ(recipe.methods[0].name, "rtn-8");
  EXPECT_EQ(recipe.methods[1].name, "hqq");
  recipe = parse(text);
  keep_methods(recipe, {"rtn"});
  EXPECT_EQ(recipe.methods.size(), 2u);
  EXPECT_THROW(keep_methods(recipe, {"awq"}), Error);
  EXPECT_EQ(parse(recipe_of({"rtn", "nf4"})).methods.size(), 2u);
  EXPECT_THROW(recipe_of({"nf5"}), Error);
}

TEST(Yaml, SyntaxErrorsHaveAPlace) {
  EXPECT_TRUE(contains(complaint("methods:\n  - {method: rtn\n"), "r.yaml:"));
  EXPECT_TRUE(contains(complaint("a: b: c\n"), "r.yaml:1:"));
  EXPECT_TRUE(contains(complaint("\tname: x\n"), "r.yaml:1:"));
}

TEST(Yaml, HostileTextIsRefusedCheaply) {
  const auto expect = [](const std::string& text, const std::string& part) {
    const std::string message = complaint(text);
    EXPECT_TRUE(contains(message, part)) << text.substr(0, 60) << " -> " << message;
  };
  expect("a: &x [1]\nb: *x\n", "anchors (&name) are not supported");
  expect("b: *x\n", "r.yaml:1:");
  expect("a: !!python/object:os.system [x]\n", "tags (!name) are not supported");
  expect("a: 1\na: 2\n", "r.yaml:2:1: the key \"a\" is there twice");
  expect("[1, 2]: 3\n", "a key must be a word");
  expect(std::string(kSmall) + "---\nname: b\n", "second document");
  expect(std::string(60'000, '['), "nested deeper than");
  expect(std::string(30'000, '-') + " ", "r.yaml");
  std::string indented;
  for (int i = 0; i < 300; ++i) indented += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  expect(indented, "nested deeper than");
  expect(std::string(70'000, 'a'), "larger than");
  std::string many = "methods: [";
  for (int i = 0; i < 9'000; ++i) many += "1,";
  expect(many + "1]", "more than 4096 values");
  expect("name: \xff\xfe\n", "UTF-8");
  expect("{{{{{{{{{{{{", "r.yaml");
  expect(std::string("a\0b: c", 6), "r.yaml");
}

TEST(Yaml, OverridesAreHeldToTheSameLimits) {
  EXPECT_TRUE(contains(complaint(kSmall, {"eval"}), "expected path=value"));
  EXPECT_TRUE(contains(complaint(kSmall, {"=3"}), "expected path=value"));
  EXPECT_TRUE(contains(complaint(kSmall, {"a.b.c.d.e.f.g.h.i.j=3"}), "too many parts"));
  EXPECT_TRUE(contains(complaint(kSmall, {"name.x=3"}), "has no \"x\"") ||
              contains(complaint(kSmall, {"name.x=3"}), "expected text"));
  EXPECT_TRUE(
      contains(complaint(std::string(kSmall) + "name: n\n", {"name.x=3"}), "inside of a value"));
  EXPECT_TRUE(contains(complaint(kSmall, {"name=" + std::string(5000, '[')}), "nested deeper"));
}

}  // namespace
}  // namespace lowbit
