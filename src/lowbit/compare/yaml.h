// YAML from outside as a tree: yaml-cpp's events behind caps on size, depth and nodes. A recipe
// needs scalars, lists and maps with plain keys; aliases, anchors, tags and second documents are
// refused, so a small file cannot become a large tree.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lowbit {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  struct Member;

  Kind kind = Kind::kNull;
  std::string where;  // "recipe.yaml:3:5", lines and columns from 1
  std::string text;   // kScalar
  bool quoted = false;
  std::vector<YamlNode> items;  // kSequence
  std::vector<Member> members;  // kMap, in the order of the text

  // The member's value, or null.
  YamlNode* find(std::string_view key);
};

struct YamlNode::Member {
  std::string key;
  std::string where;
  YamlNode value;
};

// Throws kInvalidArgument beginning with "origin:line:column: " for text that is not YAML or not
// what is said above, duplicate keys, or more than limits::kRecipe*.
YamlNode parse_yaml(const std::string& text, const std::string& origin);

}  // namespace lowbit
