// TokenConstraint: what a grammar allows next in one sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace lowbit {

// An object serves one sequence and is used by one thread at a time.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;

  // Which tokens may come next: bit (id % 32) of mask[id / 32]. Writes every word; end tokens are
  // allowed where the text may end. mask: [ceil(vocab_size / 32)]
  virtual void allowed(std::span<uint32_t> mask) = 0;
  // Goes on by a token that was allowed, never by an end token.
  virtual void accept(int32_t id) = 0;
  // The text is complete and nothing can follow: the engine ends it without drawing an end token.
  virtual bool finished() const = 0;
};

}  // namespace lowbit
