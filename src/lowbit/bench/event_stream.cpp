#include "lowbit/bench/event_stream.h"

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

void EventStream::push(std::string_view bytes,
                       const std::function<void(std::string_view data)>& event) {
  while (!bytes.empty()) {
    if (after_cr_ && bytes[0] == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    line_ += bytes.substr(0, end);
    LOWBIT_CHECK_KIND(line_.size() + data_.size() <= limits::kEventBytes, ErrorKind::kCorruptFile,
                      "the server sends an event of more than ", limits::kEventBytes, " bytes");
    if (end == bytes.npos) return;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(event);
  }
}

void EventStream::end_line(const std::function<void(std::string_view data)>& event) {
  if (line_.empty()) {
    if (any_data_) event(data_);
    data_.clear();
    any_data_ = false;
    return;
  }
  std::string_view line = line_;
  if (line.starts_with("data") && (line.size() == 4 || line[4] == ':')) {
    line.remove_prefix(line.size() == 4 ? 4 : 5);
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (any_data_) data_ += '\n';
    data_ += line;
    any_data_ = true;
  }
  line_.clear();
}

}  // namespace lowbit
