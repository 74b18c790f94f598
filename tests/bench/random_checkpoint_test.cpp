#include "lowbit/bench/random_checkpoint.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "lowbit/model/model.h"

namespace lowbit {
namespace {

TEST(RandomCheckpoint, HasTheParametersOfTheModelItIsNamedAfter) {
  const auto parameters = [](const char* shape) {
    const RandomCheckpoint checkpoint(shape, "w4a16_g128");
    return parse_model_config(checkpoint.config(), nullptr, shape).parameters();
  };
  EXPECT_EQ(parameters("llama-3.1-8b"), 8'030'261'248);
  EXPECT_EQ(parameters("llama-3.2-1b"), 1'235'814'400);
  EXPECT_EQ(parameters("smollm2-135m"), 134'515'008);
}

TEST(RandomCheckpoint, MakesValidWeightsInEveryFormat) {
  for (const std::string& format : random_formats()) {
    const RandomCheckpoint checkpoint("smollm2-135m", format);
    for (const auto& [module, rows, cols] :
         {std::tuple("model.layers.0.mlp.up_proj", 1536, 576), {"model.layers.3.o", 70, 130}}) {
      const LinearWeight linear = checkpoint.load_linear(module, rows, cols);
      EXPECT_NO_THROW(validate(linear.weight, format)) << format;
    }
  }
}

TEST(RandomCheckpoint, AnUnknownNameListsThoseThereAre) {
  EXPECT_THROW(RandomCheckpoint("gpt-5", "bf16"), Error);
  try {
    RandomCheckpoint("smollm2-135m", "w5");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("w4a16_g128"), std::string::npos);
  }
}

}  // namespace
}  // namespace lowbit
