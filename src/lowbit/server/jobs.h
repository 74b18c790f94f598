// Jobs: requests that the engine answers, from the body of a POST to the end of the answer.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "lowbit/server/answer.h"
#include "lowbit/server/api.h"
#include "lowbit/server/preparer.h"

namespace lowbit::server {

struct JobLimits {
  size_t max_preparing = 256;             // bodies that wait to be read
  size_t max_preparing_bytes = 64 << 20;  // in all
  double first_token_seconds = 120;       // from the request to the first news of its answer
  double total_seconds = 3'600;           // to the end of it
  double ping_seconds = 15;               // of silence before a stream gets a comment
};

class Jobs {
 public:
  using Prepare = std::function<Prepared(const Api& api, const OrderedJson& body)>;
  using Post = std::function<void(std::function<void()>)>;  // runs a task on the I/O thread

  // Everything must outlive the jobs.
  Jobs(Api& api, JobLimits limits, Post post, std::function<void(const std::string&)> log);
  ~Jobs();

  // On the I/O thread:

  // Generation: reads the body, submits, answers.
  void start(HttpRequest request, std::shared_ptr<Reply> reply, Prepare prepare);
  // What needs no engine, but time: answers with what `make` returns.
  void compute(HttpRequest request, std::shared_ptr<Reply> reply,
               std::function<OrderedJson(const Api& api, const OrderedJson& body)> make);
  // Ends jobs that take too long, and keeps silent streams awake.
  void tick();
  // Ends all jobs with this error.
  void fail_all(const ApiError& error);
  // Jobs that are not over, those being prepared included.
  size_t open() const;

 private:
  struct Job;
  struct News {
    std::shared_ptr<Job> job;
    size_t part;
    Output output;
  };

  void prepare(const std::shared_ptr<Job>& job, HttpRequest request,
               std::function<void(const OrderedJson& body)> read);
  void admit(const std::shared_ptr<Job>& job, Prepared prepared);
  bool submit(const std::shared_ptr<Job>& job, size_t part, Request request);
  void publish(News news);
  void deliver();
  void end(const std::shared_ptr<Job>& job);
  ApiError overloaded() const;
  int retry_after() const;

  Api& api_;
  JobLimits limits_;
  Post post_;
  std::function<void(const std::string&)> log_;
  std::unordered_set<std::shared_ptr<Job>> jobs_;
  std::mutex mutex_;
  std::vector<News> news_;  // guarded by mutex_
  Preparer preparer_;       // last: its thread uses the rest
};

}  // namespace lowbit::server
