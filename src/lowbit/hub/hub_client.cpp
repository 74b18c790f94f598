#include "lowbit/hub/hub_client.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit::hub {

namespace {

constexpr auto kTick = std::chrono::milliseconds(20);  // between looks at stop() in a pause

bool is_redirect(const HttpAnswer& answer) {
  const int status = answer.status;
  return (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) &&
         !answer.field("location").empty();
}

bool may_pass(const HttpAnswer& answer) {
  if (answer.hopeless) return false;
  switch (answer.status) {
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return true;
    default:
      return !answer.fault.empty() || answer.status == 200 || answer.status == 206;
  }
}

}  // namespace

std::string shown(const std::string& text) {
  constexpr size_t kLongest = 200;
  std::string line;
  for (const char c : text.substr(0, kLongest)) line += c >= ' ' && c != 0x7f ? c : ' ';
  return line;
}

HubClient::HubClient(HubSettings settings, RetryPolicy policy, std::function<bool()> stop)
    : settings_(std::move(settings)),
      policy_(policy),
      stop_(std::move(stop)),
      origin_(origin_of(settings_.endpoint)),
      http_(policy.times, stop_) {
  LOWBIT_CHECK(!origin_.empty(), "the hub's endpoint \"", settings_.endpoint,
               "\" is no http or https address (HF_ENDPOINT)");
}

std::vector<std::string> HubClient::with_token(std::vector<std::string> fields,
                                               const std::string& url) const {
  if (!settings_.token.empty() && origin_of(url) == origin_) {
    fields.push_back("Authorization: Bearer " + settings_.token);
  }
  return fields;
}

HttpAnswer HubClient::get(const std::string& url, std::vector<std::string> fields,
                          const HttpClient::Sink& sink, HttpAnswer* first) {
  std::string at = url;
  for (int hop = 0; hop <= limits::kHubRedirects; ++hop) {
    HttpAnswer answer = http_.request({at, with_token(fields, at)}, sink);
    if (hop == 0 && first != nullptr) *first = answer;
    if (!is_redirect(answer)) return answer;
    const std::string next = resolve_url(at, answer.field("location"));
    LOWBIT_CHECK_KIND(
        !origin_of(next).empty(), ErrorKind::kIo, at,
        ": redirects to what is no http or https address: ", shown(answer.field("location")));
    LOWBIT_CHECK_KIND(!(at.starts_with("https:") && next.starts_with("http:")), ErrorKind::kIo, at,
                      ": redirects from https to http (", shown(origin_of(next)), "); refused");
    at = next;
  }
  fail(ErrorKind::kIo, url, ": more than ", limits::kHubRedirects, " redirects");
}

HttpAnswer HubClient::head(const std::string& url) {
  std::string at = url;
  for (int hop = 0; hop <= limits::kHubRedirects; ++hop) {
    HttpAnswer answer = http_.request({at, with_token({}, at), true}, {});
    if (!is_redirect(answer)) return answer;
    const std::string next = resolve_url(at, answer.field("location"));
    if (origin_of(next) != origin_) return answer;
    at = next;
  }
  fail(ErrorKind::kIo, url, ": more than ", limits::kHubRedirects, " redirects");
}

std::string HubClient::get_text(const std::string& url, size_t max_bytes, const std::string& what) {
  Attempts attempts(*this, what);
  for (;;) {
    std::string text;
    const HttpAnswer answer = get(url, {}, [&](const HttpAnswer&, std::string_view bytes) {
      LOWBIT_CHECK_KIND(text.size() + bytes.size() <= max_bytes, ErrorKind::kCorruptFile, what,
                        ": the hub sends more than ", max_bytes, " bytes");
      text += bytes;
    });
    if (answer.whole() && answer.status == 200) return text;
    attempts.failed(answer);
  }
}

double Attempts::pause_after(const HttpAnswer& answer) {
  if (answer.retry_after > 0) return answer.retry_after;
  const RetryPolicy& policy = client_.policy_;
  double pause = policy.first_pause;
  for (int i = 1; i < failures_; ++i) pause = std::min(2 * pause, policy.longest_pause);
  return pause;
}

void Attempts::failed(const HttpAnswer& answer) {
  LOWBIT_CHECK_KIND(!client_.stopped(), ErrorKind::kIo, what_, ": interrupted");
  const RetryPolicy& policy = client_.policy_;
  ++failures_;
  if (!may_pass(answer) || failures_ >= policy.attempts) give_up(answer);
  const double pause = pause_after(answer);
  if (pause > policy.longest_retry_after) give_up(answer);
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(pause);
  while (std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(kTick);
    LOWBIT_CHECK_KIND(!client_.stopped(), ErrorKind::kIo, what_, ": interrupted");
  }
}

void Attempts::give_up(const HttpAnswer& answer) const {
  const HubSettings& hub = client_.settings();
  const std::string& code = answer.field("x-error-code");
  const std::string said = shown(answer.field("x-error-message"));
  const std::string detail = said.empty() ? "" : " (\"" + said + "\")";
  switch (answer.status) {
    case 401:
    case 403:
      fail(ErrorKind::kIo, what_, ": ", hub.endpoint,
           code == "GatedRepo" ? " wants its conditions accepted on the model's page, and a token"
           : hub.token.empty() ? " wants a token, or there is no such model"
                               : " refuses the token",
           detail, "; set HF_TOKEN to one that may read it");
    case 404:
      fail(ErrorKind::kIo, what_, ": ", hub.endpoint,
           code == "RevisionNotFound" ? " has no such revision" : " has no such thing", detail);
    case 429:
      fail(ErrorKind::kIo, what_, ": ", hub.endpoint, " has had too many requests",
           answer.retry_after > 0 ? concat(" and asks to wait ", answer.retry_after, " s") : "",
           "; run again later, or with a token (HF_TOKEN)");
    default:
      break;
  }
  if (answer.status != 0 && answer.fault.empty()) {
    fail(ErrorKind::kIo, what_, ": ", hub.endpoint, " answers with status ", answer.status, detail);
  }
  fail(ErrorKind::kIo, what_, ": ", answer.fault, " (", hub.endpoint,
       "); run again to go on from here");
}

}  // namespace lowbit::hub
