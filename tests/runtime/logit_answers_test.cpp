// Backends that answer questions about logits must find what the host finds in the same rows, bit
// for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowbit/runtime/backend.h"
#include "support/backends.h"
#include "support/logit_answers.h"
#include "support/random.h"

namespace lowbit {
namespace {

using test::gaussian;
using Kind = LogitQuery::Kind;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> logits_of(int64_t vocab, uint64_t seed) {
  std::vector<float> row = gaussian(static_cast<size_t>(vocab), seed);
  for (float& logit : row) logit *= 4;
  return row;
}

class LogitAnswers : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    LOWBIT_SKIP_WITHOUT_BACKEND(GetParam());
    backend_ = make_backend(GetParam(), {2, Activations::kF32});
  }
  // Asks every query about the row, all at once.
  void check(const std::vector<float>& row, const std::vector<LogitQuery>& queries) {
    std::vector<float> rows;
    for (size_t i = 0; i < queries.size(); ++i) rows.insert(rows.end(), row.begin(), row.end());
    const Tensor logits = test::tensor_of(*backend_, rows, static_cast<int64_t>(queries.size()));
    std::vector<LogitAnswer> answers(queries.size());
    if (!backend_->answer(logits, queries, answers)) GTEST_SKIP() << "its rows are on the host";
    for (size_t i = 0; i < queries.size(); ++i) {
      const LogitAnswer expected = test::answer_on_host(row, queries[i]);
      ASSERT_EQ(answers[i].known, expected.known) << row.size() << ", query " << i;
      EXPECT_EQ(answers[i].id, expected.known ? expected.id : answers[i].id) << "query " << i;
      EXPECT_EQ(answers[i].bound, expected.bound) << "query " << i;
      EXPECT_EQ(answers[i].total, expected.total) << "query " << i;
      std::sort(answers[i].top.begin(), answers[i].top.end(), ranks_before);
      std::vector<Candidate> top = expected.top;
      std::sort(top.begin(), top.end(), ranks_before);
      EXPECT_EQ(answers[i].top, top) << "query " << i;
    }
  }

  std::unique_ptr<Backend> backend_;
};

std::vector<LogitQuery> all_queries(int64_t vocab) {
  std::vector<LogitQuery> queries = {{Kind::kHighest}, {Kind::kAll}};
  for (const int64_t token : {int64_t{0}, vocab / 3, vocab - 1}) {
    queries.push_back({Kind::kToken, 1, 0, 0, false, static_cast<int32_t>(token)});
  }
  for (const float scale : {0.3f, 1.f, 1.7f, 1e30f}) {
    for (const double uniform : {0.0, 1e-9, 0.2, 0.5, 0.77, 0.999, 1 - 0x1p-53}) {
      queries.push_back({Kind::kDraw, scale, uniform});
    }
  }
  for (const int32_t count : {1, 2, 40, 256}) {
    queries.push_back({Kind::kTop, 1, 0, count, false});
    queries.push_back({Kind::kTop, 1, 0, count, true});
  }
  return queries;
}

TEST_P(LogitAnswers, AreWhatTheHostFinds) {
  for (const int64_t vocab : {1, 63, 64, 65, 1000, 49152, 128256}) {
    check(logits_of(vocab, static_cast<uint64_t>(vocab)), all_queries(vocab));
  }
}

TEST_P(LogitAnswers, CountForbiddenAndEqualLogits) {
  std::vector<float> row = logits_of(5000, 3);
  for (size_t i = 0; i < row.size(); i += 3) row[i] = -kInfinity;
  row[4321] = row[77] = 60;
  check(row, all_queries(static_cast<int64_t>(row.size())));
  check(std::vector<float>(700, -2.5f), all_queries(700));
  row.assign(300, -kInfinity);
  row[299] = -5;
  check(row, all_queries(static_cast<int64_t>(row.size())));
}

TEST_P(LogitAnswers, AreUnknownWhereSomethingIsWrong) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    std::vector<float> row = logits_of(1000, 3);
    row[517] = bad;
    check(row, all_queries(static_cast<int64_t>(row.size())));
  }
  check(std::vector<float>(1000, -kInfinity), all_queries(1000));
}

INSTANTIATE_TEST_SUITE_P(Backends, LogitAnswers, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace lowbit
