// RequestParser: one HTTP/1.x request from bytes that come in any cuts, bounded while it reads.
#pragma once

#include <memory>
#include <string_view>

#include "lowbit/server/http.h"

namespace lowbit::server {

class RequestParser {
 public:
  explicit RequestParser(const HttpLimits& limits);
  ~RequestParser();

  // Reads what it can of `bytes` and returns how many it has used; the rest must come again, with
  // more behind it. Stops behind the end of the request. Throws HttpError (400, 413, 414, 431, 501,
  // 505); the parser is of no use after that. What a proxy could read in another way (both length
  // and chunks, two lengths, two hosts, unknown encodings, bare line feeds) is refused.
  size_t push(std::string_view bytes);

  bool header_done() const;
  bool done() const;
  // The client waits for "100 Continue" before it sends the body.
  bool expects_continue() const;
  size_t body_received() const;
  // The request; call once, when done.
  HttpRequest take();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowbit::server
