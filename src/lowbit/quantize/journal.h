// Journal: a file of records, each durable once append() has returned.
//
// A record is one line: the SHA-256 of the rest in hex, a space, a JSON object. What a crash left
// of an unfinished line, and anything after damage, is dropped when the file is opened again.
#pragma once

#include <memory>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/base/json.h"

namespace lowbit {

class Journal {
 public:
  // Opens or creates. Throws kIo.
  explicit Journal(const fs::path& path);

  const std::vector<Json>& records() const { return records_; }
  void append(const Json& record);

 private:
  std::vector<Json> records_;
  std::unique_ptr<FileWriter> writer_;
};

}  // namespace lowbit
