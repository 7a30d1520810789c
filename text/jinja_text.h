// Python's str, as far as chat templates see it: UTF-8 texts whose unit is the code
// point, Python's white space, Unicode letter case. Internal to chat_template.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::text::jinja {

/// A few doublings in a loop must not fill the memory: throws Error for a text or list
/// larger than any honest template makes.
void check_text_size(int64_t bytes);
void check_list_size(int64_t items);

int64_t text_length(std::string_view text);
/// Byte offset of code point `index`, the end where there are not as many.
size_t text_offset(std::string_view text, int64_t index);
std::vector<std::string_view> text_characters(std::string_view text);
/// Python's str.isspace, which is also \s of its regular expressions.
bool is_python_space(uint32_t code_point);
/// Bytes of white space at the beginning, and where trailing white space begins.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

/// str.strip and its halves; without `characters`, white space.
std::string_view text_strip(std::string_view text, const std::optional<std::string>& characters,
                            bool left, bool right);
/// str.split and str.rsplit; without a separator, at runs of white space. `most` < 0:
/// no limit.
std::vector<std::string> text_split(std::string_view text,
                                    const std::optional<std::string>& separator, int64_t most,
                                    bool from_right);
std::vector<std::string> text_splitlines(std::string_view text, bool keep_ends);
/// `most` < 0: every one. Throws Error when the result is too large.
std::string text_replace(std::string_view text, std::string_view from, std::string_view to,
                         int64_t most = -1);
std::string text_repeat(std::string_view text, int64_t times);
/// Filled to `width` characters: '<' behind, '>' in front, '^' as str.center.
std::string text_pad(std::string_view text, int64_t width, std::string_view fill, char alignment);

std::string text_upper(std::string_view text);
std::string text_lower(std::string_view text);
std::string text_casefold(std::string_view text);
std::string text_swapcase(std::string_view text);
std::string text_capitalize(std::string_view text);
/// str.title: a capital after every character that has no case.
std::string text_title(std::string_view text);
/// What the filter `title` does: words begin after white space and - ( { [ <.
std::string text_title_words(std::string_view text);

/// isalpha, isalnum, isdecimal, isdigit, isnumeric, isspace, islower, isupper, istitle,
/// isascii, isprintable, isidentifier; nullopt for any other name.
std::optional<bool> text_predicate(std::string_view name, std::string_view text);

/// With every decimal digit of Unicode as the ASCII digit it stands for, as int() and
/// float() read them.
std::string text_ascii_digits(std::string_view text);

/// Python's repr of a text, with its quotes.
std::string text_repr(std::string_view text);
/// What HTML escapes: & < > ' ".
std::string text_escape(std::string_view text);

}  // namespace orrery::text::jinja
