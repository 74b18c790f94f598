// The OpenAI API over loopback, with a tiny model.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "server/tiny_server.h"

namespace lowbit {
namespace {

using test::Response;
using test::TinyServer;

OrderedJson with(OrderedJson body, const OrderedJson& more) {
  body.update(more);
  return body;
}

const OrderedJson kPrompt = {{"model", "tiny"},
                             {"prompt", "Hello"},
                             {"max_tokens", 12},
                             {"temperature", 0},
                             {"ignore_eos", true}};
const OrderedJson kChat = {{"model", "tiny"},
                           {"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                           {"max_completion_tokens", 12},
                           {"temperature", 0},
                           {"ignore_eos", true}};

TEST(Api, Completion) {
  const TinyServer server;
  const Response response = server.post("/v1/completions", kPrompt);
  ASSERT_EQ(response.status, 200) << response.body;
  const OrderedJson json = response.json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("cmpl-"));
  ASSERT_EQ(json["choices"].size(), 1u);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(json["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
  EXPECT_EQ(json["usage"]["total_tokens"], 17);
  EXPECT_NE(response.head.find("X-Request-Id: req_"), std::string::npos);
}

TEST(Api, AStreamJoinedIsTheAnswer) {
  const TinyServer server;
  const OrderedJson whole = server.post("/v1/completions", kPrompt).json();
  const Response stream =
      server.post("/v1/completions",
                  with(kPrompt, {{"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  EXPECT_NE(stream.head.find("text/event-stream"), std::string::npos);
  EXPECT_TRUE(stream.done());
  std::string text, reason;
  OrderedJson usage;
  for (const OrderedJson& event : stream.events()) {
    if (event.contains("usage") && !event["usage"].is_null()) usage = event["usage"];
    if (event["choices"].empty()) continue;
    text += event["choices"][0]["text"];
    if (event["choices"][0]["finish_reason"].is_string())
      reason = event["choices"][0]["finish_reason"];
  }
  EXPECT_EQ(text, whole["choices"][0]["text"]);
  EXPECT_EQ(reason, "length");
  EXPECT_EQ(usage["completion_tokens"], 12);
}

TEST(Api, PromptsMayBeManyAndTokenIds) {
  const TinyServer server;
  const OrderedJson ids = server.post("/tokenize", {{"prompt", "Hello"}}).json()["tokens"];
  const OrderedJson one = server.post("/v1/completions", kPrompt).json();
  const std::string text = one["choices"][0]["text"];
  for (const OrderedJson& prompt :
       {OrderedJson(ids), OrderedJson::array({"Hello"}), OrderedJson::array({ids})}) {
    const OrderedJson json =
        server.post("/v1/completions", with(kPrompt, {{"prompt", prompt}})).json();
    EXPECT_EQ(json["choices"][0]["text"], text) << prompt;
  }
  const OrderedJson many =
      server
          .post("/v1/completions",
                with(kPrompt, {{"prompt", {"Hello", "World", "Hello"}}, {"n", 2}}))
          .json();
  ASSERT_EQ(many["choices"].size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(many["choices"][i]["index"], i);
  EXPECT_EQ(many["choices"][0]["text"], text);
  EXPECT_EQ(many["choices"][4]["text"], text);
  EXPECT_EQ(many["usage"]["completion_tokens"], 72);
}

TEST(Api, EchoWithLogprobsScoresThePrompt) {
  const TinyServer server;
  const OrderedJson json =
      server.post("/v1/completions", with(kPrompt, {{"echo", true}, {"logprobs", 2}})).json();
  const OrderedJson& logprobs = json["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 17u) << json;
  EXPECT_EQ(logprobs["tokens"][0], "H");
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  for (int i = 1; i < 17; ++i) {
    EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0);
    EXPECT_GE(logprobs["top_logprobs"][i].size(), 2u);
    EXPECT_EQ(logprobs["text_offset"][i], i);
  }
  std::string joined;
  for (const OrderedJson& token : logprobs["tokens"]) joined += token;
  EXPECT_EQ(joined, json["choices"][0]["text"]);

  const OrderedJson scored =
      server
          .post("/v1/completions",
                with(kPrompt, {{"echo", true}, {"logprobs", 1}, {"max_tokens", 0}}))
          .json();
  EXPECT_EQ(scored["choices"][0]["text"], "Hello") << scored;
  EXPECT_EQ(scored["choices"][0]["logprobs"]["tokens"].size(), 5u);
  EXPECT_EQ(scored["choices"][0]["logprobs"]["token_logprobs"][3], logprobs["token_logprobs"][3]);
}

TEST(Api, ChatWholeAndStreamed) {
  const TinyServer server;
  const OrderedJson whole = server.post("/v1/chat/completions", kChat).json();
  EXPECT_EQ(whole["object"], "chat.completion") << whole;
  const OrderedJson& message = whole["choices"][0]["message"];
  EXPECT_EQ(message["role"], "assistant");
  EXPECT_EQ(whole["usage"]["prompt_tokens"], 7);  // "u:Hi\na:"

  const Response stream = server.post("/v1/chat/completions", with(kChat, {{"stream", true}}));
  std::string text;
  const auto events = stream.events();
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.front()["choices"][0]["delta"]["role"], "assistant");
  for (const OrderedJson& event : events) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    text += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(text, message["content"]);
  EXPECT_TRUE(stream.done());
}

TEST(Api, ChatLogprobsChoicesAndSeeds) {
  const TinyServer server;
  const OrderedJson body = with(
      kChat, {{"n", 3}, {"temperature", 2}, {"seed", 5}, {"logprobs", true}, {"top_logprobs", 2}});
  const OrderedJson json = server.post("/v1/chat/completions", body).json();
  ASSERT_EQ(json["choices"].size(), 3u) << json;
  EXPECT_NE(json["choices"][0]["message"]["content"], json["choices"][1]["message"]["content"]);
  const OrderedJson& entry = json["choices"][1]["logprobs"]["content"][0];
  EXPECT_EQ(json["choices"][1]["logprobs"]["content"].size(), 12u);
  EXPECT_EQ(entry["top_logprobs"].size(), 2u);
  EXPECT_TRUE(entry["bytes"].is_array());
  EXPECT_EQ(server.post("/v1/chat/completions", body).json()["choices"], json["choices"]);
}

TEST(Api, StopStringsAndTokens) {
  const TinyServer server;
  const std::string text = server.post("/v1/completions", kPrompt).json()["choices"][0]["text"];
  const auto ascii = [&](size_t at) { return static_cast<uint8_t>(text[at]) < 0x80; };
  size_t at = 1;  // two characters somewhere inside
  while (at + 2 < text.size() && !(ascii(at) && ascii(at + 1))) ++at;
  ASSERT_LT(at + 2, text.size()) << text;
  const std::string stop = text.substr(at, 2);
  const OrderedJson json =
      server.post("/v1/completions", with(kPrompt, {{"stop", {stop, "never"}}})).json();
  EXPECT_EQ(json["choices"][0]["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["choices"][0]["stop_reason"], stop);
}

TEST(Api, AnswersFollowTheirGuides) {
  const TinyServer server;
  const OrderedJson schema = {{"type", "object"},
                              {"properties",
                               {{"a", {{"type", "integer"}, {"minimum", 0}, {"maximum", 99}}},
                                {"b", {{"enum", {"x", "y"}}}}}},
                              {"required", {"a", "b"}},
                              {"additionalProperties", false}};
  const OrderedJson free =
      with(kChat, {{"temperature", 1.5}, {"max_completion_tokens", 80}, {"ignore_eos", false}});
  for (int seed = 0; seed < 10; ++seed) {
    const auto content = [&](const OrderedJson& more) {
      const OrderedJson json =
          server.post("/v1/chat/completions", with(with(free, {{"seed", seed}}), more)).json();
      EXPECT_EQ(json["choices"][0]["finish_reason"], "stop") << json;
      return json["choices"][0]["message"]["content"].get<std::string>();
    };
    const OrderedJson value = OrderedJson::parse(content(
        {{"response_format",
          {{"type", "json_schema"}, {"json_schema", {{"name", "s"}, {"schema", schema}}}}}}));
    EXPECT_TRUE(value["a"].is_number_integer() && value["a"] >= 0 && value["a"] <= 99);
    EXPECT_TRUE(value["b"] == "x" || value["b"] == "y");
    const std::string choice = content({{"guided_choice", {"yes", "no"}}});
    EXPECT_TRUE(choice == "yes" || choice == "no") << choice;
    const std::string number = content({{"structured_outputs", {{"regex", "[1-9]{3}"}}}});
    EXPECT_EQ(number.size(), 3u);
    EXPECT_EQ(content({{"guided_grammar", "root ::= \"ab\" | \"cd\""}}).size(), 2u);
  }
}

TEST(Api, ToolsAreCalledWhenTheyMust) {
  const TinyServer server;
  const OrderedJson tool = {
      {"type", "function"},
      {"function",
       {{"name", "f"},
        {"parameters",
         {{"type", "object"}, {"properties", {{"x", {{"enum", {1, 2}}}}}}, {"required", {"x"}}}}}}};
  const OrderedJson body = with(kChat, {{"tools", OrderedJson::array({tool})},
                                        {"tool_choice", "required"},
                                        {"parallel_tool_calls", false},
                                        {"ignore_eos", false},
                                        {"max_completion_tokens", 80}});
  const OrderedJson json = server.post("/v1/chat/completions", body).json();
  const OrderedJson& choice = json["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << json;
  EXPECT_TRUE(choice["message"]["content"].is_null());
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const OrderedJson& function = choice["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(function["name"], "f");
  const std::string arguments = function["arguments"];
  EXPECT_TRUE(OrderedJson::parse(arguments)["x"].is_number_integer());

  std::string streamed, name, reason;
  for (const OrderedJson& event :
       server.post("/v1/chat/completions", with(body, {{"stream", true}})).events()) {
    const OrderedJson& delta = event["choices"][0]["delta"];
    if (event["choices"][0]["finish_reason"].is_string())
      reason = event["choices"][0]["finish_reason"];
    if (!delta.contains("tool_calls")) continue;
    streamed += delta["tool_calls"][0]["function"]["arguments"];
    name += delta["tool_calls"][0]["function"].value("name", "");
  }
  EXPECT_EQ(streamed, arguments);
  EXPECT_EQ(name, "f");
  EXPECT_EQ(reason, "tool_calls");

  const OrderedJson named =
      server
          .post(
              "/v1/chat/completions",
              with(body, {{"tool_choice", {{"type", "function"}, {"function", {{"name", "f"}}}}}}))
          .json();
  EXPECT_EQ(named["choices"][0]["message"]["tool_calls"].size(), 1u) << named;
}

TEST(Api, Responses) {
  const TinyServer server;
  const OrderedJson body = {{"model", "tiny"},
                            {"input", "Hi"},
                            {"max_output_tokens", 12},
                            {"temperature", 0},
                            {"ignore_eos", true}};
  const OrderedJson json = server.post("/v1/responses", body).json();
  EXPECT_EQ(json["object"], "response") << json;
  EXPECT_EQ(json["status"], "incomplete");
  EXPECT_EQ(json["incomplete_details"]["reason"], "max_output_tokens");
  const std::string text = json["output"][0]["content"][0]["text"];
  EXPECT_EQ(text,
            server.post("/v1/chat/completions", kChat).json()["choices"][0]["message"]["content"]);
  EXPECT_EQ(json["usage"]["output_tokens"], 12);

  std::vector<std::string> types;
  std::string streamed;
  int64_t sequence = 0;
  for (const OrderedJson& event :
       server.post("/v1/responses", with(body, {{"stream", true}})).events()) {
    EXPECT_EQ(event["sequence_number"], sequence++);
    const std::string type = event["type"];
    if (types.empty() || types.back() != type) types.push_back(type);
    if (type == "response.output_text.delta") streamed += event["delta"];
    if (type == "response.incomplete") {
      EXPECT_EQ(event["response"]["output"][0]["content"][0]["text"], text);
    }
  }
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(types, (std::vector<std::string>{
                       "response.created", "response.in_progress", "response.output_item.added",
                       "response.content_part.added", "response.output_text.delta",
                       "response.output_text.done", "response.content_part.done",
                       "response.output_item.done", "response.incomplete"}));

  const OrderedJson tools = OrderedJson::array(
      {{{"type", "function"}, {"name", "f"}, {"parameters", OrderedJson::object()}}});
  const OrderedJson call = server
                               .post("/v1/responses", with(body, {{"tools", tools},
                                                                  {"tool_choice", "required"},
                                                                  {"ignore_eos", false},
                                                                  {"max_output_tokens", 80}}))
                               .json();
  EXPECT_EQ(call["output"][0]["type"], "function_call") << call;
  EXPECT_EQ(call["output"][0]["name"], "f");
}

TEST(Api, TokensModelsAndTheRest) {
  const TinyServer server;
  const OrderedJson tokens =
      server.post("/tokenize", {{"prompt", "Hi !"}, {"return_token_strs", true}}).json();
  EXPECT_EQ(tokens["count"], 4);
  EXPECT_EQ(tokens["max_model_len"], test::kServedContext);
  EXPECT_EQ(tokens["token_strs"].size(), 4u);
  EXPECT_EQ(server.post("/detokenize", {{"tokens", tokens["tokens"]}}).json()["prompt"], "Hi !");
  EXPECT_EQ(server.post("/tokenize", {{"messages", kChat["messages"]}}).json()["count"], 7);

  EXPECT_EQ(server.get("/v1/models").json()["data"][0]["id"], "tiny");
  EXPECT_EQ(server.get("/v1/models/org%2Ftiny").json()["id"], "org/tiny");
  EXPECT_EQ(server.get("/v1/models/org/tiny").json()["id"], "org/tiny");
  EXPECT_EQ(server.get("/v1/models/other").status, 404);
  EXPECT_EQ(server.get("/version").json()["version"], "1.2.3");
  EXPECT_EQ(server.get("/health").status, 200);
  EXPECT_EQ(server.get("/ready").status, 200);
  EXPECT_EQ(server.get("/openapi.json").json()["openapi"], "3.1.0");
  const Response page = server.get("/");
  EXPECT_NE(page.body.find("<!doctype html>"), std::string::npos);
  EXPECT_NE(page.head.find("script-src 'sha256-"), std::string::npos);
  server.post("/v1/completions", kPrompt);
  // A request is counted right after its answer has left.
  const std::vector<std::string> expected = {
      "vllm:generation_tokens_total{model_name=\"tiny\"} 12\n",
      "# TYPE vllm:time_to_first_token_seconds histogram\n",
      "vllm:e2e_request_latency_seconds_count{model_name=\"tiny\"} 1\n",
      "vllm:num_requests_running{model_name=\"tiny\"} 0\n",
      "handler=\"/v1/completions\",status=\"200\"} 1\n"};
  std::string metrics;
  const auto missing = [&] {
    return std::find_if(expected.begin(), expected.end(), [&](const std::string& line) {
      return metrics.find(line) == std::string::npos;
    });
  };
  for (int i = 0; i < 500 && missing() != expected.end(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    metrics = server.get("/metrics").body;
  }
  EXPECT_EQ(missing(), expected.end()) << metrics;
}

TEST(Api, RefusalsNameWhatIsWrong) {
  const TinyServer server;
  struct Case {
    const char* path;
    OrderedJson body;
    int status;
    const char* param;
  };
  const char* const completions = "/v1/completions";
  const char* const chat = "/v1/chat/completions";
  const Case cases[] = {
      {completions, with(kPrompt, {{"model", "other"}}), 404, "model"},
      {completions, {{"model", "tiny"}}, 400, "prompt"},
      {completions, with(kPrompt, {{"prompt", 5}}), 400, "prompt"},
      {completions, with(kPrompt, {{"prompt", {1, 2, 1000000}}}), 400, "prompt"},
      {completions, with(kPrompt, {{"prompt", {-1}}}), 400, "prompt"},
      {completions, with(kPrompt, {{"prompt", ""}}), 400, "prompt"},
      {completions, with(kPrompt, {{"prompt", std::string(200, 'a')}}), 400, "prompt"},
      {completions, with(kPrompt, {{"max_tokens", 0}}), 400, "max_tokens"},
      {completions, with(kPrompt, {{"max_tokens", 1000}}), 400, "prompt"},
      {completions, with(kPrompt, {{"temperature", -1}}), 400, "temperature"},
      {completions, with(kPrompt, {{"temperature", "hot"}}), 400, "temperature"},
      {completions, with(kPrompt, {{"top_p", 1.5}}), 400, "top_p"},
      {completions, with(kPrompt, {{"n", 1000000000000000000}}), 400, "n"},
      {completions, with(kPrompt, {{"n", 100}}), 400, "n"},
      {completions, with(kPrompt, {{"n", 1.5}}), 400, "n"},
      {completions, with(kPrompt, {{"n", 3}, {"best_of", 2}}), 400, "best_of"},
      {completions, with(kPrompt, {{"suffix", "x"}}), 400, "suffix"},
      {completions, with(kPrompt, {{"logit_bias", {{"x", 1}}}}), 400, "logit_bias"},
      {completions, with(kPrompt, {{"logit_bias", {{"5000", 1}}}}), 400, "logit_bias"},
      {completions, with(kPrompt, {{"logit_bias", {{"5", 1e9}}}}), 400, "logit_bias"},
      {completions, with(kPrompt, {{"stop", {1}}}), 400, "stop"},
      {completions, with(kPrompt, {{"stream_options", OrderedJson::object()}}), 400,
       "stream_options"},
      {completions, with(kPrompt, {{"guided_regex", "("}}), 400, "guided_regex"},
      {completions, with(kPrompt, {{"guided_regex", "a"}, {"guided_choice", {"a"}}}), 400,
       "guided_choice"},
      {completions, with(kPrompt, {{"use_beam_search", true}}), 400, "use_beam_search"},
      {chat, {{"model", "tiny"}}, 400, "messages"},
      {chat, with(kChat, {{"messages", OrderedJson::array()}}), 400, "messages"},
      {chat, with(kChat, {{"messages", {{{"content", "x"}}}}}), 400, "messages[0].role"},
      {chat, with(kChat, {{"messages", {{{"role", "user"}}}}}), 400, "messages[0].content"},
      {chat, with(kChat, {{"top_logprobs", 2}}), 400, "top_logprobs"},
      {chat, with(kChat, {{"tool_choice", "required"}}), 400, "tool_choice"},
      {chat, with(kChat, {{"tools", {{{"type", "function"}}}}}), 400, "tools"},
      {chat, with(kChat, {{"chat_template", "x"}}), 400, "chat_template"},
      {chat, with(kChat, {{"response_format", {{"type", "xml"}}}}), 400, "response_format.type"},
      {chat,
       with(kChat, {{"response_format",
                     {{"type", "json_schema"}, {"json_schema", {{"schema", {{"not", true}}}}}}}}),
       400, "response_format"},
      {"/v1/responses", {{"model", "tiny"}}, 400, "input"},
      {"/v1/responses",
       {{"input", "x"}, {"previous_response_id", "resp_1"}},
       400,
       "previous_response_id"},
      {"/detokenize", {{"tokens", {100000}}}, 400, "tokens"},
  };
  for (const Case& bad : cases) {
    const Response response = server.post(bad.path, bad.body);
    EXPECT_EQ(response.status, bad.status) << bad.body << response.body;
    const OrderedJson error = response.json()["error"];
    EXPECT_EQ(error["param"], bad.param) << bad.body << response.body;
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_FALSE(error["message"].get<std::string>().empty());
  }
  EXPECT_EQ(
      server.post(completions, with(kPrompt, {{"unknown", {1, 2}}, {"top_p", nullptr}})).status,
      200);
}

TEST(Api, BodiesThatAreNotJsonAreRefused) {
  const TinyServer server;
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"a\": NaN}"),
        std::string("{\"prompt\": \"\\ud800\"}"), std::string("{\"prompt\": \"\xff\"}"),
        std::string("{\"n\": 1, \"n\": 2}"), std::string(100'000, '['),
        "{\"prompt\": " + std::string(100, '[') + std::string(100, ']') + "}",
        std::string("{\"prompt\": \"a\0b\"}", 17)}) {
    EXPECT_EQ(server.post_text("/v1/completions", body).status, 400) << body.substr(0, 60);
  }
  std::string wide = "{\"a0\": 1";
  for (int i = 1; i < 5'000; ++i) wide += ", \"a" + std::to_string(i) + "\": 1";
  EXPECT_EQ(server.post_text("/v1/completions", wide + "}").status, 400);
  EXPECT_EQ(test::exchange(server.port(),
                           "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                           "Content-Type: text/plain\r\nContent-Length: 2\r\n"
                           "Connection: close\r\n\r\n{}")
                .status,
            400);
}

}  // namespace
}  // namespace lowbit
