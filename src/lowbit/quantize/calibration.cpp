#include "lowbit/quantize/calibration.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/checksum.h"
#include "lowbit/base/json.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/text_file.h"
#include "lowbit/tokenizer/windows.h"

namespace lowbit {

namespace {

constexpr int64_t kDefaultSamples = 128;

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

// Appends a text after an empty line.
void append(std::string& all, std::string_view text, const std::string& what) {
  if (blank(text)) return;
  if (!all.empty()) all += "\n\n";
  LOWBIT_CHECK(all.size() + text.size() <= limits::kPromptBytes, what,
               ": the calibration text is over ", limits::kPromptBytes >> 20,
               " MiB; give less of it");
  all += text;
}

void append_lines(std::string& all, const std::string& lines, const std::string& path) {
  int64_t number = 0;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = std::min(lines.find('\n', begin), lines.size());
    const std::string_view line = std::string_view(lines).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (blank(line)) continue;
    const std::string what = concat(path, ", line ", number);
    const Json object = parse_json(line, what);
    LOWBIT_CHECK(object.is_object() && object.contains("text") && object["text"].is_string(), what,
                 ": expected a JSON object with a string \"text\"");
    append(all, object["text"].get_ref<const std::string&>(), what);
  }
}

std::vector<fs::path> files_of(const std::string& path) {
  LOWBIT_CHECK_KIND(fs::exists(path), ErrorKind::kIo, "--calibration ", path, " does not exist");
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string extension = entry.path().extension();
    const bool text = extension == ".txt" || extension == ".jsonl";
    if (text && entry.is_regular_file()) files.push_back(entry.path());
  }
  LOWBIT_CHECK_KIND(!files.empty(), ErrorKind::kIo, "--calibration ", path,
                    " is a folder without .txt and .jsonl files");
  std::sort(files.begin(), files.end());
  return files;
}

// splitmix64: drawing without replacement needs no more.
uint64_t next_random(uint64_t& state) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::vector<int64_t> choose(int64_t count, int64_t available, int64_t seed) {
  std::vector<int64_t> indices(static_cast<size_t>(available));
  std::iota(indices.begin(), indices.end(), 0);
  if (seed >= 0) {
    auto state = static_cast<uint64_t>(seed);
    for (int64_t i = 0; i < count; ++i) {
      const auto rest = static_cast<uint64_t>(available - i);
      std::swap(indices[i], indices[i + static_cast<int64_t>(next_random(state) % rest)]);
    }
  }
  indices.resize(static_cast<size_t>(count));
  return indices;
}

}  // namespace

std::string calibration_text(const std::string& path) {
  std::string all;
  const std::vector<fs::path> files = files_of(path);
  for (const fs::path& file : files) {
    std::string text = read_text_file(file);
    if (file.extension() == ".jsonl") {
      append_lines(all, text, file.string());
    } else if (files.size() == 1) {
      all = std::move(text);  // as it is
    } else {
      append(all, text, file.string());
    }
  }
  LOWBIT_CHECK(!blank(all), "--calibration ", path, " holds no text");
  return all;
}

CalibrationData load_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer) {
  LOWBIT_CHECK(options.seqlen >= 2 && options.samples >= 0, "--samples ", options.samples,
               " of --seqlen ", options.seqlen, " tokens are not possible");
  const std::vector<int32_t> ids =
      tokenizer.encode(calibration_text(options.path), {.add_special_tokens = false});
  const int64_t available = count_windows(ids, options.seqlen);
  const int64_t wanted =
      options.samples > 0 ? options.samples : std::min(available, kDefaultSamples);
  LOWBIT_CHECK(wanted > 0 && wanted <= available, "--calibration ", options.path, " has ",
               ids.size(), " tokens, which make ", available, " samples of ", options.seqlen,
               " tokens, not ", std::max<int64_t>(wanted, 1),
               "; give more text, or lower --samples or --seqlen");
  CalibrationData data;
  Sha256 hash;
  for (const int64_t index : choose(wanted, available, options.seed)) {
    data.windows.push_back(window(ids, options.seqlen, index));
    const auto* bytes = reinterpret_cast<const uint8_t*>(data.windows.back().data());
    hash.update(std::span(bytes, data.windows.back().size() * sizeof(int32_t)));
  }
  data.sha256 = hash.hex();
  return data;
}

}  // namespace lowbit
