#include "lowbit/hub/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/base/version.h"

namespace lowbit::hub {

namespace {

struct CurlDeleter {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  void operator()(char* text) const { curl_free(text); }
};
template <typename T>
using CurlPtr = std::unique_ptr<T, CurlDeleter>;

bool hopeless_fault(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_ABORTED_BY_CALLBACK:
    case CURLE_OUT_OF_MEMORY:
      return true;
    default:
      return false;
  }
}

std::string part(CURLU* url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, which, &text, flags) != CURLUE_OK) return "";
  const CurlPtr<char> owner(text);
  return text;
}

CurlPtr<CURLU> parse_url(const std::string& text) {
  CurlPtr<CURLU> url(curl_url());
  if (url && curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) url.reset();
  return url;
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

std::string_view trimmed(std::string_view text) {
  const char* blanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

}  // namespace

struct HttpClient::Impl {
  HttpTimes times;
  std::function<bool()> stop;
  CurlPtr<CURL> curl;

  // Of the request that runs.
  HttpAnswer answer;
  const Sink* sink = nullptr;
  std::exception_ptr thrown;

  static size_t on_field(char* data, size_t size, size_t count, void* self);
  static size_t on_body(char* data, size_t size, size_t count, void* self);
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t);

  template <typename Value>
  void set(CURLoption option, Value value) {
    const CURLcode code = curl_easy_setopt(curl.get(), option, value);
    LOWBIT_CHECK_KIND(code == CURLE_OK, ErrorKind::kUnsupported,
                      "libcurl refuses an option: ", curl_easy_strerror(code));
  }
  void configure();
};

size_t HttpClient::Impl::on_field(char* data, size_t size, size_t count, void* self) {
  HttpAnswer& answer = static_cast<Impl*>(self)->answer;
  const std::string_view line(data, size * count);
  try {
    if (line.starts_with("HTTP/")) answer.fields.clear();  // of an interim answer
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return line.size();
    if (answer.fields.size() >= limits::kHubHeaderFields) return 0;
    answer.fields[lower(std::string(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
  } catch (...) {
    static_cast<Impl*>(self)->thrown = std::current_exception();
    return 0;
  }
  return line.size();
}

size_t HttpClient::Impl::on_body(char* data, size_t size, size_t count, void* self) {
  Impl& impl = *static_cast<Impl*>(self);
  const std::string_view bytes(data, size * count);
  try {
    long status = 0;
    curl_easy_getinfo(impl.curl.get(), CURLINFO_RESPONSE_CODE, &status);
    impl.answer.status = static_cast<int>(status);
    if (status == 200 || status == 206) {
      if (*impl.sink) (*impl.sink)(impl.answer, bytes);
    } else {
      std::string& kept = impl.answer.error_body;
      kept.append(bytes.substr(0, limits::kHubErrorBytes - kept.size()));
    }
  } catch (...) {
    impl.thrown = std::current_exception();
    return 0;
  }
  return bytes.size();
}

int HttpClient::Impl::on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const Impl& impl = *static_cast<Impl*>(self);
  return impl.stop && impl.stop() ? 1 : 0;
}

void HttpClient::Impl::configure() {
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_USERAGENT, concat("lowbit/", kVersion).c_str());
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(times.connect_seconds * 1000));
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME, std::max(1L, static_cast<long>(times.stall_seconds)));
  set(CURLOPT_BUFFERSIZE, 256L << 10);
  set(CURLOPT_HEADERFUNCTION, &Impl::on_field);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &Impl::on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &Impl::on_progress);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(this));
  for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {  // what curl and Python obey
    const char* bundle = std::getenv(name);
    if (bundle == nullptr || *bundle == '\0') continue;
    set(CURLOPT_CAINFO, bundle);
    break;
  }
}

HttpClient::HttpClient(HttpTimes times, std::function<bool()> stop)
    : impl_(std::make_unique<Impl>()) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  impl_->times = times;
  impl_->stop = std::move(stop);
  impl_->curl.reset(curl_easy_init());
  LOWBIT_CHECK_KIND(impl_->curl != nullptr, ErrorKind::kOutOfMemory, "libcurl does not start");
  impl_->configure();
}

HttpClient::~HttpClient() = default;

HttpAnswer HttpClient::request(const HttpRequest& request, const Sink& sink) {
  CurlPtr<curl_slist> fields;
  for (const std::string& field : request.fields) {
    curl_slist* longer = curl_slist_append(fields.get(), field.c_str());
    LOWBIT_CHECK_KIND(longer != nullptr, ErrorKind::kOutOfMemory, "out of memory");
    (void)fields.release();
    fields.reset(longer);
  }
  impl_->answer = {};
  impl_->sink = &sink;
  impl_->thrown = nullptr;
  impl_->set(CURLOPT_URL, request.url.c_str());
  impl_->set(CURLOPT_NOBODY, request.head ? 1L : 0L);
  if (!request.head) impl_->set(CURLOPT_HTTPGET, 1L);
  impl_->set(CURLOPT_HTTPHEADER, fields.get());
  const CURLcode code = curl_easy_perform(impl_->curl.get());
  if (impl_->thrown) std::rethrow_exception(impl_->thrown);

  HttpAnswer answer = std::move(impl_->answer);
  long status = 0;
  curl_off_t retry_after = 0;
  curl_easy_getinfo(impl_->curl.get(), CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(impl_->curl.get(), CURLINFO_RETRY_AFTER, &retry_after);
  answer.status = static_cast<int>(status);
  answer.retry_after = static_cast<double>(retry_after);
  if (code != CURLE_OK) answer.fault = curl_easy_strerror(code);
  answer.hopeless = hopeless_fault(code);
  return answer;
}

const std::string& HttpAnswer::field(const std::string& name) const {
  static const std::string kNone;
  const auto found = fields.find(name);
  return found == fields.end() ? kNone : found->second;
}

std::string origin_of(const std::string& text) {
  const CurlPtr<CURLU> url = parse_url(text);
  if (!url) return "";
  const std::string scheme = part(url.get(), CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") return "";
  return lower(scheme + "://" + part(url.get(), CURLUPART_HOST) + ":" +
               part(url.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT));
}

std::string resolve_url(const std::string& text, const std::string& location) {
  const CurlPtr<CURLU> url = parse_url(text);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK) return "";
  return part(url.get(), CURLUPART_URL);
}

}  // namespace lowbit::hub
