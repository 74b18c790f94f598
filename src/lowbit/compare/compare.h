// lowbit compare: makes a model smaller by every method of a recipe, measures what came out, and
// writes the report.
//
//   REPORT/report.{html,md,csv,json}   rewritten after each row
//   REPORT/models/<row>                what the methods made; reused while their options are the
//   same REPORT/work                        the stages finished so far, and the source's
//   predictions
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowbit/compare/measure.h"
#include "lowbit/compare/recipe.h"
#include "lowbit/report/comparison.h"

namespace lowbit {

struct CompareJob {
  std::vector<std::string> models;  // the source first, then others, measured as they are
  Recipe recipe;                    // its methods may be none
  std::string text;                 // to measure quality on
  std::string text_name;            // for the report
  std::string calibration;          // text for methods that want it; may be empty
  fs::path report;  // empty: nothing is kept, and divergence and layers are left out
  MeasureOptions measure;

  std::function<void(const std::string&)> say = [](const std::string&) {};  // a line for the user
  std::function<bool()> interrupted = [] { return false; };
};

// A row that fails has a note and no numbers, and the others go on; it is tried again by the next
// run. Throws kInvalidArgument if methods need calibration text and there is none, or if there are
// methods and no report; what measuring the source throws; kIo if the report cannot be written or
// another run is writing it, and when interrupted.
Comparison compare_models(const CompareJob& job);

}  // namespace lowbit
