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

#include <map>
#include <memory>
#include <string>

#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/quantize/journal.h"
#include "lowbit/quantize/part.h"

namespace lowbit {

class WorkFolder {
 public:
  // Throws kIo if OUT exists and is not empty (without force) or another run is writing it, and
  // kInvalidArgument, saying what differs, if a partial folder has another fingerprint (with force:
  // discards it).
  WorkFolder(const fs::path& out, const Json& fingerprint, bool force);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  bool resumed() const { return !parts_.empty(); }
  // The result is complete, durable and recorded as such: only publish() is left to do.
  bool assembled() const;
  // The part of an earlier run, if it is whole; otherwise null.
  const Part* find(const std::string& unit) const;
  // The file of a part to be written or read.
  fs::path part_path(const std::string& unit) const;
  // Makes a finished part durable.
  void commit(const Part& part);

  // An empty place for OUT, file or folder, inside this folder.
  fs::path prepare_result();
  // The result, made durable by the caller, becomes OUT; the rest is deleted.
  void publish();

 private:
  void lock();
  void check_fingerprint(const Json& fingerprint, bool force);
  bool said_assembled() const;
  // OUT is in its place already: an earlier run ended between its rename and its cleaning up.
  bool published() const;

  fs::path out_;
  fs::path folder_;
  int lock_ = -1;
  std::unique_ptr<Journal> journal_;
  std::map<std::string, Part> parts_;
};

// Throws kInvalidArgument if OUT is MODEL, inside it, or around it.
void check_apart(const fs::path& model, const fs::path& out);

// fsyncs every file and folder below.
void sync_tree(const fs::path& folder);

}  // namespace lowbit
