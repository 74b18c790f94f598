#include "lowbit/server/jobs.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/server/fields.h"

namespace lowbit::server {

using Clock = std::chrono::steady_clock;

struct Jobs::Job {
  std::shared_ptr<Reply> reply;
  std::shared_ptr<Answer> answer;  // once prepared
  std::vector<RequestId> ids;
  std::atomic<bool> over{false};  // nobody waits for it any more; the preparer looks at it too
  bool began = false;             // the engine has said something
  Clock::time_point start = Clock::now();
  Clock::time_point last_news = Clock::now();
};

namespace {

void check_content_type(const HttpRequest& request) {
  const std::string* type = request.field("content-type");
  std::string media = type == nullptr ? "" : type->substr(0, type->find(';'));
  while (media.ends_with(' ')) media.pop_back();
  std::transform(media.begin(), media.end(), media.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (media != "application/json") {
    throw ApiError(400, "Unsupported Media Type: send 'Content-Type: application/json'.");
  }
}

}  // namespace

Jobs::Jobs(Api& api, JobLimits limits, Post post, std::function<void(const std::string&)> log)
    : api_(api),
      limits_(limits),
      post_(std::move(post)),
      log_(std::move(log)),
      preparer_(limits.max_preparing, limits.max_preparing_bytes) {}

Jobs::~Jobs() = default;

// Reads the body on the preparer's thread. Errors, and what `read` posts, come back to the I/O
// thread.
void Jobs::prepare(const std::shared_ptr<Job>& job, HttpRequest request,
                   std::function<void(const OrderedJson& body)> read) {
  check_content_type(request);
  job->reply->on_gone([this, weak = std::weak_ptr(job)] {
    if (const auto gone = weak.lock()) end(gone);
  });
  const size_t bytes = request.body.size();
  auto task = [this, job, body = std::move(request.body), read = std::move(read)] {
    if (job->over) return;
    try {
      read(parse_body(body));
    } catch (const std::exception& error) {
      const ApiError answer = to_api_error(error);
      if (answer.status == 500) log_(std::string("internal error: ") + error.what());
      post_([this, job, answer] {
        job->reply->send(error_response(answer));
        end(job);
      });
    }
  };
  if (!preparer_.push(bytes, std::move(task))) throw overloaded();
  jobs_.insert(job);
}

ApiError Jobs::overloaded() const {
  ApiError error(429, "The server is overloaded; try again later.", "", "rate_limit_exceeded");
  error.retry_after = retry_after();
  return error;
}

// Refused as early as can be: what is turned away should cost those who are served nothing.
void Jobs::start(HttpRequest request, std::shared_ptr<Reply> reply, Prepare make) {
  if (api_.engine.queue_full()) throw overloaded();
  auto job = std::make_shared<Job>();
  job->reply = std::move(reply);
  prepare(job, std::move(request), [this, job, make = std::move(make)](const OrderedJson& body) {
    auto prepared = std::make_shared<Prepared>(make(api_, body));
    post_([this, job, prepared] { admit(job, std::move(*prepared)); });
  });
}

void Jobs::compute(HttpRequest request, std::shared_ptr<Reply> reply,
                   std::function<OrderedJson(const Api& api, const OrderedJson& body)> make) {
  auto job = std::make_shared<Job>();
  job->reply = std::move(reply);
  prepare(job, std::move(request), [this, job, make = std::move(make)](const OrderedJson& body) {
    HttpResponse response;
    response.body = dump_json(make(api_, body));
    post_([this, job, response = std::move(response)] {
      job->reply->send(response);
      end(job);
    });
  });
}

void Jobs::admit(const std::shared_ptr<Job>& job, Prepared prepared) {
  if (job->over) return;
  job->answer = std::move(prepared.answer);
  job->answer->attach(job->reply);
  // A client that reads slowly gets its answer at its own pace, and others its place meanwhile.
  job->reply->on_backlog([this, weak = std::weak_ptr(job)](bool much) {
    const auto slow = weak.lock();
    if (slow == nullptr || slow->over) return;
    for (const RequestId id : slow->ids) api_.engine.hold(id, much);
  });
  for (size_t part = 0; part < prepared.requests.size(); ++part) {
    if (!submit(job, part, std::move(prepared.requests[part]))) return end(job);
  }
}

// False if the engine does not take it; the job has been answered then.
bool Jobs::submit(const std::shared_ptr<Job>& job, size_t part, Request request) {
  request.on_output = [this, job, part](Output&& output) {
    publish({job, part, std::move(output)});
  };
  try {
    const Submission submission = api_.engine.submit(std::move(request));
    switch (submission.admission) {
      case Admission::kAccepted:
        job->ids.push_back(submission.id);
        return true;
      case Admission::kQueueFull:
        job->answer->fail(overloaded());
        return false;
      case Admission::kStopping:
        job->answer->fail({503, "The server is shutting down.", "", "unavailable"});
        return false;
      case Admission::kUnhealthy:
        job->answer->fail({503, "The engine has failed.", "", "unavailable"});
        return false;
    }
  } catch (const std::exception& error) {
    job->answer->fail(to_api_error(error));
  }
  return false;
}

// From the engine's thread. One wake-up of the I/O thread for all that one step brings.
void Jobs::publish(News news) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = news_.empty();
    news_.push_back(std::move(news));
  }
  if (first) post_([this] { deliver(); });
}

void Jobs::deliver() {
  std::vector<News> news;
  {
    const std::lock_guard lock(mutex_);
    news.swap(news_);
  }
  for (News& item : news) {
    Job& job = *item.job;
    if (job.over) continue;
    job.began = true;
    job.last_news = Clock::now();
    if (job.answer->on_output(item.part, std::move(item.output))) end(item.job);
  }
}

// The answer is complete, or nobody wants it any more: whatever still runs for it is cancelled.
void Jobs::end(const std::shared_ptr<Job>& job) {
  if (job->over.exchange(true)) return;
  for (const RequestId id : job->ids) api_.engine.cancel(id);
  job->reply->on_gone(nullptr);
  jobs_.erase(job);
}

void Jobs::tick() {
  const Clock::time_point now = Clock::now();
  const auto since = [&](Clock::time_point then) {
    return std::chrono::duration<double>(now - then).count();
  };
  const auto jobs = jobs_;  // it changes on the way
  for (const std::shared_ptr<Job>& job : jobs) {
    if (job->answer == nullptr || job->over) continue;
    const bool late = !job->began && since(job->start) > limits_.first_token_seconds;
    if (late || since(job->start) > limits_.total_seconds) {
      ApiError error(503,
                     late ? "No answer began in time; the server is busy."
                          : "The answer took longer than the server allows.",
                     "", "timeout");
      error.retry_after = retry_after();
      job->answer->fail(error);
      end(job);
    } else if (since(job->last_news) > limits_.ping_seconds) {
      job->last_news = now;
      job->answer->keep_awake();
    }
  }
}

void Jobs::fail_all(const ApiError& error) {
  const auto jobs = jobs_;
  for (const std::shared_ptr<Job>& job : jobs) {
    if (job->answer != nullptr) {
      job->answer->fail(error);
    } else {
      job->reply->send(error_response(error));
    }
    end(job);
  }
}

size_t Jobs::open() const { return jobs_.size(); }

// Seconds until what waits now may have been served, as far as one can tell.
int Jobs::retry_after() const {
  const EngineStats stats = api_.engine.stats();
  const Histogram& latency = stats.e2e_request_latency_seconds;
  const double mean = latency.count > 0 ? latency.sum / static_cast<double>(latency.count) : 1;
  const double rounds =
      static_cast<double>(stats.waiting) / static_cast<double>(std::max<int64_t>(stats.running, 1));
  return static_cast<int>(std::clamp(std::ceil(mean * rounds), 1.0, 60.0));
}

}  // namespace lowbit::server
