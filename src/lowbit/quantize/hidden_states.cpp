#include "lowbit/quantize/hidden_states.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

// Space on the disk is claimed now: a full disk must not end a write to the map with SIGBUS later.
int open_spill(const fs::path& path, int64_t bytes) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  LOWBIT_CHECK_KIND(fd >= 0, ErrorKind::kIo, "cannot create ", path.string(), ": ",
                    std::strerror(errno));
  unlink(path.c_str());
  int error = 0;
  while ((error = posix_fallocate(fd, 0, bytes)) == EINTR) {
  }
  if (error != 0) {
    close(fd);
    fail(ErrorKind::kIo, "cannot keep ", bytes >> 20, " MiB of activations in ",
         path.parent_path().string(), ": ", std::strerror(error),
         "; free some space, raise --memory, or lower --samples");
  }
  return fd;
}

}  // namespace

HiddenStates::HiddenStates(int64_t samples, int64_t tokens, int64_t hidden_size,
                           const fs::path& spill)
    : samples_(samples), tokens_(tokens), hidden_size_(hidden_size) {
  const auto size = static_cast<size_t>(bytes());
  const int fd = spill.empty() ? -1 : open_spill(spill, bytes());
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (fd >= 0) close(fd);
  LOWBIT_CHECK_KIND(data != MAP_FAILED, ErrorKind::kOutOfMemory, "out of memory: ", size >> 20,
                    " MiB for the activations of ", samples,
                    " samples; lower --memory or --samples");
  data_ = static_cast<float*>(data);
}

HiddenStates::~HiddenStates() { munmap(data_, static_cast<size_t>(bytes())); }

}  // namespace lowbit
