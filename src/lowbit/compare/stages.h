// The stages that `lowbit compare` has finished, kept in REPORT/work so that a run that was killed
// goes on where it was. A stage's result counts only for the conditions under which it was made:
// all that it depends on, as JSON.
#pragma once

#include <memory>
#include <string>

#include "lowbit/quantize/journal.h"
#include "lowbit/quantize/work_folder.h"

namespace lowbit {

class Stages {
 public:
  // Locks `folder`, made if it is not there; without one nothing outlives this object. Throws kIo,
  // also if another run holds it.
  explicit Stages(const fs::path& folder);

  // The result of a row's stage under these conditions; null if there is none.
  const Json* find(const std::string& row, const std::string& stage, const Json& conditions) const;
  // What differs from the conditions of the last time: "eval.context: 512, now 1024". Empty if
  // there was none, or nothing differs.
  std::string changes(const std::string& row, const std::string& stage,
                      const Json& conditions) const;
  // Durable on return.
  void add(const std::string& row, const std::string& stage, const Json& conditions,
           const Json& result);

 private:
  const Json* last(const std::string& row, const std::string& stage) const;

  FileLock lock_;
  std::unique_ptr<Journal> journal_;  // null: no folder
  std::vector<Json> records_;
};

}  // namespace lowbit
