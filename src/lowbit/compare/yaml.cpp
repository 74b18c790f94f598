#include "lowbit/compare/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/text_file.h"

namespace lowbit {

namespace {

// Builds the tree. Nodes under construction are a stack: a container is moved into the one beneath
// it when it ends.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string origin) : origin_(std::move(origin)) {}

  YamlNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(YamlNode::Kind::kNull, mark, "?", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "aliases (*name) are not supported; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = make(YamlNode::Kind::kScalar, mark, tag, anchor);
    node.text = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::kSequence, mark, tag, anchor), mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::kMap, mark, tag, anchor), mark);
  }
  void OnMapEnd() override { close(); }

 private:
  // A container, and of a map the key that waits for its value.
  struct Level {
    YamlNode node;
    YamlNode key;
    bool has_key = false;
  };

  std::string place(const YAML::Mark& mark) const {
    return concat(origin_, ":", mark.line + 1, ":", mark.column + 1);
  }
  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& why) const {
    fail(ErrorKind::kInvalidArgument, place(mark), ": ", why);
  }

  YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "anchors (&name) are not supported");
    if (tag != "?" && tag != "!" && !tag.empty()) refuse(mark, "tags (!name) are not supported");
    if (++nodes_ > limits::kRecipeNodes) {
      refuse(mark, concat("more than ", limits::kRecipeNodes, " values"));
    }
    YamlNode node;
    node.kind = kind;
    node.where = place(mark);
    return node;
  }

  void open(YamlNode node, const YAML::Mark& mark) {
    if (stack_.size() >= limits::kRecipeDepth) {
      refuse(mark, concat("nested deeper than ", limits::kRecipeDepth));
    }
    stack_.push_back({std::move(node), {}, false});
  }

  void close() {
    YamlNode node = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = stack_.back();
    if (level.node.kind == YamlNode::Kind::kSequence) {
      level.node.items.push_back(std::move(node));
    } else if (!level.has_key) {
      LOWBIT_CHECK(node.kind == YamlNode::Kind::kScalar, node.where, ": a key must be a word");
      LOWBIT_CHECK(level.node.find(node.text) == nullptr, node.where, ": the key \"", node.text,
                   "\" is there twice");
      level.key = std::move(node);
      level.has_key = true;
    } else {
      level.node.members.push_back({level.key.text, level.key.where, std::move(node)});
      level.has_key = false;
    }
  }

  std::string origin_;
  YamlNode root_;
  std::vector<Level> stack_;
  size_t nodes_ = 0;
};

}  // namespace

YamlNode* YamlNode::find(std::string_view key) {
  const auto it = std::find_if(members.begin(), members.end(),
                               [&](const Member& member) { return member.key == key; });
  return it == members.end() ? nullptr : &it->value;
}

YamlNode parse_yaml(const std::string& text, const std::string& origin) {
  LOWBIT_CHECK(text.size() <= limits::kRecipeBytes, origin, ": larger than ", limits::kRecipeBytes,
               " bytes; that is no recipe");
  check_utf8(text, origin);
  TreeBuilder builder(origin);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (parser.HandleNextDocument(builder)) {
      TreeBuilder second(origin);
      LOWBIT_CHECK(!parser.HandleNextDocument(second), origin,
                   ": holds a second document; expected one");
    }
  } catch (const YAML::Exception& error) {
    fail(ErrorKind::kInvalidArgument, origin, ":", error.mark.line + 1, ":", error.mark.column + 1,
         ": ", error.msg);
  }
  return builder.take_root();
}

}  // namespace lowbit
