#include "lowbit/quantize/journal.h"

#include <string>
#include <string_view>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/quantize/fault.h"

namespace lowbit {

namespace {

constexpr size_t kDigestChars = 64;

bool intact(std::string_view line) {
  return line.size() > kDigestChars + 1 && line[kDigestChars] == ' ' &&
         sha256(line.substr(kDigestChars + 1)) == line.substr(0, kDigestChars);
}

}  // namespace

Journal::Journal(const fs::path& path) {
  const std::string text = fs::exists(path) ? read_file(path, limits::kJournalBytes) : "";
  size_t good = 0;  // bytes of intact lines
  for (size_t end; (end = text.find('\n', good)) != std::string::npos; good = end + 1) {
    const std::string_view line = std::string_view(text).substr(good, end - good);
    if (!intact(line)) break;
    records_.push_back(parse_json(line.substr(kDigestChars + 1), path.string()));
  }
  if (good < text.size()) fs::resize_file(path, good);
  writer_ = std::make_unique<FileWriter>(path, FileWriter::Mode::kAppend);
}

void Journal::append(const Json& record) {
  const std::string text = dump_json(record);
  const std::string line = sha256(text) + " " + text + "\n";
  fault_point("journal write");
  // In two halves, so that a test can end the process within a line.
  writer_->write(std::string_view(line).substr(0, line.size() / 2));
  fault_point("journal line");
  writer_->write(std::string_view(line).substr(line.size() / 2));
  fault_point("journal sync");
  writer_->sync();
  records_.push_back(record);
}

}  // namespace lowbit
