// The model that a benchmark measures: a file's, or random weights in the shape of a known model.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "lowbit/bench/random_model.h"
#include "session.h"

namespace lowbit::app {

struct MeasuredModel {
  std::string model;  // after open(): its name, of random weights too
  RandomModelOptions random;
  std::string format = "q4_0", head_format;
  bool random_weights = false;  // there is no other kind with a shape

  // -m or --shape, --random-weights, --format, --head-format, --layers.
  void add_to(CLI::App& command);
  std::unique_ptr<Checkpoint> open();
};

}  // namespace lowbit::app
