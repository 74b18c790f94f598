// Work in a process of its own: what it allocates, and whatever becomes of it, ends with it.
#pragma once

#include <functional>
#include <string>

namespace lowbit {

// Runs `work` in a forked child and returns its result (at most limits::kChildResultBytes). The
// calling process must not have other threads: they do not exist in the child, their locks do. An
// Error that `work` throws is thrown here. Throws kOutOfMemory or kIo, naming `what`, if the child
// was killed. The child dies with its parent, and by the first SIGINT.
std::string run_in_child(const std::string& what, const std::function<std::string()>& work);

}  // namespace lowbit
