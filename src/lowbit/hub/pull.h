// Downloads a model from the Hugging Face hub into the cache that all of lowbit's commands read.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "lowbit/hub/hub_client.h"
#include "lowbit/hub/listing.h"
#include "lowbit/hub/settings.h"

namespace lowbit::hub {

struct PullOptions {
  HubSettings hub;
  std::string repository;         // "org/name"
  std::string revision = "main";  // branch, tag or commit
  Selection selection;
  int max_workers = 8;         // files at once
  bool force = false;          // fetch also what is there
  std::function<bool()> stop;  // asked often, from several threads; may be empty
  RetryPolicy retry;
};

struct PullResult {
  std::string folder;  // the snapshot
  std::string commit;
  int64_t files = 0;
  int64_t bytes = 0;    // of these files
  int64_t fetched = 0;  // bytes that came over the network
};

// Nothing appears in the snapshot before all files are whole; what an interrupted or failed pull
// has fetched is kept, and the next one goes on from there. Two pulls at once wait for each other,
// file by file. Offline: finds what is there. Throws kInvalidArgument, kIo or kCorruptFile.
PullResult pull(const PullOptions& options);

}  // namespace lowbit::hub
