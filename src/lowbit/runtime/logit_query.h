// What a token's choice needs to know of a row of logits, for backends that can tell without
// bringing the row to the host. An answer is what engine/logit_row.h finds in the same row, bit for
// bit.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace lowbit {

struct LogitQuery {
  enum class Kind {
    kAll,      // every logit: nothing that a backend can answer
    kHighest,  // the lowest id with the highest logit
    kDraw,     // the token at `uniform` of the cumulated e^((logit - highest) * scale)
    kTop,      // at least the `count` highest logits
    kToken,    // what the likelihood of `token` needs
  };
  Kind kind = Kind::kAll;
  float scale = 1;
  double uniform = 0;  // in [0, 1)
  int32_t count = 0;   // at most kMostTop
  bool total = false;  // kTop: the sum of exponentials too
  int32_t token = 0;   // kToken
};
constexpr int32_t kMostTop = 256;
constexpr int32_t kMostCandidates = 1024;  // that an answer has; unknown if there are more

struct LogitAnswer {
  bool known = false;  // false: read the row instead
  int32_t id = -1;     // kHighest, kDraw
  // kTop, in no order: logit and id of all logits of at least `bound`; if asked for, the
  // sum of e^(logit - highest) over the row.
  std::vector<std::pair<float, int32_t>> top;
  // kToken: the token's logit and id alone; `bound` is the highest logit, with the sum.
  float bound = 0;
  double total = 0;
};

}  // namespace lowbit
