#include "hub/fake_hub.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <list>
#include <mutex>
#include <thread>

#include "lowbit/base/checksum.h"
#include "lowbit/base/json.h"
#include "lowbit/hub/digest.h"

namespace lowbit::test {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

std::string head_of(const HubReply& reply) {
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " Status\r\n";
  for (const auto& [name, value] : reply.fields) head += name + ": " + value + "\r\n";
  if (reply.fields.count("Content-Length") == 0) {
    head += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n";
  }
  return head + "\r\n";
}

}  // namespace

std::string HubFile::etag() const {
  if (lfs) return sha256(bytes);
  Sha1 digest;
  digest.update("blob " + std::to_string(bytes.size()));
  digest.update(std::string_view("\0", 1));
  digest.update(bytes);
  return digest.hex();
}

std::string HubRequest::field(const std::string& name) const {
  const auto found = fields.find(name);
  return found == fields.end() ? "" : found->second;
}

struct FakeHub::Server {
  explicit Server(FakeHub& of)
      : hub(of), acceptor(io, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0)) {
    port = acceptor.local_endpoint().port();
    accepting = std::thread([this] { accept(); });
  }

  ~Server() {
    over = true;
    boost::system::error_code ignored;
    tcp::socket(io).connect(acceptor.local_endpoint(), ignored);  // wakes accept()
    accepting.join();
    {
      const std::lock_guard lock(mutex);
      for (tcp::socket& socket : sockets) socket.shutdown(tcp::socket::shutdown_both, ignored);
    }
    for (std::thread& thread : threads) thread.join();
  }

  void accept() {
    while (!over) {
      boost::system::error_code error;
      tcp::socket socket = acceptor.accept(error);
      if (over || error) continue;
      const std::lock_guard lock(mutex);
      tcp::socket& kept = sockets.emplace_back(std::move(socket));
      threads.emplace_back([this, &kept] { talk(kept); });
    }
  }

  void talk(tcp::socket& socket) {
    boost::beast::flat_buffer buffer;
    boost::system::error_code error;
    for (;;) {
      http::request<http::empty_body> message;
      http::read(socket, buffer, message, error);
      if (error) break;
      HubRequest request{std::string(message.method_string()), std::string(message.target()), {}};
      for (const auto& field : message) {
        request.fields[lower(std::string(field.name_string()))] = std::string(field.value());
      }
      {
        const std::lock_guard lock(mutex);
        requests.push_back(request);
      }
      HubReply reply = hub.answer(request);
      if (const HubFault::Function fault = hub.fault.get()) fault(request, reply);
      if (!send(socket, request, reply)) break;
    }
    socket.shutdown(tcp::socket::shutdown_both, error);
  }

  // Whether the connection goes on.
  bool send(tcp::socket& socket, const HubRequest& request, const HubReply& reply) const {
    boost::system::error_code error;
    const std::string body = request.method == "HEAD" ? "" : reply.body;
    const size_t first = std::min(reply.cut_after, body.size());
    asio::write(socket, asio::buffer(head_of(reply) + body.substr(0, first)), error);
    if (error || first == body.size()) return !error;
    if (reply.stall_seconds <= 0) return false;
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::duration<double>(reply.stall_seconds);
    while (!over && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    asio::write(socket, asio::buffer(body.substr(first)), error);
    return !error;
  }

  FakeHub& hub;
  asio::io_context io;
  tcp::acceptor acceptor;
  int port = 0;
  std::atomic<bool> over{false};
  std::thread accepting;
  mutable std::mutex mutex;
  std::vector<HubRequest> requests;
  std::list<tcp::socket> sockets;
  std::list<std::thread> threads;
};

FakeHub::FakeHub() : server_(std::make_unique<Server>(*this)) {}
FakeHub::~FakeHub() = default;

std::string FakeHub::url() const { return "http://127.0.0.1:" + std::to_string(server_->port); }

std::vector<HubRequest> FakeHub::seen(const std::string& part) const {
  const std::lock_guard lock(server_->mutex);
  std::vector<HubRequest> found;
  for (const HubRequest& request : server_->requests) {
    if (request.target.find(part) != std::string::npos) found.push_back(request);
  }
  return found;
}

std::string FakeHub::commit() const {
  std::string all;
  for (const auto& [name, file] : files) all += name + " " + file.etag() + "\n";
  return sha256(all).substr(0, 40);
}

std::string FakeHub::listing() const {
  Json json = {{"id", "org/name"}, {"sha", commit()}, {"siblings", Json::array()}};
  for (const auto& [name, file] : files) {
    Json sibling = {{"rfilename", name}};
    if (!bare_list) {
      sibling["size"] = file.bytes.size();
      sibling["blobId"] = HubFile{file.bytes, false}.etag();
      if (file.lfs) sibling["lfs"] = {{"sha256", file.etag()}, {"size", file.bytes.size()}};
    }
    json["siblings"].push_back(sibling);
  }
  return dump_json(json);
}

HubReply FakeHub::answer(const HubRequest& request) const {
  if (!token.empty() && request.field("authorization") != "Bearer " + token) {
    return {401, {{"X-Error-Code", "GatedRepo"}, {"X-Error-Message", "Access is restricted"}}};
  }
  const std::string& target = request.target;
  if (target.starts_with("/api/models/org/name/revision/")) {
    return {200, {{"Content-Type", "application/json"}}, listing()};
  }
  const std::string files_of_commit = "/org/name/resolve/" + commit() + "/";
  if (target.starts_with(files_of_commit)) {
    return resolve(request, target.substr(files_of_commit.size()));
  }
  if (target.starts_with("/cdn/")) return resolve(request, target.substr(5));
  return {404, {{"X-Error-Code", "RepoNotFound"}, {"X-Error-Message", "Repository not found"}}};
}

HubReply FakeHub::resolve(const HubRequest& request, const std::string& name) const {
  const auto found = files.find(name);
  if (found == files.end()) return {404, {{"X-Error-Code", "EntryNotFound"}}};
  const HubFile& file = found->second;
  HubReply reply;
  if (file.lfs && !cdn.empty()) {
    reply.status = 302;
    reply.fields = {{"Location", cdn + "/cdn/" + name},
                    {"X-Linked-Etag", "\"" + file.etag() + "\""},
                    {"X-Linked-Size", std::to_string(file.bytes.size())}};
    return reply;
  }
  reply.fields = {{"ETag", "\"" + file.etag() + "\""}, {"X-Repo-Commit", commit()}};
  reply.body = file.bytes;
  if (request.method == "HEAD") reply.fields["Content-Length"] = std::to_string(file.bytes.size());
  const std::string range = request.field("range");
  if (range.starts_with("bytes=")) {
    const size_t begin = std::stoul(range.substr(6));
    const std::string size = std::to_string(file.bytes.size());
    if (begin >= file.bytes.size()) return {416, {{"Content-Range", "bytes */" + size}}};
    reply.status = 206;
    reply.body = file.bytes.substr(begin);
    reply.fields["Content-Range"] =
        "bytes " + std::to_string(begin) + "-" + std::to_string(file.bytes.size() - 1) + "/" + size;
  }
  return reply;
}

}  // namespace lowbit::test
