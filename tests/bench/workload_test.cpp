#include "lowbit/bench/workload.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"
#include "support/files.h"
#include "support/tiny_tokenizer.h"

namespace lowbit {
namespace {

using test::TemporaryFolder;
using test::write_text;

TEST(Workload, RandomPromptsDependOnTheSeedAlone) {
  const auto a = random_workload(3, 5, 7, 100, 1), b = random_workload(3, 5, 7, 100, 1);
  ASSERT_EQ(a.size(), 3u);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].prompt, b[i].prompt);
    EXPECT_EQ(a[i].prompt.size(), 5u);
    EXPECT_EQ(a[i].output_len, 7);
  }
  EXPECT_NE(a[0].prompt, a[1].prompt) << "no prefix cache makes it cheap";
  EXPECT_NE(a[0].prompt, random_workload(3, 5, 7, 100, 2)[0].prompt);
  EXPECT_THROW(random_workload(0, 5, 7, 100, 1), Error);
}

TEST(Workload, ArrivalsArePoisson) {
  EXPECT_EQ(arrival_times(3, 0, 1), (std::vector<double>{0, 0, 0}));
  const std::vector<double> times = arrival_times(4000, 20, 1);
  EXPECT_NEAR(times.back(), 200, 15);
  EXPECT_THROW(arrival_times(3, -1, 1), Error);
}

TEST(Workload, ConversationsComeInSeveralShapes) {
  const TemporaryFolder folder;
  const Tokenizer tokenizer(test::tiny_tokenizer_spec());
  const std::string prompt = "the cat sat on the mat", answer = "and it was fat";
  write_text(folder / "sharegpt.json",
             "[{\"conversations\": [{\"from\": \"human\", \"value\": \"" + prompt +
                 "\"}, {\"from\": \"gpt\", \"value\": \"" + answer +
                 "\"}]}, {}, 7, "
                 "{\"conversations\": [{\"value\": \"a\"}, {\"value\": \"b\"}]}]");
  write_text(folder / "lines.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"" +
                                         prompt + "\"}, {\"role\": \"assistant\", \"content\": \"" +
                                         answer + "\"}]}\n\n" + "{\"prompt\": \"" + prompt +
                                         "\", \"completion\": \"" + answer + "\"}\n");
  const auto one = read_conversations(folder / "sharegpt.json", tokenizer, {});
  ASSERT_EQ(one.size(), 1u) << "what is too short is left out";
  EXPECT_EQ(one[0].prompt, tokenizer.encode(prompt));
  EXPECT_EQ(one[0].output_len, static_cast<int64_t>(tokenizer.encode(answer).size()));
  const auto two = read_conversations(folder / "lines.jsonl", tokenizer, {.output_len = 9});
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].output_len, 9);
  EXPECT_EQ(read_conversations(folder / "lines.jsonl", tokenizer, {.num_prompts = 1}).size(), 1u);
  EXPECT_THROW(read_conversations(folder / "lines.jsonl", tokenizer, {.max_tokens = 5}), Error);
  write_text(folder / "bad.jsonl", "{\"prompt\": ");
  EXPECT_THROW(read_conversations(folder / "bad.jsonl", tokenizer, {}), Error);
}

}  // namespace
}  // namespace lowbit
