// Matcher: runs a network over bytes, all possibilities at once. What can come next is found out
// once and kept.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "lowbit/grammar/network.h"

namespace lowbit::grammar {

class Matcher {
 public:
  using State = int32_t;
  static constexpr State kDead = -1;

  explicit Matcher(Network network);

  State start();
  // The state behind one more byte; kDead if no text goes on like that. Throws kInvalidArgument if
  // the grammar is too ambiguous or nests too deep (limits below).
  State next(State state, uint8_t byte);
  bool accepts(State state) const;  // the text may end here
  bool finished(State state) const;  // and nothing can follow

  // Memory that states take; it only grows.
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kMaxPlaces = 4'096;   // of one state
  static constexpr int32_t kMaxDepth = 1'024;   // rules inside of rules
  static constexpr State kUnknown = -2;

  // Where a text may be: a node, and what to go on with when its rule ends.
  struct Place {
    int32_t node;
    int32_t stack;
    auto operator<=>(const Place&) const = default;
  };
  // Return addresses, shared by all that have the same below them.
  struct Frame {
    int32_t node;
    int32_t below;
    int32_t depth;
  };
  struct StateData {
    std::vector<Place> places;   // sorted; only nodes that take bytes
    std::vector<State> next;     // by byte class
    bool accepts = false;
  };
  struct PlacesHash {
    size_t operator()(const std::vector<Place>& places) const;
  };

  void find_byte_classes();
  void find_last_nodes();
  int32_t push(int32_t node, int32_t below);
  // The state of these places and all that can be reached from them without a byte.
  State close(std::vector<Place> places);
  State intern(std::vector<Place> places, bool accepts);

  Network network_;
  std::array<uint8_t, 256> byte_class_{};
  size_t classes_ = 0;
  std::vector<bool> only_ends_;  // by node
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, int32_t> frame_index_;
  std::vector<StateData> states_;
  std::unordered_map<std::vector<Place>, std::array<State, 2>, PlacesHash> state_index_;
  size_t bytes_ = 0;
};

}  // namespace lowbit::grammar
