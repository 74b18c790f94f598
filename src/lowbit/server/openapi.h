// /openapi.json, made of the tables that requests are checked against.
#pragma once

#include <string>

#include "lowbit/base/json.h"

namespace lowbit::server {

OrderedJson openapi_document(const std::string& version);

}  // namespace lowbit::server
