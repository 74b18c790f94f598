// Quantize runs that fail, or are killed at a chosen moment.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"
#include "lowbit/quantize/pipeline.h"

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

}  // namespace lowbit::test
