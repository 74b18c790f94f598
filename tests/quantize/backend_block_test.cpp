// A block on a backend, against the same block in fp32 on the host.
#include "lowbit/quantize/backend_block.h"

#include <gtest/gtest.h>

#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/device_blocks.h"
#include "support/backends.h"
#include "support/random.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

class BackendBlocks : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
    backend_ = make_backend(GetParam(), {2, Activations::kF32});
  }
  std::unique_ptr<Backend> backend_;
};

TEST_P(BackendBlocks, MakeOfSequencesWhatTheHostsBlockDoes) {
  constexpr int64_t kSequences = 3, kLength = 50;
  const test::TemporaryFolder folder;
  test::write_tiny_folder(folder / "model", test::tiny_folder_config());
  const auto checkpoint = open_checkpoint(folder / "model");
  const ModelConfig config = parse_model_config(checkpoint->config(), nullptr, "test");
  const int64_t hidden = config.hidden_size, tokens = kSequences * kLength;
  const std::vector<float> x = test::gaussian(static_cast<size_t>(tokens * hidden), 1);

  ThreadPool pool(2);
  const auto rope =
      std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, kLength));
  DecoderBlock block(load_block_weights(*checkpoint, config, 1), rope, pool);
  BlockTrace trace;
  std::vector<float> expected(x.size());
  block.forward({kSequences, kLength}, x, trace, expected);

  SequencePass pass(*backend_, config, kLength, 5);
  pass.begin(std::vector<int32_t>(static_cast<size_t>(tokens), 1));
  const BackendBlock found(*backend_, config, *checkpoint, 1,
                           load_block_linears(*checkpoint, config, 1));
  Tensor states = test::tensor_of(*backend_, x, tokens);
  int groups = 0;
  found.observe(pass, states, [&](LinearGroup group, const Tensor& input) {
    EXPECT_LT(test::relative_error(test::values_of(*backend_, input), trace.inputs[group]), 2e-3)
        << group;
    ++groups;
  });
  EXPECT_EQ(groups, kLinearGroups);
  EXPECT_EQ(test::values_of(*backend_, states), x) << "what enters must stay as it is";
  found.forward(pass, states);
  EXPECT_LT(test::relative_error(test::values_of(*backend_, states), expected), 2e-3);
}

INSTANTIATE_TEST_SUITE_P(All, BackendBlocks, testing::Values("ref", "cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace lowbit
