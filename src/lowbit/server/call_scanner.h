// CallScanner: reads {"name": ..., "arguments": {...}} as it is generated, so that the arguments
// of a tool call can be passed on before they are complete.
#pragma once

#include <string>
#include <string_view>

namespace lowbit::server {

class CallScanner {
 public:
  enum class State { kReading, kDone, kBad };

  // Takes one byte more. kBad: this is not a call, nothing of it has been given out.
  State push(char byte);
  // The name is complete and the arguments have begun, or the object has ended.
  bool named() const { return named_; }
  const std::string& name() const { return name_; }
  // Arguments that have come since the last call, as JSON text. Empty before named().
  std::string take_arguments();

 private:
  enum class Want { kOpen, kKeyOrClose, kKey, kColon, kValue, kInValue, kCommaOrClose };

  State bad() { return state_ = State::kBad; }
  State begin_value(char byte);
  State in_value(char byte);
  State end_value();
  State close();

  State state_ = State::kReading;
  Want want_ = Want::kOpen;
  std::string key_;
  std::string value_;  // of the member being read; of arguments only what was not given out
  bool in_string_ = false, escaped_ = false, scalar_ = false, quoted_arguments_ = false;
  int depth_ = 0;
  bool has_name_ = false, has_arguments_ = false, named_ = false;
  std::string name_;
  std::string arguments_;  // not yet given out
};

}  // namespace lowbit::server
