// SHA-256 (FIPS 180-4): notices damaged or changed files. SHA-1 (the same) names git's blobs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lowbit {

// What both have in common: blocks of 64 bytes, and how the last one is filled up.
class BlockDigest {
 public:
  virtual ~BlockDigest() = default;
  void update(std::span<const uint8_t> bytes);
  void update(std::string_view text);
  // Hexadecimal digits of everything so far. Call once, at the end.
  std::string hex();

 protected:
  // At most 8 words.
  explicit BlockDigest(std::span<const uint32_t> start);

  std::array<uint32_t, 8> state_{};

 private:
  virtual void compress(const uint8_t* block) = 0;

  size_t words_;
  std::array<uint8_t, 64> pending_{};
  uint64_t length_ = 0;  // bytes so far
};

class Sha256 : public BlockDigest {
 public:
  Sha256();

 private:
  void compress(const uint8_t* block) override;
};

class Sha1 : public BlockDigest {
 public:
  Sha1();

 private:
  void compress(const uint8_t* block) override;
};

std::string sha256(std::string_view text);

}  // namespace lowbit
