// The built-in chat page: one HTML file without outside resources (chat_page.html).
#pragma once

#include <string>
#include <string_view>

namespace lowbit::server {

std::string_view chat_page();
// A Content-Security-Policy that lets the page run its own script and style, talk to this server,
// and nothing else.
std::string chat_page_policy();

}  // namespace lowbit::server
