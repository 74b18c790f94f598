// Server-sent events (HTML Standard, 9.2.6): cuts a stream of bytes into the data of its events.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace lowbit {

class EventStream {
 public:
  // Calls `event` with the data of every event that `bytes` completes. Lines may end in CR, LF or
  // both, and be cut anywhere; comments and other fields are skipped. Throws kCorruptFile if an
  // event is longer than limits::kEventBytes.
  void push(std::string_view bytes, const std::function<void(std::string_view data)>& event);

 private:
  void end_line(const std::function<void(std::string_view data)>& event);

  std::string line_;
  std::string data_;
  bool any_data_ = false;
  bool after_cr_ = false;
};

}  // namespace lowbit
