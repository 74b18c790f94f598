#include "lowbit/compare/compare.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

constexpr const char* kRecipe =
    "name: Tiny\n"
    "defaults: {group_size: 32}\n"
    "methods:\n"
    "  - {method: rtn, name: rtn-8, bits: 8}\n"
    "  - {method: hqq, name: hqq-3, bits: 3}\n"
    "eval: {context: 32, chunks: 2, activations: f32}\n"
    "divergence: {context: 32, chunks: 2}\n"
    "speed: {prompt: 16, decode: 4, repetitions: 1}\n";

class Compare : public testing::Test {
 protected:
  void SetUp() override {
    Progress::enable(false);
    test::write_tiny_folder(folder_ / "model", test::tinier_folder_config());
  }

  CompareJob job(const std::vector<std::string>& overrides = {}) {
    CompareJob job;
    job.models = {folder_ / "model"};
    job.recipe = parse_recipe(kRecipe, "recipe", overrides);
    for (int i = 0; i < 40; ++i) job.text += concat("line ", i, " of a text\n");
    job.text_name = "text.txt";
    job.report = folder_ / "report";
    job.measure.threads = 1;
    said_.clear();
    job.say = [this](const std::string& line) { said_.push_back(line); };
    return job;
  }

  test::TemporaryFolder folder_;
  std::vector<std::string> said_;
};

TEST_F(Compare, MakesEveryMethodAndMeasuresIt) {
  const Comparison result = compare_models(job());
  ASSERT_EQ(result.rows.size(), 3u);
  const ComparisonRow &source = result.rows[0], &rtn = result.rows[1], &hqq = result.rows[2];
  EXPECT_TRUE(source.source);
  EXPECT_EQ(source.name, "model");
  EXPECT_EQ(source.format, "safetensors");
  EXPECT_NEAR(source.bits_per_weight, 16, 0.01);
  EXPECT_TRUE(std::isnan(source.kl));
  EXPECT_EQ(rtn.name, "rtn-8");
  EXPECT_EQ(rtn.format, "gptq");
  EXPECT_EQ(rtn.description, "rtn, 8 bits, group 32");
  EXPECT_NEAR(rtn.bits_per_weight, 9.25, 0.01);  // 16-bit scales, 8-bit zeros, g_idx
  for (const ComparisonRow* row : {&rtn, &hqq}) {
    EXPECT_FALSE(row->failed);
    EXPECT_GT(row->perplexity, 1);
    EXPECT_GT(row->peak_mib, 1);
    EXPECT_GT(row->quantize_seconds, 0);
    EXPECT_GT(row->decode_tok_s, 0);
    EXPECT_LT(row->file_mib, source.file_mib);
    EXPECT_EQ(row->layer_errors.size(), 14u);  // 2 blocks of 7
    EXPECT_EQ(row->block_errors.size(), 2u);
    EXPECT_NE(row->loads_in.find("transformers"), std::string::npos);
    EXPECT_TRUE(fs::exists(folder_ / ("report/models/" + row->name + "/config.json")));
  }
  EXPECT_LT(rtn.kl, hqq.kl);
  EXPECT_GT(rtn.same_top, 0.8);
  EXPECT_LT(rtn.block_errors[0], hqq.block_errors[0]);

  const Json json = read_json(folder_ / "report/report.json");
  EXPECT_EQ(json["rows"].size(), 3u);
  EXPECT_DOUBLE_EQ(json["rows"][2]["kl"].get<double>(), hqq.kl);
  for (const char* name : {"report/report.html", "report/report.md", "report/report.csv"}) {
    EXPECT_NE(read_file(folder_ / name, 1 << 24).find("hqq-3"), std::string::npos) << name;
  }
}

TEST_F(Compare, DoesNothingASecondTime) {
  const Comparison first = compare_models(job());
  EXPECT_FALSE(said_.empty());
  const Comparison second = compare_models(job());
  EXPECT_EQ(said_, std::vector<std::string>{});
  EXPECT_EQ(dump_json(comparison_json(first)), dump_json(comparison_json(second)));
}

TEST_F(Compare, MeasuresAgainOnlyWhatAChangedOptionTouches) {
  compare_models(job());
  compare_models(job({"eval.context=16"}));
  ASSERT_EQ(said_.size(), 3u);
  EXPECT_EQ(said_[1], "[2/3] rtn-8: quality again (eval.context: 32, now 16)");

  compare_models(job({"eval.context=16", "methods.rtn-8.bits=4"}));
  ASSERT_EQ(said_.size(), 4u);  // quantize, speed, quality, layers of one row
  EXPECT_NE(said_[0].find("[2/3] rtn-8: quantize again (options.bits: 8, now 4)"),
            std::string::npos)
      << said_[0];
}

TEST_F(Compare, MeasuresTheSourceAgainIfItsPredictionsAreGone) {
  compare_models(job());
  fs::remove(folder_ / "report/work/source.logits");
  compare_models(job());
  EXPECT_EQ(said_, std::vector<std::string>{"[1/3] model: quality"});
  EXPECT_TRUE(fs::exists(folder_ / "report/work/source.logits"));
}

TEST_F(Compare, GoesOnAfterKillNine) {
  for (const size_t lines : {2u, 4u, 6u, 9u}) {
    fs::remove_all(folder_ / "report");
    CompareJob killed = job();
    killed.say = [this, lines](const std::string& line) {
      said_.push_back(line);
      if (said_.size() > lines) kill(getpid(), SIGKILL);
    };
    const pid_t child = fork();
    if (child == 0) {
      try {
        compare_models(killed);
      } catch (...) {
        _exit(2);
      }
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    const Comparison result = compare_models(job());
    EXPECT_EQ(said_.size(), 11u - lines);  // 3 of the source, 4 of each method
    EXPECT_EQ(result.rows.size(), 3u);
    EXPECT_GT(result.rows[2].perplexity, 1);
  }
}

TEST_F(Compare, OtherCalibrationTextMakesOnlyCalibratedMethodsAgain) {
  const auto with_text = [this](const std::string& text) {
    CompareJob job = this->job();
    job.recipe = parse_recipe(concat(kRecipe, "calibration: {samples: 4, seqlen: 32}\n"), "recipe",
                              {"methods.hqq-3.method=gptq"});
    test::write_text(folder_ / "calibration.txt", text);
    job.calibration = folder_ / "calibration.txt";
    return job;
  };
  std::string text;
  for (int i = 0; i < 40; ++i) text += concat("number ", i * i, "\n");
  const Comparison result = compare_models(with_text(text));
  EXPECT_FALSE(result.rows[2].failed);
  EXPECT_EQ(result.rows[2].description, "gptq, 3 bits, group 32");
  compare_models(with_text(text));
  EXPECT_TRUE(said_.empty());
  compare_models(with_text("A " + text));
  ASSERT_FALSE(said_.empty());
  EXPECT_EQ(said_[0].rfind("[3/3] hqq-3: quantize again (calibration.text: ", 0), 0u) << said_[0];
}

TEST_F(Compare, AFailedRowHasANoteAndTheOthersGoOn) {
  // 64 does not divide 96 columns.
  const Comparison result = compare_models(job({"methods.rtn-8.group_size=64"}));
  EXPECT_TRUE(result.rows[1].failed);
  ASSERT_EQ(result.rows[1].notes.size(), 1u);
  EXPECT_NE(result.rows[1].notes[0].find("64"), std::string::npos);
  EXPECT_FALSE(result.rows[2].failed);
  EXPECT_GT(result.rows[2].perplexity, 1);
}

TEST_F(Compare, GivenCheckpointsAreMeasuredAsTheyAre) {
  compare_models(job());
  CompareJob given = job();
  given.recipe.methods.clear();
  given.models = {folder_ / "model", folder_ / "report/models/hqq-3/"};
  given.report = "";
  const Comparison result = compare_models(given);
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[1].name, "hqq-3");
  EXPECT_GT(result.rows[1].perplexity, 1);
  EXPECT_TRUE(std::isnan(result.rows[1].kl));
}

TEST_F(Compare, SaysAtOnceWhatIsMissing) {
  CompareJob no_text = job();
  no_text.recipe = parse_recipe("methods:\n  - method: rtn\n  - method: gptq\n", "r", {});
  try {
    compare_models(no_text);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "gptq need text to calibrate with: --calibration FILE; without it: --methods rtn");
  }
  CompareJob no_report = job();
  no_report.report = "";
  EXPECT_THROW(compare_models(no_report), Error);
  EXPECT_TRUE(said_.empty());
}

}  // namespace
}  // namespace lowbit
