#include "lowbit/hub/listing.h"

#include <algorithm>
#include <set>

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"
#include "lowbit/base/limits.h"
#include "lowbit/checkpoint/paths.h"

namespace lowbit::hub {

namespace {

bool is_plain_part(std::string_view part) {
  constexpr size_t kLongest = 255;  // of most file systems
  if (part.empty() || part.size() > kLongest || part == "." || part == "..") return false;
  return std::none_of(part.begin(), part.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\';
  });
}

// Two files of one name, or a file where another has a folder, could not both be stored.
void check_names_are_apart(const std::vector<RemoteFile>& files, const std::string& origin) {
  std::set<std::string_view> names, folders;
  for (const RemoteFile& file : files) {
    const std::string_view name = file.name;
    LOWBIT_CHECK_KIND(names.insert(name).second, ErrorKind::kCorruptFile, origin,
                      ": lists the file ", file.name, " twice");
    for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
      folders.insert(name.substr(0, slash));
    }
  }
  for (const std::string_view folder : folders) {
    LOWBIT_CHECK_KIND(names.count(folder) == 0, ErrorKind::kCorruptFile, origin, ": ", folder,
                      " is both a file and a folder");
  }
}

RemoteFile parse_file(const Json& json, const std::string& origin) {
  RemoteFile file;
  file.name = json_string(json, "rfilename", "", origin);
  LOWBIT_CHECK_KIND(is_safe_file_name(file.name), ErrorKind::kCorruptFile, origin,
                    ": refused, as it names a file \"", dump_json(Json(file.name.substr(0, 200))),
                    "\", which could be written outside of its folder");
  file.size = json_int(json, "size", -1, origin);
  file.etag = json_string(json, "blobId", "", origin);
  if (const auto lfs = json.find("lfs"); lfs != json.end() && lfs->is_object()) {
    file.etag = json_string(*lfs, "sha256", json_string(*lfs, "oid", "", origin), origin);
    file.size = json_int(*lfs, "size", file.size, origin);
  }
  LOWBIT_CHECK_KIND(file.size >= -1 && (file.etag.empty() || is_safe_etag(file.etag)),
                    ErrorKind::kCorruptFile, origin, ": bad size or checksum of ", file.name);
  return file;
}

// Python's fnmatch, which huggingface_hub uses, without classes of characters named by words.
bool matches_set(std::string_view set, char c) {
  const bool negated = !set.empty() && set[0] == '!';
  if (negated) set.remove_prefix(1);
  bool found = false;
  for (size_t i = 0; i < set.size(); ++i) {
    if (i + 2 < set.size() && set[i + 1] == '-') {
      found = found || (c >= set[i] && c <= set[i + 2]);
      i += 2;
    } else {
      found = found || c == set[i];
    }
  }
  return found != negated;
}

// Length of the element at the front of the pattern, and whether it takes c.
std::pair<size_t, bool> match_one(std::string_view pattern, char c) {
  if (pattern[0] == '?') return {1, true};
  if (pattern[0] == '[') {
    const size_t end = pattern.find(']', pattern.starts_with("[!") ? 3 : 2);
    if (end != pattern.npos) return {end + 1, matches_set(pattern.substr(1, end - 1), c)};
  }
  return {1, pattern[0] == c};
}

bool matches(std::string_view pattern, std::string_view text) {
  // Where to go on if what follows the last star does not match: that star takes one more.
  std::string_view star, rest;
  bool starred = false;
  while (!text.empty()) {
    if (!pattern.empty() && pattern[0] == '*') {
      starred = true;
      star = pattern = pattern.substr(1);
      rest = text;
      continue;
    }
    if (!pattern.empty()) {
      const auto [length, taken] = match_one(pattern, text[0]);
      if (taken) {
        pattern.remove_prefix(length);
        text.remove_prefix(1);
        continue;
      }
    }
    if (!starred) return false;
    pattern = star;
    rest.remove_prefix(1);
    text = rest;
  }
  while (!pattern.empty() && pattern[0] == '*') pattern.remove_prefix(1);
  return pattern.empty();
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return matches(pattern.ends_with('/') ? pattern + "*" : pattern, name);
  });
}

// "model-00002-of-00003.gguf" belongs to the model "model".
std::string gguf_model(const std::string& name) {
  constexpr std::string_view kPart = "-00002-of-00003";
  const std::string stem = name.substr(0, name.size() - std::string_view(".gguf").size());
  if (stem.size() <= kPart.size()) return stem;
  const size_t at = stem.size() - kPart.size();
  for (size_t i = 0; i < kPart.size(); ++i) {
    const char c = stem[at + i], like = kPart[i];
    const bool digit = c >= '0' && c <= '9';
    if (like >= '0' && like <= '9' ? !digit : c != like) return stem;
  }
  return stem.substr(0, at);
}

// Files beside the model: what it was quantized with, what it sees with.
bool is_companion(const std::string& name) {
  const std::string own = name.substr(name.rfind('/') + 1);
  return own.starts_with("mmproj") || own.find("imatrix") != std::string::npos;
}

// Weights, configuration, tokenizer, templates and licence: files at the top that others than
// lowbit want too, without the same weights in other formats.
bool belongs_to_safetensors_model(const std::string& name) {
  if (name.find('/') != std::string::npos) return false;
  if (name.starts_with("consolidated")) return false;  // Mistral's own copy
  for (const char* ending : {".safetensors", ".json", ".jinja", ".model", ".txt", ".md"}) {
    if (ends_with(name, ending)) return true;
  }
  return name.starts_with("LICENSE");
}

std::vector<RemoteFile> whole_model(const Listing& listing, const std::string& repository) {
  std::vector<RemoteFile> chosen;
  const auto has = [&](auto&& wanted) {
    return std::any_of(listing.files.begin(), listing.files.end(), wanted);
  };
  if (has([](const RemoteFile& file) {
        return ends_with(file.name, ".safetensors") && belongs_to_safetensors_model(file.name);
      })) {
    for (const RemoteFile& file : listing.files) {
      if (belongs_to_safetensors_model(file.name)) chosen.push_back(file);
    }
    return chosen;
  }
  std::set<std::string> models;
  std::string names;
  for (const RemoteFile& file : listing.files) {
    if (!ends_with(file.name, ".gguf") || is_companion(file.name)) continue;
    if (models.insert(gguf_model(file.name)).second) names += "\n  " + file.name;
    chosen.push_back(file);
  }
  LOWBIT_CHECK(models.size() <= 1, repository, " holds ", models.size(),
               " GGUF models; name one of them behind ", repository, ", or use --include:", names);
  LOWBIT_CHECK(!chosen.empty(), repository,
               " holds neither safetensors nor GGUF files; --include '*' takes what it holds");
  return chosen;
}

}  // namespace

bool is_safe_file_name(std::string_view name) {
  if (name.size() > limits::kHubNameBytes) return false;
  for (;;) {
    const size_t slash = name.find('/');
    if (!is_plain_part(name.substr(0, slash))) return false;
    if (slash == name.npos) return true;
    name.remove_prefix(slash + 1);
  }
}

bool is_safe_etag(std::string_view etag) { return is_plain_name(etag) && etag.size() <= 128; }

Listing parse_listing(std::string_view text, const std::string& origin) {
  const Json json = parse_json(text, origin);
  LOWBIT_CHECK_KIND(json.is_object(), ErrorKind::kCorruptFile, origin, ": not a JSON object");
  Listing listing;
  listing.commit = json_string(json, "sha", "", origin);
  LOWBIT_CHECK_KIND(is_plain_name(listing.commit), ErrorKind::kCorruptFile, origin,
                    ": names no commit (\"sha\")");
  const auto siblings = json.find("siblings");
  LOWBIT_CHECK_KIND(siblings != json.end() && siblings->is_array(), ErrorKind::kCorruptFile, origin,
                    ": lists no files (\"siblings\")");
  LOWBIT_CHECK_KIND(siblings->size() <= limits::kHubFiles, ErrorKind::kCorruptFile, origin,
                    ": lists ", siblings->size(), " files; at most ", limits::kHubFiles);
  for (const Json& sibling : *siblings) {
    LOWBIT_CHECK_KIND(sibling.is_object(), ErrorKind::kCorruptFile, origin,
                      ": \"siblings\" holds something else than objects");
    listing.files.push_back(parse_file(sibling, origin));
  }
  check_names_are_apart(listing.files, origin);
  return listing;
}

std::vector<RemoteFile> select_files(const Listing& listing, const Selection& selection,
                                     const std::string& repository) {
  for (const std::string& name : selection.files) {
    LOWBIT_CHECK(std::any_of(listing.files.begin(), listing.files.end(),
                             [&](const RemoteFile& file) { return file.name == name; }),
                 repository, " holds no file ", name);
  }
  std::vector<RemoteFile> candidates = listing.files;
  if (selection.files.empty() && selection.include.empty()) {
    // With only --exclude, what it leaves may be one model.
    Listing left{listing.commit, {}};
    for (const RemoteFile& file : listing.files) {
      if (!matches_any(selection.exclude, file.name)) left.files.push_back(file);
    }
    candidates = whole_model(left, repository);
  }
  std::vector<RemoteFile> chosen;
  for (const RemoteFile& file : candidates) {
    const auto& files = selection.files;
    const bool named = std::find(files.begin(), files.end(), file.name) != files.end();
    const bool all = files.empty() && selection.include.empty();
    const bool included = (all || matches_any(selection.include, file.name)) &&
                          !matches_any(selection.exclude, file.name);
    if (named || included) chosen.push_back(file);
  }
  LOWBIT_CHECK(!chosen.empty(), repository, " holds no file that the patterns match");
  return chosen;
}

}  // namespace lowbit::hub
