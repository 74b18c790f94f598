#include "lowbit/server/request_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>

namespace lowbit::server {

namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using beast::error_code;
using beast::string_view;

constexpr size_t kChunkSlack = 64 << 10;  // framing beyond the size of the body itself

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::string to_string(string_view text) { return {text.data(), text.size()}; }

int status_of(const error_code& error) {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) return 431;
  if (error == http::error::bad_version) return 505;
  return 400;
}

// Of "http://host:port/path" the "/path".
std::string without_authority(const std::string& target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (lower(target.substr(0, scheme.size())) != scheme) continue;
    const size_t slash = target.find('/', scheme.size());
    return slash == std::string::npos ? "/" : target.substr(slash);
  }
  return target;
}

}  // namespace

struct RequestParser::Impl final : http::basic_parser<true> {
  explicit Impl(const HttpLimits& bounds) : limits(bounds) {
    eager(true);
    header_limit(static_cast<uint32_t>(limits.header_bytes));
    body_limit(limits.body_bytes);
  }

  void on_request_impl(http::verb, string_view method, string_view target, int version,
                       error_code&) override {
    if (target.size() > limits.target_bytes) throw HttpError(414, "the request target is too long");
    if (version != 10 && version != 11) throw HttpError(505, "only HTTP/1.0 and HTTP/1.1 here");
    request.method = to_string(method);
    request.http_1_1 = version == 11;
    const std::string whole = without_authority(to_string(target));
    const size_t question = whole.find('?');
    request.path = whole.substr(0, question);
    if (question != std::string::npos) request.query = whole.substr(question + 1);
  }
  void on_response_impl(int, string_view, int, error_code&) override {}

  void on_field_impl(http::field, string_view name, string_view value, error_code&) override {
    if (header_is_done) return;  // trailers are of no use here
    if (request.fields.size() >= limits.field_count) {
      throw HttpError(431, "more than " + std::to_string(limits.field_count) + " header fields");
    }
    request.fields.emplace_back(lower({name.data(), name.size()}), to_string(value));
  }

  void on_header_impl(error_code&) override {
    refuse_repeated("host");
    refuse_repeated("content-length");
    refuse_repeated("transfer-encoding");
    const std::string* encoding = request.field("transfer-encoding");
    if (encoding != nullptr) {
      if (request.field("content-length") != nullptr) {
        throw HttpError(400, "both Content-Length and Transfer-Encoding");
      }
      if (!request.http_1_1) throw HttpError(400, "Transfer-Encoding in HTTP/1.0");
      if (lower(*encoding) != "chunked") {
        throw HttpError(501, "the only Transfer-Encoding here is chunked");
      }
    }
    const std::string* length = request.field("content-length");
    if (length != nullptr && (length->empty() || length->size() > 19 ||
                              !std::all_of(length->begin(), length->end(),
                                           [](char c) { return c >= '0' && c <= '9'; }))) {
      throw HttpError(400, "Content-Length must be one number");
    }
    if (request.http_1_1 && request.field("host") == nullptr) {
      throw HttpError(400, "HTTP/1.1 wants a Host");
    }
    const std::string* expect = request.field("expect");
    awaits_continue = expect != nullptr && request.http_1_1 && lower(*expect) == "100-continue";
    request.keep_alive = keep_alive();
    header_is_done = true;
  }

  void refuse_repeated(std::string_view name) const {
    const auto same = [&](const auto& field) { return field.first == name; };
    if (std::count_if(request.fields.begin(), request.fields.end(), same) > 1) {
      throw HttpError(400, "more than one " + std::string(name));
    }
  }

  void on_body_init_impl(const boost::optional<uint64_t>&, error_code&) override {}
  size_t on_body_impl(string_view body, error_code&) override { return append(body); }
  void on_chunk_header_impl(uint64_t, string_view extensions, error_code&) override {
    extension_bytes += extensions.size();
    if (extension_bytes > limits.header_bytes) throw HttpError(400, "too many chunk extensions");
  }
  size_t on_chunk_body_impl(uint64_t, string_view body, error_code&) override {
    return append(body);
  }
  void on_finish_impl(error_code&) override {}

  // Grows with what has come, not with what was announced.
  size_t append(string_view body) {
    request.body.append(body.data(), body.size());
    return body.size();
  }

  const HttpLimits limits;
  HttpRequest request;
  bool header_is_done = false;
  bool awaits_continue = false;
  size_t extension_bytes = 0;
  size_t used = 0;
};

RequestParser::RequestParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
RequestParser::~RequestParser() = default;

size_t RequestParser::push(std::string_view bytes) {
  size_t used = 0;
  while (used < bytes.size() && !impl_->is_done()) {
    error_code error;
    const size_t taken = impl_->put(
        boost::asio::const_buffer(bytes.data() + used, bytes.size() - used), error);
    used += taken;
    if (error == http::error::need_more) {
      // A line of the framing that is longer than any header could be will not end well.
      if (bytes.size() - used > impl_->limits.header_bytes) {
        throw HttpError(impl_->header_is_done ? 400 : 431, "a line of the request is too long");
      }
      break;
    }
    if (error) throw HttpError(status_of(error), "not HTTP: " + error.message());
    if (taken == 0) break;
  }
  impl_->used += used;
  if (impl_->used > impl_->limits.header_bytes + 2 * impl_->limits.body_bytes + kChunkSlack) {
    throw HttpError(413, "too many bytes of framing");
  }
  return used;
}

bool RequestParser::header_done() const { return impl_->header_is_done; }
bool RequestParser::done() const { return impl_->is_done(); }
bool RequestParser::expects_continue() const { return impl_->awaits_continue; }
size_t RequestParser::body_received() const { return impl_->request.body.size(); }
HttpRequest RequestParser::take() { return std::move(impl_->request); }

}  // namespace lowbit::server
