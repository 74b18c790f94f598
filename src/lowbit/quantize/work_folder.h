// OUT.partial, the folder in which a checkpoint is built so that OUT is never half of one.
//
//   lock      held (flock) by the run that writes, whose process id it holds
//   journal   the fingerprint of input and options, a record for each finished part, "assembled"
//   *.part    the finished parts
//   result    OUT, while it is assembled; then it is renamed
//   replaced  the old OUT, between its rename and its deletion (--force)
//
// After a crash at any moment, a run of the same fingerprint goes on where that one ended, and one
// of another fingerprint is refused.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/quantize/journal.h"
#include "lowbit/quantize/part.h"

namespace lowbit {

// A file that one process at a time holds locked, until this object's end.
class FileLock {
 public:
  FileLock() = default;
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  // Throws kIo, with the process that holds it and what that process does ("writing OUT").
  void acquire(const fs::path& path, const std::string& work);

 private:
  int fd_ = -1;
};

class WorkFolder {
 public:
  // Throws kIo if OUT exists and is not empty (without force) or another run is writing it, and
  // kInvalidArgument, saying what differs, if a partial folder has another fingerprint (with force:
  // discards it).
  WorkFolder(const fs::path& out, const Json& fingerprint, bool force, double commit_seconds);
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  bool resumed() const { return !parts_.empty(); }
  // The result is complete, durable and recorded as such: only publish() is left to do.
  bool assembled() const;
  // The part of an earlier run, if it is whole; otherwise null.
  const Part* find(const std::string& unit) const;
  // The file of a part to be written or read.
  fs::path part_path(const std::string& unit) const;
  // Takes a finished part. It is durable and recorded after at most `commit_seconds` and one more
  // part: a disk may take longer to sync one small part than we to make it.
  void commit(const Part& part);
  void flush();  // makes all of them durable now

  // What the run decided and must not decide otherwise when it goes on; null if it has not yet.
  const Json* decision() const;
  void decide(const Json& decision);  // durable on return

  // An empty place for OUT, file or folder, inside this folder.
  fs::path prepare_result();
  // The result, made durable by the caller, becomes OUT; the rest is deleted.
  void publish();

 private:
  void check_fingerprint(const Json& fingerprint, bool force);
  bool said_assembled() const;
  // OUT is in its place already: an earlier run ended between its rename and its cleaning up.
  bool published() const;

  fs::path out_;
  fs::path folder_;
  FileLock lock_;
  std::unique_ptr<Journal> journal_;
  std::map<std::string, Part> parts_;
  std::vector<Part> pending_;  // in parts_ too, but not in the journal
  double commit_seconds_;
  std::chrono::steady_clock::time_point flushed_ = std::chrono::steady_clock::now();
};

// Throws kInvalidArgument if OUT is MODEL, inside it, or around it.
void check_apart(const fs::path& model, const fs::path& out);

// fsyncs every file and folder below.
void sync_tree(const fs::path& folder);

}  // namespace lowbit
