// StopStrings: finds the end of an answer in text that comes in pieces.
#pragma once

#include <string>
#include <vector>

namespace lowbit {

class StopStrings {
 public:
  // Throws kInvalidArgument if a stop string is empty.
  explicit StopStrings(std::vector<std::string> stops);

  // Takes the next piece (whole UTF-8 characters) and returns what may be shown: never the
  // beginning of a stop string that the next pieces could complete. After a stop string has come
  // (the first to be complete, the longest of those), what stood before it, and then nothing more.
  std::string push(const std::string& piece);
  // What was held back, when nothing more comes.
  std::string finish();
  bool stopped() const { return !found_.empty(); }
  const std::string& found() const { return found_; }  // the stop string that has come, or empty

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string found_;
};

}  // namespace lowbit
