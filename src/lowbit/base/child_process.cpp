#include "lowbit/base/child_process.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"

namespace lowbit {

namespace {

// The first byte of what a child sends; an error's kind follows kFailed.
constexpr char kResult = 'r', kFailed = 'e';

void send(int fd, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = write(fd, bytes.data() + sent, bytes.size() - sent);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;  // nobody listens any more
    sent += static_cast<size_t>(count);
  }
}

std::string failure(ErrorKind kind, const char* message) {
  return concat(kFailed, static_cast<char>('0' + static_cast<int>(kind)), message);
}

[[noreturn]] void run_child(int fd, pid_t parent, const std::function<std::string()>& work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died before that
  std::signal(SIGINT, SIG_DFL);
  std::string message;
  try {
    message = kResult + work();
  } catch (const Error& error) {
    message = failure(error.kind(), error.what());
  } catch (const std::bad_alloc&) {
    message = failure(ErrorKind::kOutOfMemory, "out of memory");
  } catch (const std::exception& error) {
    message = failure(ErrorKind::kIo, error.what());
  }
  send(fd, message);
  _exit(0);  // without destructors and buffers that belong to the parent
}

std::string receive(int fd) {
  std::string bytes;
  char buffer[65536];
  while (bytes.size() <= limits::kChildResultBytes) {
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    bytes.append(buffer, static_cast<size_t>(count));
  }
  return bytes;
}

int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

std::string run_in_child(const std::string& what, const std::function<std::string()>& work) {
  int ends[2];
  LOWBIT_CHECK_KIND(pipe(ends) == 0, ErrorKind::kIo, what, ": no pipe: ", std::strerror(errno));
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    run_child(ends[1], parent, work);
  }
  const int error = errno;
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    fail(ErrorKind::kIo, what, ": no process: ", std::strerror(error));
  }
  std::string message = receive(ends[0]);
  close(ends[0]);  // a child that says too much is stopped by this
  const int status = wait_for(child);
  LOWBIT_CHECK_KIND(message.size() <= limits::kChildResultBytes, ErrorKind::kIo, what,
                    ": the result is larger than ", limits::kChildResultBytes, " bytes");
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    LOWBIT_CHECK_KIND(signal != SIGKILL, ErrorKind::kOutOfMemory, what,
                      ": its process was killed, as the system does when memory runs out");
    fail(ErrorKind::kIo, what, ": its process was ended by ", strsignal(signal));
  }
  if (!message.empty() && message[0] == kResult) return message.substr(1);
  LOWBIT_CHECK_KIND(message.size() >= 2, ErrorKind::kIo, what, ": its process said nothing");
  throw Error(static_cast<ErrorKind>(message[1] - '0'), message.substr(2));
}

}  // namespace lowbit
