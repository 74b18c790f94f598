// Whether a file is the one that its etag names.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "lowbit/base/checksum.h"

namespace lowbit::hub {

// Digests a file of `size` bytes in the way of its etag: SHA-256 if that has 64 hexadecimal digits,
// git's blob id (SHA-1) if it has 40 and the size is known; anything else proves nothing.
class Digest {
 public:
  Digest(std::string etag, int64_t size);
  void update(std::span<const uint8_t> bytes);
  // Ends it. True also if the etag proves nothing.
  bool matches();

 private:
  std::string etag_;
  std::unique_ptr<Sha256> sha256_;
  std::unique_ptr<Sha1> sha1_;
};

}  // namespace lowbit::hub
