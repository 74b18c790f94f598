// Brings one file of a repository into the cache's blobs.
#pragma once

#include <atomic>
#include <string>

#include "lowbit/hub/cache.h"
#include "lowbit/hub/hub_client.h"

namespace lowbit::hub {

struct BlobProgress {
  std::atomic<int64_t> done{0};     // bytes of the files wanted that are on the disk
  std::atomic<int64_t> fetched{0};  // bytes that came over the network
};

// Downloads `file` of url into its blob unless it is there; goes on where an earlier download broke
// off. The blob appears under its name only when it is whole, has its checksum and is durable.
// force: fetch it even if it is there. Throws kIo (network, disk, interruption), or kCorruptFile if
// what is sent is again and again not what the hub promised.
void download_blob(HubClient& client, const RepositoryCache& cache, const RemoteFile& file,
                   const std::string& url, bool force, BlobProgress& progress);

}  // namespace lowbit::hub
