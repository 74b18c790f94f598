// What other servers send: the hub's list of a repository's files, and streams of events.
#include <string_view>

#include "lowbit/base/check.h"
#include "lowbit/bench/event_stream.h"
#include "lowbit/hub/listing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  lowbit::EventStream events;
  size_t seen = 0;
  for (size_t at = 0; at < size; at += 7) {
    events.push(text.substr(at, 7), [&](std::string_view event) { seen += event.size(); });
  }
  if (seen > size) __builtin_trap();
  try {
    const lowbit::hub::Listing listing = lowbit::hub::parse_listing(text, "fuzz");
    for (const lowbit::hub::RemoteFile& file : listing.files) {
      if (!lowbit::hub::is_safe_file_name(file.name)) __builtin_trap();
      if (file.name.starts_with("../") || file.name.starts_with("/")) __builtin_trap();
    }
    lowbit::hub::select_files(listing, {}, "fuzz");
  } catch (const lowbit::Error&) {
  }
  return 0;
}
