#include "lowbit/checkpoint/torch_file.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/checkpoint/torch_pickle.h"
#include "support/files.h"
#include "support/linears.h"
#include "support/paths.h"
#include "support/random.h"

namespace lowbit {
namespace {

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string pickle_error(const std::string& pickle) {
  try {
    parse_torch_pickle(bytes_of(pickle), "test.pt");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TorchFile, ReadsWhatTorchSaves) {
  const auto tensors = read_torch_file(test::golden("checkpoint/scales.pt"));
  ASSERT_EQ(tensors.size(), 45u);
  EXPECT_EQ(test::floats(tensors.at("model.layers.0.self_attn.q_proj")),
            (std::vector<float>{0.5f, 1.25f, 3.f}));
  EXPECT_EQ(tensors.at("half").shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(test::floats(tensors.at("half")), (std::vector<float>{1.f, -2.f, 0.25f, 65504.f}));
  EXPECT_EQ(test::floats(tensors.at("brain")), (std::vector<float>{1.f, 2.f, -0.5f}));
  for (const char* name : {"part", "same"}) {
    EXPECT_EQ(test::floats(tensors.at(name)), (std::vector<float>{1.f, 1.25f, 1.5f, 1.75f}));
  }
  EXPECT_EQ(test::floats(tensors.at("many.39")), (std::vector<float>{39.f, 39.f}));
}

TEST(TorchFile, ReadsSmoothQuantsScales) {
  const std::string path = test::shared("data/act_scales/Llama-2-1b.pt");
  LOWBIT_SKIP_WITHOUT(path, "shared/data/act_scales/Llama-2-1b.pt");
  const auto tensors = read_torch_file(path);
  ASSERT_EQ(tensors.size(), 15u);
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(tensor.shape.size(), 1u) << name;
    for (const float value : test::floats(tensor)) EXPECT_TRUE(value >= 0 && value < 1e4f) << name;
  }
  EXPECT_EQ(tensors.count("model.layers.0.self_attn.q_proj"), 1u);
}

TEST(TorchFile, RunsNothing) {
  const std::string system = std::string(
      "\x80\x02"
      "cposix\nsystem\nX\x02\0\0\0ls\x85R.",
      27);
  EXPECT_NE(pickle_error(system).find("\"posix system\""), std::string::npos);
  // BUILD, INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1
  for (const char code : {'b', 'i', 'o', '\x81', '\x93', '\x82'}) {
    EXPECT_NE(pickle_error(std::string("\x80\x02}") + code + ".").find("does not run it"),
              std::string::npos);
  }
}

TEST(TorchFile, RefusesPicklesThatContradictThemselves) {
  EXPECT_NE(pickle_error("").find("ends too early"), std::string::npos);
  EXPECT_NE(pickle_error(".").find("empty stack"), std::string::npos);
  EXPECT_NE(pickle_error("N.").find("dictionary"), std::string::npos);
  EXPECT_NE(pickle_error("}h\x05.").find("has not kept"), std::string::npos);
  EXPECT_NE(pickle_error("}u.").find("mark"), std::string::npos);
  EXPECT_NE(pickle_error("}(NNu.").find("names and tensors"), std::string::npos);
  EXPECT_NE(pickle_error("\x80\x05}.").find("protocol 2"), std::string::npos);
  EXPECT_NE(pickle_error(std::string("X\xff\xff\xff\xff", 5)).find("too long"), std::string::npos);
  EXPECT_NE(pickle_error(")" + std::string(100'000, '\x85') + ".").find("too deep"),
            std::string::npos);
  EXPECT_EQ(pickle_error("}."), "");
}

TEST(TorchFile, DamageIsAnErrorOrHarmless) {
  const std::string file = read_file(test::golden("checkpoint/scales.pt"), 1 << 20);
  const auto read = [](const std::string& bytes) {
    try {
      for (const auto& [name, tensor] : parse_torch_file(bytes_of(bytes), nullptr, "test.pt")) {
        test::floats(tensor);
      }
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("test.pt"), std::string::npos);
    }
  };
  for (size_t length = 0; length < file.size(); length += 97) read(file.substr(0, length));
  test::Random random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = file;
    // The pickle is at the front, the directory at the end.
    const int64_t span = 3000;
    const int64_t at = random.below(span);
    damaged[i % 2 == 0 ? at : file.size() - 1 - at] ^= static_cast<char>(1 << random.below(8));
    read(damaged);
  }
}

}  // namespace
}  // namespace lowbit
