// Quantize runs that fail, or are killed at a chosen moment.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <string>

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/pipeline.h"
#include "support/tiny_folder.h"

namespace lowbit::test {

// What the run says is wrong; empty if nothing is.
inline std::string quantize_error(const std::string& model, const std::string& out,
                                  const QuantizeOptions& options) {
  try {
    quantize_checkpoint(model, out, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline int points_seen = 0;
inline int points_allowed = 0;

inline void count_point(const char*) { ++points_seen; }
inline void die_at_point(const char*) {
  if (++points_seen > points_allowed) kill(getpid(), SIGKILL);
}

// Runs in a process of its own that is killed after `points` fault points; true if it finished.
inline bool run_killed(int points, const std::string& model, const std::string& out,
                       const QuantizeOptions& options) {
  const pid_t child = fork();
  if (child == 0) {
    points_seen = 0;
    points_allowed = points;
    fault_hook = die_at_point;
    try {
      quantize_checkpoint(model, out, options);
    } catch (...) {
      _exit(2);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 2) << "failed instead of dying";
  return WIFEXITED(status);
}

// Fault points of an undisturbed run.
inline int count_points(const std::string& model, const std::string& out,
                        const QuantizeOptions& options) {
  points_seen = 0;
  fault_hook = count_point;
  quantize_checkpoint(model, out, options);
  fault_hook = nullptr;
  return points_seen;
}

// Kills a run at every stride-th point, runs again, and compares with what an undisturbed run made.
inline void expect_same_bytes_when_killed(const std::string& model, const std::string& out,
                                          const QuantizeOptions& options, int stride,
                                          const std::map<std::string, std::string>& expected) {
  fs::remove_all(out);
  const int points = count_points(model, out, options);
  for (int point = 1; point < points; point += stride) {
    SCOPED_TRACE(point);
    fs::remove_all(out);
    run_killed(point, model, out, options);
    if (!fs::exists(out)) quantize_checkpoint(model, out, options);
    EXPECT_EQ(snapshot(out), expected);
    fs::remove_all(out + ".partial");
  }
}

}  // namespace lowbit::test
