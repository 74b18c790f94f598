#include "lowbit/quantize/work_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"

namespace lowbit {

namespace {

[[noreturn]] void fail_io(const char* what, const fs::path& path, int error) {
  const char* advice = error == EROFS || error == EACCES ? "; choose a folder you may write to"
                       : error == ENOSPC                 ? "; free some space and run again"
                                                         : "";
  fail(ErrorKind::kIo, "cannot ", what, " ", path.string(), ": ", std::strerror(error), advice);
}

void check_io(const std::error_code& error, const char* what, const fs::path& path) {
  if (error) fail_io(what, path, error.value());
}

void remove_tree(const fs::path& path) {
  fault_point("remove");
  std::error_code error;
  fs::remove_all(path, error);
  check_io(error, "remove", path);
}

void move(const fs::path& from, const fs::path& to) {
  fault_point("rename");
  std::error_code error;
  fs::rename(from, to, error);
  check_io(error, "rename to", to);
}

// "out/" and "out" are the same place.
fs::path without_slash(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

fs::path partial_of(const fs::path& out) {
  fs::path partial = out;
  partial += ".partial";
  return partial;
}

bool occupied(const fs::path& out) {
  std::error_code error;
  const fs::file_status status = fs::status(out, error);
  if (!fs::exists(status)) return false;
  return !fs::is_directory(status) || !fs::is_empty(out, error) || error;
}

bool is_ours(const std::string& name) {
  return name == "lock" || name == "journal" || name == "result" || name == "replaced" ||
         name.ends_with(".part");
}

// What a person needs to know to understand why two runs do not belong together.
std::string differences(const Json& before, const Json& now) {
  const Json a = before.flatten(), b = now.flatten();
  std::string text;
  int shown = 0;
  const auto add = [&](const std::string& key, const std::string& was, const std::string& is) {
    if (++shown <= 5)
      text += concat(text.empty() ? "" : "; ", key.substr(1), " was ", was, ", is ", is);
  };
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key)) {
      add(key, value.dump(), "absent");
    } else if (b[key] != value) {
      add(key, value.dump(), b[key].dump());
    }
  }
  for (const auto& [key, value] : b.items()) {
    if (!a.contains(key)) add(key, "absent", value.dump());
  }
  return shown > 5 ? concat(text, "; and ", shown - 5, " more") : text;
}

}  // namespace

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

void FileLock::acquire(const fs::path& path, const std::string& work) {
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_io("create", path, errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) fail_io("lock", path, errno);
    char holder[32] = {};
    const ssize_t count = pread(fd_, holder, sizeof(holder) - 1, 0);
    fail(ErrorKind::kIo, "another run", count > 0 ? concat(" (process ", holder, ")") : "", " is ",
         work, "; wait for it or choose another -o");
  }
  // A run that has just finished may have deleted the file that was locked here.
  struct stat opened = {}, current = {};
  LOWBIT_CHECK_KIND(fstat(fd_, &opened) == 0 && stat(path.c_str(), &current) == 0 &&
                        opened.st_ino == current.st_ino,
                    ErrorKind::kIo, "another run has just finished ", work);
  const std::string id = std::to_string(getpid());
  if (ftruncate(fd_, 0) != 0 ||
      pwrite(fd_, id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    fail_io("write", path, errno);
  }
}

WorkFolder::WorkFolder(const fs::path& out, const Json& fingerprint, bool force,
                       double commit_seconds)
    : out_(without_slash(out)), folder_(partial_of(out_)), commit_seconds_(commit_seconds) {
  const fs::path journal = folder_ / "journal";
  LOWBIT_CHECK_KIND(force || !occupied(out_) || fs::exists(journal), ErrorKind::kIo, out_.string(),
                    " exists and is not empty; --force replaces it");
  std::error_code error;
  fs::create_directories(folder_, error);
  check_io(error, "create folder", folder_);
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    LOWBIT_CHECK_KIND(is_ours(entry.path().filename().string()), ErrorKind::kIo, folder_.string(),
                      " holds ", entry.path().filename().string(), ", which quantize did not ",
                      "write; move the folder away or choose another -o");
  }
  check_io(error, "list", folder_);
  lock_.acquire(folder_ / "lock", "writing " + out_.string());
  journal_ = std::make_unique<Journal>(journal);
  check_fingerprint(fingerprint, force);
  LOWBIT_CHECK_KIND(force || !occupied(out_) || published(), ErrorKind::kIo, out_.string(),
                    " exists and is not empty; --force replaces it");
  for (const Json& record : journal_->records()) {
    if (!record.contains("unit")) continue;
    Part part = Part::from_json(record);
    if (published() || intact(part, part_path(part.unit))) parts_[part.unit] = std::move(part);
  }
}

void WorkFolder::check_fingerprint(const Json& fingerprint, bool force) {
  const std::vector<Json>& records = journal_->records();
  if (!records.empty() && records[0] == fingerprint) return;
  if (!records.empty()) {
    LOWBIT_CHECK(force, folder_.string(), " is of a run with other input or options (",
                 differences(records[0], fingerprint),
                 "); repeat that run, or discard it with --force");
    journal_.reset();
    if (fs::exists(folder_ / "replaced") && !fs::exists(out_)) move(folder_ / "replaced", out_);
    remove_tree(folder_ / "journal");
    journal_ = std::make_unique<Journal>(folder_ / "journal");
  }
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".part") || name == "result") remove_tree(entry.path());
  }
  journal_->append({fingerprint});
  sync_directory(folder_);
}

bool WorkFolder::said_assembled() const {
  return !journal_->records().empty() && journal_->records().back().contains("assembled");
}

bool WorkFolder::published() const {
  return said_assembled() && !fs::exists(folder_ / "result") && fs::exists(out_);
}

bool WorkFolder::assembled() const {
  return published() || (said_assembled() && fs::exists(folder_ / "result"));
}

const Part* WorkFolder::find(const std::string& unit) const {
  const auto it = parts_.find(unit);
  return it == parts_.end() ? nullptr : &it->second;
}

fs::path WorkFolder::part_path(const std::string& unit) const {
  std::string name = unit + ".part";
  std::replace(name.begin(), name.end(), ' ', '-');
  return folder_ / name;
}

void WorkFolder::commit(const Part& part) {
  parts_[part.unit] = part;
  pending_.push_back(part);
  const std::chrono::duration<double> since = std::chrono::steady_clock::now() - flushed_;
  if (since.count() >= commit_seconds_) flush();
}

void WorkFolder::flush() {
  for (const Part& part : pending_) {
    fault_point("part sync");
    FileWriter(part_path(part.unit), FileWriter::Mode::kAppend).close();
  }
  fault_point("folder sync");
  sync_directory(folder_);
  std::vector<Json> records;
  for (const Part& part : pending_) records.push_back(part.to_json());
  journal_->append(records);
  pending_.clear();
  flushed_ = std::chrono::steady_clock::now();
}

const Json* WorkFolder::decision() const {
  for (const Json& record : journal_->records()) {
    if (record.contains("decision")) return &record["decision"];
  }
  return nullptr;
}

void WorkFolder::decide(const Json& decision) {
  fault_point("decision");
  journal_->append({Json{{"decision", decision}}});
}

fs::path WorkFolder::prepare_result() {
  const fs::path result = folder_ / "result";
  remove_tree(result);
  return result;
}

void WorkFolder::publish() {
  const fs::path result = folder_ / "result", replaced = folder_ / "replaced";
  if (!published()) {
    sync_directory(folder_);
    if (!said_assembled()) journal_->append({Json{{"assembled", true}}});
    if (occupied(out_)) {
      remove_tree(replaced);
      move(out_, replaced);
    } else if (fs::is_directory(out_)) {
      remove_tree(out_);  // empty
    }
    move(result, out_);
    sync_directory(out_.parent_path());
  }
  remove_tree(replaced);
  for (const auto& [unit, part] : parts_) remove_tree(part_path(unit));
  journal_.reset();
  remove_tree(folder_ / "journal");
  remove_tree(folder_);
}

void check_apart(const fs::path& model, const fs::path& out) {
  const fs::path from = fs::weakly_canonical(without_slash(model));
  const fs::path to = fs::weakly_canonical(without_slash(out));
  const auto within = [](const fs::path& inner, const fs::path& outer) {
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first ==
           outer.end();
  };
  LOWBIT_CHECK(from != to, "-o is the model itself (", to.string(), "); choose another place");
  LOWBIT_CHECK(!within(to, from), "-o ", to.string(), " is inside the model's folder ",
               from.string(), "; choose another place");
  LOWBIT_CHECK(!within(from, to), "-o ", to.string(), " contains the model ", from.string(),
               "; choose another place");
}

void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory()) {
      sync_tree(entry.path());
    } else {
      FileWriter(entry.path(), FileWriter::Mode::kAppend).close();
    }
  }
  sync_directory(folder);
}

}  // namespace lowbit
