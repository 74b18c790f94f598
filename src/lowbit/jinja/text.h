// What methods and filters of strings share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

// Refuses more than limits::kTemplateStringBytes, before they are made.
void check_text_size(size_t bytes);

// str.strip: without the code points in `chars` (white space if null) at the given ends.
std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right);

// str.split and str.rsplit; limit: at most so many cuts, negative: any number.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, Int limit,
                                    bool from_right);
std::vector<std::string_view> split_space(std::string_view text, Int limit, bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

std::string replace(std::string_view text, std::string_view old_part, std::string_view new_part,
                    Int limit);

// `text` filled to `width` code points; left and right: shares of the fill, one of them 0.
std::string pad(const Str& text, size_t width, const std::string& fill, int left, int right);
std::string center(const Str& text, size_t width, const std::string& fill);

// str.islower and str.isupper: some cased character, and all of them of that case.
bool is_lower_text(std::string_view text);
bool is_upper_text(std::string_view text);

}  // namespace lowbit::jinja
