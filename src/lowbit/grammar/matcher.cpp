#include "lowbit/grammar/matcher.h"

#include <algorithm>
#include <set>

#include "lowbit/base/check.h"

namespace lowbit::grammar {

namespace {

constexpr int32_t kBottom = 0;  // the stack below the root: the text ends

}  // namespace

Matcher::Matcher(Network network) : network_(std::move(network)) {
  find_byte_classes();
  find_last_nodes();
  frames_.push_back({-1, -1, 0});
}

// Bytes that no edge tells apart share one entry of every transition table.
void Matcher::find_byte_classes() {
  std::array<bool, 257> cut{};
  for (const Node& node : network_.nodes) {
    for (const Edge& edge : node.edges) {
      if (edge.kind != Edge::Kind::kBytes) continue;
      cut[edge.low] = true;
      cut[size_t{edge.high} + 1] = true;
    }
  }
  uint8_t current = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (cut[byte] && byte > 0) ++current;
    byte_class_[byte] = current;
  }
  classes_ = size_t{current} + 1;
}

int32_t Matcher::push(int32_t node, int32_t below) {
  const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(node)) << 32 |
                       static_cast<uint32_t>(below);
  const auto [found, added] = frame_index_.try_emplace(key, static_cast<int32_t>(frames_.size()));
  if (!added) return found->second;
  const int32_t depth = frames_[static_cast<size_t>(below)].depth + 1;
  if (depth > kMaxDepth) {
    frame_index_.erase(found);
    fail(ErrorKind::kInvalidArgument, "the text nests deeper than ", kMaxDepth, " rules");
  }
  frames_.push_back({node, below, depth});
  bytes_ += sizeof(Frame) + 48;
  return static_cast<int32_t>(frames_.size()) - 1;
}

// A call that is the last thing of its rule leaves no frame, so lists of any length fit. Here are
// the nodes behind which nothing but the end can come.
void Matcher::find_last_nodes() {
  const size_t count = network_.nodes.size();
  std::vector<std::vector<size_t>> before(count);
  std::vector<size_t> todo;
  only_ends_.assign(count, true);
  for (size_t i = 0; i < count; ++i) {
    for (const Edge& edge : network_.nodes[i].edges) {
      if (edge.kind == Edge::Kind::kEmpty) {
        before[static_cast<size_t>(edge.to)].push_back(i);
      } else if (only_ends_[i]) {
        only_ends_[i] = false;
        todo.push_back(i);
      }
    }
  }
  while (!todo.empty()) {
    const size_t node = todo.back();
    todo.pop_back();
    for (const size_t from : before[node]) {
      if (!only_ends_[from]) continue;
      only_ends_[from] = false;
      todo.push_back(from);
    }
  }
}

Matcher::State Matcher::close(std::vector<Place> todo) {
  std::set<Place> seen(todo.begin(), todo.end());
  std::vector<Place> places;
  bool accepts = false;
  const auto reach = [&](Place place) {
    if (seen.insert(place).second) todo.push_back(place);
    LOWBIT_CHECK(seen.size() <= kMaxPlaces, "the grammar is too ambiguous: over ", kMaxPlaces,
                 " ways to read one text");
  };
  while (!todo.empty()) {
    const Place place = todo.back();
    todo.pop_back();
    const Node& node = network_.nodes[static_cast<size_t>(place.node)];
    bool takes_bytes = false;
    for (const Edge& edge : node.edges) {
      switch (edge.kind) {
        case Edge::Kind::kBytes:
          takes_bytes = true;
          break;
        case Edge::Kind::kEmpty:
          reach({edge.to, place.stack});
          break;
        case Edge::Kind::kCall:
          reach({network_.starts[static_cast<size_t>(edge.rule)],
                 only_ends_[static_cast<size_t>(edge.to)] ? place.stack : push(edge.to, place.stack)});
          break;
      }
    }
    if (takes_bytes) places.push_back(place);
    if (!node.final) continue;
    if (place.stack == kBottom) {
      accepts = true;
    } else {
      const Frame frame = frames_[static_cast<size_t>(place.stack)];
      reach({frame.node, frame.below});
    }
  }
  if (places.empty() && !accepts) return kDead;
  std::sort(places.begin(), places.end());
  return intern(std::move(places), accepts);
}

size_t Matcher::PlacesHash::operator()(const std::vector<Place>& places) const {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const Place& place : places) {
    hash = (hash ^ static_cast<uint32_t>(place.node)) * 0x100000001b3u;
    hash = (hash ^ static_cast<uint32_t>(place.stack)) * 0x100000001b3u;
  }
  return hash ^ hash >> 29;
}

Matcher::State Matcher::intern(std::vector<Place> places, bool accepts) {
  std::array<State, 2>& slots =
      state_index_.try_emplace(places, std::array<State, 2>{kUnknown, kUnknown}).first->second;
  State& slot = slots[accepts ? 1 : 0];
  if (slot != kUnknown) return slot;
  slot = static_cast<State>(states_.size());
  bytes_ += places.size() * sizeof(Place) * 2 + classes_ * sizeof(State) + 160;
  states_.push_back({std::move(places), std::vector<State>(classes_, kUnknown), accepts});
  return slot;
}

Matcher::State Matcher::start() {
  return close({{network_.starts[static_cast<size_t>(network_.root)], kBottom}});
}

Matcher::State Matcher::next(State state, uint8_t byte) {
  if (state < 0) return kDead;
  const size_t index = byte_class_[byte];
  const State known = states_[static_cast<size_t>(state)].next[index];
  if (known != kUnknown) return known;
  std::vector<Place> reached;
  for (const Place& place : states_[static_cast<size_t>(state)].places) {
    for (const Edge& edge : network_.nodes[static_cast<size_t>(place.node)].edges) {
      if (edge.kind == Edge::Kind::kBytes && edge.low <= byte && byte <= edge.high) {
        reached.push_back({edge.to, place.stack});
      }
    }
  }
  const State after = reached.empty() ? kDead : close(std::move(reached));
  states_[static_cast<size_t>(state)].next[index] = after;
  return after;
}

bool Matcher::accepts(State state) const {
  return state >= 0 && states_[static_cast<size_t>(state)].accepts;
}

bool Matcher::finished(State state) const {
  return state >= 0 && states_[static_cast<size_t>(state)].accepts &&
         states_[static_cast<size_t>(state)].places.empty();
}

}  // namespace lowbit::grammar
