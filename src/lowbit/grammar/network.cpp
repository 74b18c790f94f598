#include "lowbit/grammar/network.h"

#include <algorithm>

#include "lowbit/base/check.h"

namespace lowbit::grammar {

namespace {

using Nodes = std::vector<bool>;

bool has(const Nodes& nodes, int32_t node) { return nodes[static_cast<size_t>(node)]; }

// The nodes from which the end of their rule can be reached, through bytes too or without any.
// Works backwards from the ends, each edge once.
class ReachesEnd {
 public:
  ReachesEnd(const Network& network, bool through_bytes)
      : network_(network),
        before_(network.nodes.size()),
        started_by_(network.nodes.size()),
        waiting_(network.starts.size()),
        reaches_(network.nodes.size()) {
    for (size_t rule = 0; rule < network.starts.size(); ++rule) {
      started_by_[static_cast<size_t>(network.starts[rule])].push_back(rule);
    }
    for (size_t i = 0; i < network.nodes.size(); ++i) {
      for (const Edge& edge : network.nodes[i].edges) {
        if (edge.kind == Edge::Kind::kBytes && !through_bytes) continue;
        before_[static_cast<size_t>(edge.to)].push_back({static_cast<int32_t>(i), edge.rule});
      }
    }
    for (size_t i = 0; i < network.nodes.size(); ++i) {
      if (network.nodes[i].final) mark(static_cast<int32_t>(i));
    }
    run();
  }

  Nodes take() { return std::move(reaches_); }

 private:
  struct Before {
    int32_t node;
    int32_t rule;  // -1: nothing has to be called on the way
  };

  void mark(int32_t node) {
    if (has(reaches_, node)) return;
    reaches_[static_cast<size_t>(node)] = true;
    todo_.push_back(node);
  }

  void run() {
    while (!todo_.empty()) {
      const auto node = static_cast<size_t>(todo_.back());
      todo_.pop_back();
      for (const size_t rule : started_by_[node]) {
        for (const int32_t caller : waiting_[rule]) mark(caller);
      }
      for (const auto& [from, rule] : before_[node]) {
        if (rule < 0 || has(reaches_, network_.starts[static_cast<size_t>(rule)])) {
          mark(from);
        } else {
          waiting_[static_cast<size_t>(rule)].push_back(from);
        }
      }
    }
  }

  const Network& network_;
  std::vector<std::vector<Before>> before_;
  std::vector<std::vector<size_t>> started_by_;  // rules, by their first node
  std::vector<std::vector<int32_t>> waiting_;    // nodes, by the rule they must call
  Nodes reaches_;
  std::vector<int32_t> todo_;
};

// Takes away edges that lead to nodes from which no end can be reached: what is left never gets
// stuck.
void prune(Network& network, const Nodes& good) {
  for (Node& node : network.nodes) {
    std::erase_if(node.edges, [&](const Edge& edge) {
      return !has(good, edge.to) ||
             (edge.kind == Edge::Kind::kCall &&
              !has(good, network.starts[static_cast<size_t>(edge.rule)]));
    });
  }
}

// The rules that each rule can call before its first byte.
std::vector<std::vector<int32_t>> left_calls(const Network& network) {
  const Nodes empty = ReachesEnd(network, false).take();
  std::vector<std::vector<int32_t>> calls(network.starts.size());
  std::vector<int32_t> seen_by(network.nodes.size(), -1);
  for (size_t rule = 0; rule < calls.size(); ++rule) {
    std::vector<int32_t> todo = {network.starts[rule]};
    while (!todo.empty()) {
      const auto node = static_cast<size_t>(todo.back());
      todo.pop_back();
      if (seen_by[node] == static_cast<int32_t>(rule)) continue;
      seen_by[node] = static_cast<int32_t>(rule);
      for (const Edge& edge : network.nodes[node].edges) {
        if (edge.kind == Edge::Kind::kBytes) continue;
        if (edge.kind == Edge::Kind::kCall) {
          calls[rule].push_back(edge.rule);
          if (!has(empty, network.starts[static_cast<size_t>(edge.rule)])) continue;
        }
        todo.push_back(edge.to);
      }
    }
  }
  return calls;
}

// Depth-first with a stack of its own: there may be thousands of rules.
bool has_loop(const std::vector<std::vector<int32_t>>& calls) {
  enum State : uint8_t { kNew, kOpen, kDone };
  std::vector<State> state(calls.size(), kNew);
  for (size_t root = 0; root < calls.size(); ++root) {
    if (state[root] != kNew) continue;
    std::vector<std::pair<size_t, size_t>> stack = {{root, 0}};
    state[root] = kOpen;
    while (!stack.empty()) {
      auto& [rule, next] = stack.back();
      if (next == calls[rule].size()) {
        state[rule] = kDone;
        stack.pop_back();
        continue;
      }
      const auto called = static_cast<size_t>(calls[rule][next++]);
      if (state[called] == kOpen) return true;
      if (state[called] == kDone) continue;
      state[called] = kOpen;
      stack.emplace_back(called, 0);
    }
  }
  return false;
}

}  // namespace

int32_t Builder::add_node() {
  LOWBIT_CHECK(network_.nodes.size() < kMaxNodes, "too large: over ", kMaxNodes,
               " states; make repetitions, enumerations or the schema smaller");
  network_.nodes.emplace_back();
  return static_cast<int32_t>(network_.nodes.size()) - 1;
}

void Builder::add_edge(int32_t from, const Edge& edge) {
  network_.nodes[static_cast<size_t>(from)].edges.push_back(edge);
}

void Builder::join(int32_t from, int32_t to) {
  add_edge(from, {.kind = Edge::Kind::kEmpty, .to = to});
}

Fragment Builder::empty() {
  const int32_t node = add_node();
  return {node, node};
}

Fragment Builder::bytes(uint8_t low, uint8_t high) {
  const Fragment fragment = {add_node(), add_node()};
  add_edge(fragment.start,
           {.kind = Edge::Kind::kBytes, .low = low, .high = high, .to = fragment.end});
  return fragment;
}

Fragment Builder::literal(std::string_view text) {
  Fragment fragment = empty();
  for (const char c : text) {
    const int32_t next = add_node();
    const auto byte = static_cast<uint8_t>(c);
    add_edge(fragment.end, {.kind = Edge::Kind::kBytes, .low = byte, .high = byte, .to = next});
    fragment.end = next;
  }
  return fragment;
}

Fragment Builder::sequence(std::span<const Fragment> parts) {
  if (parts.empty()) return empty();
  for (size_t i = 1; i < parts.size(); ++i) join(parts[i - 1].end, parts[i].start);
  return {parts.front().start, parts.back().end};
}

Fragment Builder::choice(std::span<const Fragment> parts) {
  const Fragment fragment = {add_node(), add_node()};
  for (const Fragment& part : parts) {
    join(fragment.start, part.start);
    join(part.end, fragment.end);
  }
  return fragment;
}

Fragment Builder::optional(Fragment part) { return choice({part, empty()}); }

Fragment Builder::star(Fragment part) {
  const Fragment fragment = {add_node(), add_node()};
  join(fragment.start, part.start);
  join(part.end, fragment.start);
  join(fragment.start, fragment.end);
  return fragment;
}

Fragment Builder::repeat(const Make& make, int64_t min, int64_t max) {
  LOWBIT_CHECK(min <= static_cast<int64_t>(kMaxNodes) && max <= static_cast<int64_t>(kMaxNodes),
               "a repetition of more than ", kMaxNodes, " times");
  LOWBIT_CHECK(max < 0 || min <= max, "a repetition of at least ", min, " and at most ", max);
  Fragment whole = empty();
  const auto append = [&](Fragment part) {
    join(whole.end, part.start);
    whole.end = part.end;
  };
  for (int64_t i = 0; i < min; ++i) append(make());
  if (max < 0) {
    append(star(make()));
    return whole;
  }
  const int32_t end = add_node();
  for (int64_t i = min; i < max; ++i) {
    join(whole.end, end);
    append(make());
  }
  join(whole.end, end);
  return {whole.start, end};
}

int32_t Builder::add_rule() {
  network_.starts.push_back(-1);
  return static_cast<int32_t>(network_.starts.size()) - 1;
}

void Builder::define(int32_t rule, Fragment body) {
  network_.starts[static_cast<size_t>(rule)] = body.start;
  network_.nodes[static_cast<size_t>(body.end)].final = true;
}

Fragment Builder::call(int32_t rule) {
  const Fragment fragment = {add_node(), add_node()};
  add_edge(fragment.start, {.kind = Edge::Kind::kCall, .rule = rule, .to = fragment.end});
  return fragment;
}

Network Builder::finish(int32_t root) {
  network_.root = root;
  for (const int32_t start : network_.starts) LOWBIT_CHECK(start >= 0, "a rule is not defined");
  const Nodes good = ReachesEnd(network_, true).take();
  LOWBIT_CHECK(has(good, network_.starts[static_cast<size_t>(root)]),
               "no text can ever be complete");
  prune(network_, good);
  LOWBIT_CHECK(!has_loop(left_calls(network_)),
               "a rule begins with itself (left recursion); put what ends it first");
  return std::move(network_);
}

}  // namespace lowbit::grammar
