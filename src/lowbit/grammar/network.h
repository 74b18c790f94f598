// Network: the one form that schemas, regular expressions and grammars become. A recursive
// transition network over bytes: nodes with edges that take a byte of a range, take nothing, or run
// another rule and go on behind it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace lowbit::grammar {

constexpr size_t kMaxNodes = 50'000;   // of one network
constexpr int kMaxNesting = 128;       // of groups, schemas, rules while compiling
constexpr size_t kMaxSource = 65'536;  // bytes of a regular expression or grammar

struct Edge {
  enum class Kind : uint8_t { kBytes, kEmpty, kCall };
  Kind kind = Kind::kEmpty;
  uint8_t low = 0, high = 0;  // kBytes: both included
  int32_t rule = -1;          // kCall
  int32_t to = -1;
};

struct Node {
  std::vector<Edge> edges;
  bool final = false;  // the rule may end here
};

struct Network {
  std::vector<Node> nodes;
  std::vector<int32_t> starts;  // by rule
  int32_t root = 0;             // the rule that is the whole text
};

// A piece of a network: one way in, one way out.
struct Fragment {
  int32_t start = -1;
  int32_t end = -1;
};

// Puts networks together. Every method throws kInvalidArgument when the network gets too large.
class Builder {
 public:
  using Make = std::function<Fragment()>;

  Fragment empty();
  Fragment bytes(uint8_t low, uint8_t high);
  Fragment literal(std::string_view text);
  Fragment sequence(std::span<const Fragment> parts);
  Fragment sequence(std::initializer_list<Fragment> parts) {
    return sequence(std::span(parts.begin(), parts.size()));
  }
  Fragment choice(std::span<const Fragment> parts);
  Fragment choice(std::initializer_list<Fragment> parts) {
    return choice(std::span(parts.begin(), parts.size()));
  }
  Fragment optional(Fragment part);
  Fragment star(Fragment part);
  // min to max (-1: any number) times what `make` makes, anew each time.
  Fragment repeat(const Make& make, int64_t min, int64_t max);

  // Rules may be called before they are defined.
  int32_t add_rule();
  void define(int32_t rule, Fragment body);
  Fragment call(int32_t rule);

  int32_t add_node();
  void add_edge(int32_t from, const Edge& edge);
  void join(int32_t from, int32_t to);  // an empty edge

  // The finished network; the builder is of no use after it. Throws kInvalidArgument if the root
  // can never end, a rule begins with itself (left recursion), or some rule is not defined.
  Network finish(int32_t root);

 private:
  Network network_;
};

}  // namespace lowbit::grammar
