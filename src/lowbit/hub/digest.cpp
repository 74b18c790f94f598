#include "lowbit/hub/digest.h"

#include <algorithm>
#include <string_view>

namespace lowbit::hub {

namespace {

bool is_hex(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

Digest::Digest(std::string etag, int64_t size) : etag_(std::move(etag)) {
  if (!is_hex(etag_)) return;
  if (etag_.size() == 64) sha256_ = std::make_unique<Sha256>();
  if (etag_.size() == 40 && size >= 0) {
    sha1_ = std::make_unique<Sha1>();
    const std::string header = "blob " + std::to_string(size);
    sha1_->update(std::string_view(header.c_str(), header.size() + 1));  // with its NUL
  }
}

void Digest::update(std::span<const uint8_t> bytes) {
  if (sha256_) sha256_->update(bytes);
  if (sha1_) sha1_->update(bytes);
}

bool Digest::matches() {
  if (sha256_) return sha256_->hex() == etag_;
  return !sha1_ || sha1_->hex() == etag_;
}

}  // namespace lowbit::hub
