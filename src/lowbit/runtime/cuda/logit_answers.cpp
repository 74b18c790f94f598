#include "lowbit/runtime/cuda/logit_answers.h"

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/runtime/cuda/kernels.h"

namespace lowbit::cuda {

namespace {

using Kind = LogitQuery::Kind;

bool wants_candidates(const LogitQuery& query) { return query.kind == Kind::kTop; }
bool wants_sums(const LogitQuery& query) {
  return query.kind == Kind::kDraw || query.kind == Kind::kToken ||
         (query.kind == Kind::kTop && query.total);
}

LogitAnswer answer_of(const LogitQuery& query, const RowFindings& found,
                      const RowCandidate* candidates) {
  LogitAnswer answer;
  if (query.kind == Kind::kToken) {
    return {found.id == -1, query.token, {{found.bound, query.token}}, found.top, found.total};
  }
  if (query.kind != Kind::kTop) {
    answer.known = query.kind != Kind::kAll && found.id >= 0;
    answer.id = found.id;
    return answer;
  }
  answer.known = found.id == -1 && found.count <= kMostCandidates;
  if (!answer.known) return answer;
  answer.bound = found.bound;
  answer.total = found.total;
  for (int i = 0; i < found.count; ++i) {
    answer.top.emplace_back(candidates[i].logit, candidates[i].id);
  }
  return answer;
}

}  // namespace

LogitAnswers::~LogitAnswers() {
  if (host_ != nullptr) cudaFreeHost(host_);
}

void* LogitAnswers::pinned(size_t bytes) {
  if (bytes <= host_bytes_) return host_;
  if (host_ != nullptr) LOWBIT_CUDA(cudaFreeHost(host_));
  host_ = nullptr;
  host_bytes_ = 0;
  LOWBIT_CUDA(cudaMallocHost(&host_, bytes));
  host_bytes_ = bytes;
  return host_;
}

void LogitAnswers::answer(const Tensor& logits, std::span<const LogitQuery> queries,
                          std::span<LogitAnswer> answers, int shared_bytes, cudaStream_t stream) {
  const size_t rows = queries.size();
  LOWBIT_CHECK(logits.dtype == DType::kF32 && static_cast<size_t>(logits.rows) == rows &&
                   answers.size() == rows,
               rows, " questions about ", logits.rows, " rows of logits");
  std::fill(answers.begin(), answers.end(), LogitAnswer{});
  const bool top = std::any_of(queries.begin(), queries.end(), wants_candidates);
  RowsLaunch a;
  a.logits = logits.as<float>();
  a.rows = static_cast<int>(rows);
  a.vocab = static_cast<int>(logits.cols);
  a.sums = std::any_of(queries.begin(), queries.end(), wants_sums);
  const size_t chunks = static_cast<size_t>(a.chunks());
  if (rows == 0 || chunks * sizeof(double) > static_cast<size_t>(shared_bytes)) return;

  const size_t sum_bytes = a.sums ? rows * chunks * sizeof(double) : 0;
  auto* scratch =
      static_cast<uint8_t*>(scratch_.reserve(sum_bytes + rows * chunks * sizeof(float), stream));
  a.chunk_sums = reinterpret_cast<double*>(scratch);
  a.maxima = reinterpret_cast<float*>(scratch + sum_bytes);

  // Queries, findings and candidates follow one another, on both sides.
  const size_t query_bytes = rows * sizeof(RowQuery), finding_bytes = rows * sizeof(RowFindings);
  const size_t result_bytes =
      finding_bytes + (top ? rows * kMostCandidates * sizeof(RowCandidate) : 0);
  auto* device = static_cast<uint8_t*>(results_.reserve(query_bytes + result_bytes, stream));
  auto* host = static_cast<uint8_t*>(pinned(query_bytes + result_bytes));
  a.queries = reinterpret_cast<RowQuery*>(device);
  a.findings = reinterpret_cast<RowFindings*>(device + query_bytes);
  a.candidates = reinterpret_cast<RowCandidate*>(device + query_bytes + finding_bytes);
  auto* host_queries = reinterpret_cast<RowQuery*>(host);
  for (size_t i = 0; i < rows; ++i) {
    LOWBIT_CHECK(queries[i].count <= kMostTop, "the ", queries[i].count,
                 " highest logits; at most ", kMostTop);
    LOWBIT_CHECK(queries[i].token >= 0 && queries[i].token < logits.cols, "token ",
                 queries[i].token, " of a vocabulary of ", logits.cols);
    const bool token = queries[i].kind == Kind::kToken;
    host_queries[i] = {static_cast<int>(queries[i].kind),
                       token ? queries[i].token : queries[i].count, wants_sums(queries[i]),
                       queries[i].scale, queries[i].uniform};
  }
  LOWBIT_CUDA(cudaMemcpyAsync(device, host, query_bytes, cudaMemcpyHostToDevice, stream));
  launch_rows(a, stream);
  LOWBIT_CUDA(cudaMemcpyAsync(host + query_bytes, device + query_bytes, result_bytes,
                              cudaMemcpyDeviceToHost, stream));
  LOWBIT_CUDA(cudaStreamSynchronize(stream));
  const auto* findings = reinterpret_cast<const RowFindings*>(host + query_bytes);
  const auto* candidates =
      reinterpret_cast<const RowCandidate*>(host + query_bytes + finding_bytes);
  for (size_t i = 0; i < rows; ++i) {
    answers[i] = answer_of(queries[i], findings[i], candidates + i * kMostCandidates);
  }
}

}  // namespace lowbit::cuda
