// JSON schemas (the keywords of OpenAI's structured outputs and more), as the set of JSON texts
// that are valid and have the members in the schema's order.
#pragma once

#include "lowbit/base/json.h"
#include "lowbit/grammar/json_text.h"

namespace lowbit::grammar {

// Understood: type (also a list), enum, const, properties, required, additionalProperties, items,
// prefixItems, minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time,
// duration, email, hostname, ipv4, ipv6, uri, uuid), minimum, maximum, exclusiveMinimum,
// exclusiveMaximum (of integers any, of numbers integers), anyOf, oneOf whose branches exclude each
// other, allOf of one, $ref into the document, $defs, definitions, nullable; annotations are
// ignored. Where a schema says nothing about further members of an object that has properties,
// none are generated.
// Throws kUnsupported naming any other keyword of JSON schema and where it stands, kInvalidArgument
// for what contradicts itself or is too large.
Fragment json_schema(Builder& builder, JsonText& json, const OrderedJson& schema);

}  // namespace lowbit::grammar
