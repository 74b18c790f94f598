#include "lowbit/hub/listing.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"

namespace lowbit::hub {
namespace {

std::string selected(const std::vector<std::string>& names, const Selection& selection = {}) {
  Listing listing{"abc", {}};
  for (const std::string& name : names) listing.files.push_back({name, 1, "e"});
  try {
    std::string text;
    for (const RemoteFile& file : select_files(listing, selection, "org/name")) {
      text += (text.empty() ? "" : " ") + file.name;
    }
    return text;
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(SelectFiles, AModelIsItsSafetensorsAndWhatBelongsToThem) {
  EXPECT_EQ(selected({"config.json", "model-00001-of-00002.safetensors",
                      "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                      "pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx",
                      "tokenizer.model", "merges.txt", "chat_template.jinja", "m.Q4_0.gguf",
                      ".gitattributes", "LICENSE", "runs/log.json"}),
            "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
            "model.safetensors.index.json tokenizer.model merges.txt chat_template.jinja LICENSE");
}

TEST(SelectFiles, OneGgufModelIsTakenWithAllItsParts) {
  EXPECT_EQ(selected({"README.md", "m.gguf", "mmproj-m.gguf", "m.imatrix.gguf"}), "m.gguf");
  EXPECT_EQ(selected({"q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"}),
            "q/m-00001-of-00002.gguf q/m-00002-of-00002.gguf");
}

TEST(SelectFiles, SeveralGgufModelsAreListed) {
  const std::string error = selected({"a-best-of-8B.Q4.gguf", "a-best-of-8B.Q8.gguf"});
  EXPECT_NE(error.find("2 GGUF models"), std::string::npos) << error;
  EXPECT_NE(error.find("\n  a-best-of-8B.Q4.gguf"), std::string::npos) << error;
  EXPECT_EQ(selected({"a.Q4.gguf", "a.Q8.gguf"}, {{"a.Q8.gguf"}, {}, {}}), "a.Q8.gguf");
  EXPECT_EQ(selected({"a.Q4.gguf", "a.Q8.gguf"}, {{}, {"*q4*", "*Q4*"}, {}}), "a.Q4.gguf");
  EXPECT_EQ(selected({"a.Q4.gguf", "a.Q8.gguf"}, {{}, {}, {"*Q8*"}}), "a.Q4.gguf");
}

TEST(SelectFiles, PatternsAreThoseOfPython) {
  const std::vector<std::string> names = {"a.json", "b/c.json", "b/d.bin", "x[1].txt"};
  const auto include = [&](const char* pattern) { return selected(names, {{}, {pattern}, {}}); };
  EXPECT_EQ(include("*"), "a.json b/c.json b/d.bin x[1].txt");
  EXPECT_EQ(include("*.json"), "a.json b/c.json");
  EXPECT_EQ(include("b/"), "b/c.json b/d.bin");
  EXPECT_EQ(include("?.json"), "a.json");
  EXPECT_EQ(include("[!a]*.json"), "b/c.json");
  EXPECT_EQ(include("[a-b].json"), "a.json");
  EXPECT_EQ(include("x[[]1].txt"), "x[1].txt");
  EXPECT_EQ(include("*c*n"), "b/c.json");
  EXPECT_EQ(selected(names, {{}, {"*.json"}, {"b/*"}}), "a.json");
  EXPECT_NE(include("*.gguf").find("no file that the patterns match"), std::string::npos);
  EXPECT_NE(selected(names, {{"nope"}, {}, {}}).find("holds no file nope"), std::string::npos);
}

TEST(SelectFiles, HostilePatternsEndSoon) {
  std::string pattern;
  for (int i = 0; i < 30; ++i) pattern += "*a";
  EXPECT_NE(selected({std::string(1000, 'a') + "b"}, {{}, {pattern + "c"}, {}}).find("no file"),
            std::string::npos);
}

TEST(SelectFiles, ARepositoryWithoutAModelSaysSo) {
  EXPECT_NE(selected({"pytorch_model.bin", "config.json"}).find("neither safetensors nor GGUF"),
            std::string::npos);
}

}  // namespace
}  // namespace lowbit::hub
