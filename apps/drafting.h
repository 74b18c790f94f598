// Speculative decoding on the command line: --speculative ngram, --draft MODEL, --draft self:w4.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "lowbit/engine/drafter.h"
#include "session.h"

namespace lowbit::app {

struct DraftOptions {
  std::string speculative = "none";  // or "ngram"
  std::string model;                 // a model that drafts, or "self:wN"
  int64_t max_tokens = 0;            // 0: 8 for ngram, 4 for a model

  void add_to(CLI::App& command);
};

// A drafting model, if one is asked for, and drafters on it.
class Drafting {
 public:
  // Throws kInvalidArgument if the drafting model has another vocabulary.
  Drafting(const DraftOptions& options, const RunOptions& run, Session& session,
           int64_t max_num_seqs);
  ~Drafting();
  // Null if none is asked for. The drafter must not outlive this.
  std::unique_ptr<Drafter> make();

 private:
  DraftOptions options_;
  DType kv_dtype_;
  int64_t kv_blocks_ = 0;
  std::unique_ptr<Model> self_;       // the session's checkpoint in fewer bits
  std::unique_ptr<Session> session_;  // another model
};

// "1.93 tokens a step: ..." or nothing if there were no guesses.
void print_acceptance(uint64_t draft_tokens, uint64_t accepted_tokens, uint64_t generated,
                      std::FILE* out);

}  // namespace lowbit::app
