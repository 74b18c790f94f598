// Errors of the library. Setup (loading, configuring, quantizing) throws Error;
// the library itself never prints, aborts or exits.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace lowbit {

enum class ErrorKind {
  kInvalidArgument,  // the caller asked for something that cannot be
  kCorruptFile,      // bytes from outside contradict their format
  kUnsupported,      // valid, but not something lowbit can do
  kIo,               // the operating system said no
  kOutOfMemory,
  kDevice,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Joins its arguments into one string, as operator<< prints them.
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <typename... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  throw Error(kind, concat(parts...));
}

}  // namespace lowbit

// Throws Error{kind} with the joined message unless the condition holds. Put the operands in the
// message: "what, where, what to do".
#define LOWBIT_CHECK_KIND(condition, kind, ...) \
  do {                                          \
    if (!(condition)) [[unlikely]] {            \
      ::lowbit::fail((kind), __VA_ARGS__);      \
    }                                           \
  } while (false)

#define LOWBIT_CHECK(condition, ...) \
  LOWBIT_CHECK_KIND(condition, ::lowbit::ErrorKind::kInvalidArgument, __VA_ARGS__)
