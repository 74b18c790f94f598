#include "lowbit/tokenizer/post_process.h"

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

constexpr size_t kMaxIds = 1024;

int32_t id_of(const Json& value, const std::string& origin) {
  LOWBIT_CHECK_KIND(value.is_number_integer() && value >= 0 && value < limits::kVocabSize,
                    ErrorKind::kCorruptFile, origin, ": post_processor has the token id ",
                    dump_json(value));
  return value.get<int32_t>();
}

const Json& member(const Json& object, const char* key, const std::string& origin) {
  const auto found = object.find(key);
  LOWBIT_CHECK_KIND(found != object.end(), ErrorKind::kCorruptFile, origin,
                    ": post_processor has no \"", key, "\" where one is needed");
  return *found;
}

// ["</s>", 2]
int32_t pair_id(const Json& pair, const std::string& origin) {
  LOWBIT_CHECK_KIND(pair.is_array() && pair.size() == 2, ErrorKind::kCorruptFile, origin,
                    ": post_processor needs [token, id], found ", dump_json(pair));
  return id_of(pair[1], origin);
}

}  // namespace

PostProcessor::PostProcessor(const Json& component, const std::string& origin) {
  if (!component.is_null()) add(component, origin, 0);
}

void PostProcessor::check_ids(int32_t vocab_size, const std::string& origin) const {
  for (const auto* ids : {&prefix_, &suffix_}) {
    for (const int32_t id : *ids) {
      LOWBIT_CHECK_KIND(id < vocab_size, ErrorKind::kCorruptFile, origin,
                        ": post_processor adds the token id ", id, ", the vocabulary has ",
                        vocab_size);
    }
  }
}

void PostProcessor::add(const Json& component, const std::string& origin, int depth) {
  const std::string type = json_string(component, "type", "", origin);
  if (type == "Sequence") {
    const Json& list = member(component, "processors", origin);
    LOWBIT_CHECK_KIND(depth < 8 && list.is_array() && list.size() <= limits::kTokenizerSteps,
                      ErrorKind::kCorruptFile, origin,
                      ": post_processor Sequence needs a list \"processors\" of at most ",
                      limits::kTokenizerSteps);
    for (const Json& element : list) add(element, origin, depth + 1);
  } else if (type == "TemplateProcessing") {
    add_template(component, origin);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    wrap({pair_id(member(component, "cls", origin), origin)},
         {pair_id(member(component, "sep", origin), origin)});
  } else if (type != "ByteLevel") {
    fail(ErrorKind::kUnsupported, origin, ": post_processor \"", type,
         "\"; lowbit knows Sequence, TemplateProcessing, ByteLevel, BertProcessing and "
         "RobertaProcessing");
  }
}

void PostProcessor::add_template(const Json& component, const std::string& origin) {
  std::vector<int32_t> parts[2];
  size_t sequences = 0;
  const Json& single = member(component, "single", origin);
  LOWBIT_CHECK_KIND(single.is_array(), ErrorKind::kCorruptFile, origin,
                    ": TemplateProcessing's \"single\" is not a list");
  for (const Json& item : single) {
    if (const auto token = item.find("SpecialToken"); token != item.end()) {
      const std::string name = json_string(*token, "id", "", origin);
      const Json& known = member(component, "special_tokens", origin);
      const Json& ids = member(member(known, name.c_str(), origin), "ids", origin);
      LOWBIT_CHECK_KIND(ids.is_array() && ids.size() <= kMaxIds && sequences < 2,
                        ErrorKind::kCorruptFile, origin, ": TemplateProcessing's \"", name,
                        "\" has no list of ids");
      for (const Json& id : ids) parts[sequences].push_back(id_of(id, origin));
    } else {
      const auto sequence = item.find("Sequence");
      LOWBIT_CHECK_KIND(sequence != item.end() && json_string(*sequence, "id", "A", origin) == "A",
                        ErrorKind::kCorruptFile, origin, ": TemplateProcessing's \"single\" has ",
                        dump_json(item));
      ++sequences;
    }
    LOWBIT_CHECK_KIND(sequences <= 1, ErrorKind::kUnsupported, origin,
                      ": TemplateProcessing's \"single\" must have the sequence A once");
  }
  LOWBIT_CHECK_KIND(sequences == 1, ErrorKind::kUnsupported, origin,
                    ": TemplateProcessing's \"single\" must have the sequence A once");
  wrap(parts[0], parts[1]);
}

void PostProcessor::wrap(const std::vector<int32_t>& before, const std::vector<int32_t>& after) {
  prefix_.insert(prefix_.begin(), before.begin(), before.end());
  suffix_.insert(suffix_.end(), after.begin(), after.end());
  LOWBIT_CHECK_KIND(prefix_.size() + suffix_.size() <= kMaxIds, ErrorKind::kUnsupported,
                    "tokenizer: the post_processor adds more than ", kMaxIds, " tokens");
}

}  // namespace lowbit
