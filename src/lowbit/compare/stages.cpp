#include "lowbit/compare/stages.h"

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

// "a.b: 1, now 2" for each leaf that differs, up to a few.
void list_changes(const Json& before, const Json& now, const std::string& path,
                  std::vector<std::string>& changes) {
  if (before == now) return;
  if (!before.is_object() || !now.is_object()) {
    changes.push_back(concat(path, ": ", dump_json(before), ", now ", dump_json(now)));
    return;
  }
  Json keys = before;
  keys.update(now);
  for (const auto& [key, unused] : keys.items()) {
    const Json absent;
    list_changes(before.contains(key) ? before[key] : absent, now.contains(key) ? now[key] : absent,
                 path.empty() ? key : concat(path, ".", key), changes);
  }
}

fs::path journal_path(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  LOWBIT_CHECK_KIND(!error, ErrorKind::kIo, "cannot make ", folder.string(), ": ", error.message());
  return folder / "journal";
}

}  // namespace

Stages::Stages(const fs::path& folder) {
  if (folder.empty()) return;
  const fs::path path = journal_path(folder);
  lock_.acquire(folder / "lock", concat("filling ", folder.string()));
  journal_ = std::make_unique<Journal>(path);
  records_ = journal_->records();
}

const Json* Stages::last(const std::string& row, const std::string& stage) const {
  for (auto it = records_.rbegin(); it != records_.rend(); ++it) {
    if (it->value("row", "") == row && it->value("stage", "") == stage) return &*it;
  }
  return nullptr;
}

const Json* Stages::find(const std::string& row, const std::string& stage,
                         const Json& conditions) const {
  const Json* record = last(row, stage);
  return record != nullptr && record->at("conditions") == conditions ? &record->at("result")
                                                                     : nullptr;
}

std::string Stages::changes(const std::string& row, const std::string& stage,
                            const Json& conditions) const {
  const Json* record = last(row, stage);
  if (record == nullptr) return "";
  std::vector<std::string> changes;
  list_changes(record->at("conditions"), conditions, "", changes);
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < changes.size() && i < kShown; ++i) {
    text += (text.empty() ? "" : "; ") + changes[i];
  }
  return changes.size() > kShown ? text + "; ..." : text;
}

void Stages::add(const std::string& row, const std::string& stage, const Json& conditions,
                 const Json& result) {
  const Json record = {
      {"row", row}, {"stage", stage}, {"conditions", conditions}, {"result", result}};
  if (journal_ != nullptr) journal_->append({record});
  records_.push_back(record);
}

}  // namespace lowbit
