// The program from outside: exit codes, what is on which stream, JSON, bad input.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "support/tiny_folder.h"

namespace lowbit {
namespace {

struct Output {
  int code = -1;
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  void SetUp() override { test::write_tiny_folder(model(), test::tiny_folder_config()); }

  std::string model() const { return folder_ / "model"; }

  // Runs `lowbit` with no input. Arguments must not hold quotes.
  Output run(const std::string& arguments, const std::string& environment = "") {
    const std::string command = environment + " " + LOWBIT_PROGRAM + " " + arguments + " >" +
                                (folder_ / "out") + " 2>" + (folder_ / "err") + " </dev/null";
    const int status = std::system(command.c_str());
    Output output;
    output.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    output.out = read_file(folder_ / "out", 1 << 26);
    output.err = read_file(folder_ / "err", 1 << 26);
    return output;
  }

  Json json(const std::string& arguments) {
    const Output output = run(arguments);
    EXPECT_EQ(output.code, 0) << output.err;
    return parse_json(output.out, "output");
  }

  test::TemporaryFolder folder_;
};

TEST_F(Cli, HelpOnEveryLevelHasAnExample) {
  for (const char* command :
       {"", "run", "chat", "quantize", "perplexity", "divergence", "verify", "compare", "bench",
        "bench latency", "bench tokenizer", "bench kernels", "bench roofline", "bench throughput",
        "inspect", "tokenize", "serve", "pull"}) {
    const Output output = run(std::string(command) + " --help");
    EXPECT_EQ(output.code, 0) << command;
    EXPECT_NE(output.out.find("Example"), std::string::npos) << command;
    EXPECT_EQ(output.err, "") << command;
  }
}

TEST_F(Cli, UsageErrorsExitWithTwo) {
  for (const char* arguments : {"", "fly", "run", "run -m x --no-such-flag", "run -m x -n lots",
                                "perplexity -m x -f y --protocol mine", "tokenize -m x", "pull",
                                "bench throughput -m x --max-concurrency 3"}) {
    const Output output = run(arguments);
    EXPECT_EQ(output.code, 2) << arguments;
    EXPECT_EQ(output.err.rfind("error: ", 0), 0u) << arguments << ": " << output.err;
    EXPECT_EQ(output.out, "") << arguments;
  }
}

TEST_F(Cli, FailuresExitWithOneAndSayWhat) {
  const Output missing = run("run -m /no/such/model -p Hello");
  EXPECT_EQ(missing.code, 1);
  EXPECT_NE(missing.err.find("/no/such/model"), std::string::npos);
  write_file_atomic(folder_ / "bad.gguf", "GGUF????");
  const Output corrupt = run("inspect " + (folder_ / "bad.gguf"));
  EXPECT_EQ(corrupt.code, 1);
  EXPECT_NE(corrupt.err.find("bad.gguf"), std::string::npos);
  write_file_atomic(folder_ / "latin1.txt", "caf\xe9");
  const Output encoding = run("run -m " + model() + " -f " + (folder_ / "latin1.txt"));
  EXPECT_EQ(encoding.code, 1);
  EXPECT_NE(encoding.err.find("byte 3"), std::string::npos) << encoding.err;
}

TEST_F(Cli, StandardOutputHoldsTheTextOnly) {
  const std::string arguments = "run -m " + model() + " -p Hello -n 12 --seed 7";
  const Output plain = run(arguments);
  ASSERT_EQ(plain.code, 0) << plain.err;
  const Json object = json(arguments + " --json");
  EXPECT_EQ(plain.out, object["text"].get<std::string>());
  for (const char* key : {"prompt_tokens", "prompt_ids", "ids", "text", "finish_reason",
                          "prefill_tok_s", "decode_tok_s"}) {
    EXPECT_TRUE(object.contains(key)) << key;
  }
  EXPECT_EQ(object["prompt_tokens"], object["prompt_ids"].size());
  EXPECT_LE(object["ids"].size(), 12u);
}

TEST_F(Cli, TheSameSeedGivesTheSameTextOnAnyNumberOfThreads) {
  const std::string arguments = "run -m " + model() + " -p Hello -n 24 --temp 1.5 --seed 3 --json";
  const Json one = json(arguments + " -t 1");
  EXPECT_EQ(one["ids"], json(arguments + " -t 2")["ids"]);
  EXPECT_EQ(one["ids"], json(arguments + " -t 3 -b 2")["ids"]);
  EXPECT_NE(one["ids"],
            json("run -m " + model() + " -p Hello -n 24 --temp 1.5 --seed 4 --json")["ids"]);
}

TEST_F(Cli, StopEndsTheAnswerBeforeTheStopText) {
  const Json whole = json("run -m " + model() + " -p Hello -n 24 --seed 7 --ignore-eos --json");
  const std::string text = whole["text"];
  size_t letter = 4;
  while (letter < text.size() && std::isalnum(static_cast<unsigned char>(text[letter])) == 0) {
    ++letter;
  }
  if (letter >= text.size()) GTEST_SKIP() << "the random model wrote no letter";
  const std::string stop(1, text[letter]);
  const Json cut =
      json("run -m " + model() + " -p Hello -n 24 --seed 7 --ignore-eos --json --stop " + stop);
  EXPECT_EQ(cut["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(cut["finish_reason"], "stop");
}

TEST_F(Cli, BackendsAgree) {
  const std::string arguments =
      "run -m " + model() + " -p Hello -n 16 --temp 0 --ignore-eos --json";
  EXPECT_EQ(json(arguments + " --backend ref")["ids"],
            json(arguments + " --backend cpu --activations f32")["ids"]);
}

TEST_F(Cli, TokenizePrintsIds) {
  const Json object = json("tokenize -m " + model() + " -p Hello --json");
  const std::vector<int> hello = {'H', 'e', 'l', 'l', 'o'};
  EXPECT_EQ(object["ids"].size(), hello.size()) << object.dump();
}

TEST_F(Cli, InspectDescribes) {
  const Json object = json("inspect " + model() + " --json");
  EXPECT_EQ(object["family"], "llama");
  EXPECT_EQ(object["layers"], 2);
  EXPECT_GT(object["parameters"], 0);
  EXPECT_FALSE(object["tensors"].empty());
}

TEST_F(Cli, QuantizeWritesWhatRunAndPerplexityRead) {
  const std::string out = folder_ / "w4";
  const Output made = run("quantize -m " + model() + " -o " + out + " --bits 4 --group-size 32");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_EQ(json("run -m " + out + " -p Hello -n 4 --temp 0 --json")["prompt_tokens"], 5);
  std::string text;
  for (int i = 0; i < 200; ++i) text += "some words ";
  write_file_atomic(folder_ / "text", text);
  const Json result = json("perplexity -m " + out + " -f " + (folder_ / "text") + " -c 32 --json");
  for (const char* key : {"protocol", "ctx", "chunks", "tokens", "ppl", "stderr", "tok_s"}) {
    EXPECT_TRUE(result.contains(key)) << key;
  }
  EXPECT_GT(result["ppl"], 1.0);
  const Json rows = json("bench latency -m " + out + " -p 8 -n 4 -r 2 --json");
  for (const char* key : {"prefill_tok_s", "decode_tok_s", "weight_gb_s", "peak_memory_mib"}) {
    EXPECT_TRUE(rows.at(0).contains(key)) << key;
  }
  const Output again = run("quantize -m " + model() + " -o " + out + " --bits 4 --group-size 32");
  EXPECT_EQ(again.code, 1);
  EXPECT_NE(again.err.find("--force"), std::string::npos) << again.err;
}

TEST_F(Cli, ImpossibleQuantizationsListThePossible) {
  const std::string start = "quantize -m " + model() + " -o " + (folder_ / "x") + " ";
  const Output method = run(start + "--method magic");
  EXPECT_EQ(method.code, 1);
  EXPECT_NE(method.err.find("rtn"), std::string::npos);
  const Output group = run(start + "--group-size 128");  // down_proj has 160 columns
  EXPECT_EQ(group.code, 1);
  EXPECT_NE(group.err.find("down_proj"), std::string::npos) << group.err;
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST_F(Cli, CompareQuantizesAndReports) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += concat("line ", i, " of a text\n");
  test::write_text(folder_ / "text", text);
  const std::string start = "compare -m " + model() + " -f " + (folder_ / "text") + " ";
  const std::string small =
      "-c 16 --chunks 2 speed.prompt=8 speed.decode=4 speed.repetitions=1 divergence.context=32 "
      "divergence.chunks=2 defaults.group_size=32 ";
  const std::string made = start + small + "--methods rtn,nf4 -o " + (folder_ / "report");
  const Json rows = json(made + " --json");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1]["method"], "rtn");
  EXPECT_GT(rows[2]["kl"], 0.0);
  EXPECT_TRUE(fs::exists(folder_ / "report/report.html"));
  const Output table = run(made);
  EXPECT_EQ(table.code, 0);
  EXPECT_NE(table.out.find("decode tok/s"), std::string::npos) << table.out;
  EXPECT_EQ(table.err, (folder_ / "report/report.html") + "\n");  // nothing was left to do

  // Checkpoints as they are; nothing is written.
  const Json given = json(start + small + (folder_ / "report/models/nf4") + " --json");
  ASSERT_EQ(given.size(), 2u);
  EXPECT_EQ(given[1]["method"], "nf4");

  const Output key = run(made + " eval.contxt=3");
  EXPECT_EQ(key.code, 1);
  EXPECT_NE(key.err.find("eval has no \"contxt\"; possible are: context"), std::string::npos)
      << key.err;
  EXPECT_EQ(run(start + "--methods gptq -o " + (folder_ / "r2")).code, 1);  // no --calibration
}

TEST_F(Cli, AnUnknownInstructionSetIsAnError) {
  const Output output = run("run -m " + model() + " -p Hello -n 1", "LOWBIT_CPU_ISA=mmx");
  EXPECT_EQ(output.code, 1);
  EXPECT_NE(output.err.find("mmx"), std::string::npos);
}

}  // namespace
}  // namespace lowbit
