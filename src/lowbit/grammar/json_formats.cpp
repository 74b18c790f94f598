#include "lowbit/grammar/json_formats.h"

#include "lowbit/base/check.h"
#include "lowbit/grammar/regex.h"

namespace lowbit::grammar {

namespace {

const std::string_view kDate =
    "\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"
    "02-(0[1-9]|1\\d|2[0-8]))";
const std::string_view kTime =
    "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
const std::string_view kLabel = "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
const std::string_view kByte = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";

std::string pattern_of(const std::string& format) {
  if (format == "date") return concat(kDate);
  if (format == "time") return concat(kTime);
  if (format == "date-time") return concat("(", kDate, ")T(", kTime, ")");
  if (format == "duration") {
    return "P(\\d{1,4}W|\\d{1,4}Y(\\d{1,4}M(\\d{1,4}D)?)?|\\d{1,4}M(\\d{1,4}D)?|"
           "\\d{1,4}D(T\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?)?|"
           "T(\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S))";
  }
  if (format == "email") {
    return concat("[A-Za-z0-9_+-]{1,40}(\\.[A-Za-z0-9_+-]{1,20}){0,3}@", kLabel, "(\\.", kLabel,
                  "){0,3}\\.[A-Za-z]{2,12}");
  }
  if (format == "hostname") return concat(kLabel, "(\\.", kLabel, "){0,5}");
  if (format == "ipv4") return concat(kByte, "(\\.", kByte, "){3}");
  if (format == "ipv6") return "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}";
  if (format == "uri") {
    return concat("https?://", kLabel, "(\\.", kLabel,
                  "){0,4}(:\\d{1,4})?(/[A-Za-z0-9._~-]*)*(\\?[A-Za-z0-9._~=&-]*)?"
                  "(#[A-Za-z0-9._~-]*)?");
  }
  if (format == "uuid") {
    return "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
  }
  fail(ErrorKind::kUnsupported, "\"format\": \"", format.substr(0, 100),
       "\" is not supported; there are date, time, date-time, duration, email, hostname, ipv4, "
       "ipv6, uri and uuid");
}

}  // namespace

Fragment json_format(Builder& builder, const std::string& format) {
  return regex(builder, pattern_of(format), Anchoring::kWhole, Spelling::kJsonString);
}

}  // namespace lowbit::grammar
