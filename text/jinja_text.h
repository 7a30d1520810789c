// The part of Python's str that chat templates use, over valid UTF-8: indices count
// code points, white space is Python's, letter case is Unicode's. Internal to
// chat_template.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::text::jinja {

/// Both throw Error for a text or list larger than any honest template makes, so that a
/// few doublings in a loop do not fill the memory.
void check_text_size(int64_t bytes);
void check_list_size(int64_t items);

int64_t text_length(std::string_view text);
/// Byte offset of the code point `index`; the end where there are fewer.
size_t text_offset(std::string_view text, int64_t index);
std::vector<std::string_view> text_characters(std::string_view text);
/// Python's str.isspace; \s in its regular expressions means the same.
bool is_python_space(uint32_t code_point);
/// The bytes of leading white space, and the offset at which trailing white space
/// begins.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

/// str.strip, lstrip and rstrip. Without `characters`, they strip white space.
std::string_view text_strip(std::string_view text, const std::optional<std::string>& characters,
                            bool left, bool right);
/// str.split and str.rsplit. Without a separator, they split at runs of white space. A
/// negative `most` means no limit.
std::vector<std::string> text_split(std::string_view text,
                                    const std::optional<std::string>& separator, int64_t most,
                                    bool from_right);
std::vector<std::string> text_splitlines(std::string_view text, bool keep_ends);
/// A negative `most` replaces every one. Throws Error when the result is too large.
std::string text_replace(std::string_view text, std::string_view from, std::string_view to,
                         int64_t most = -1);
std::string text_repeat(std::string_view text, int64_t times);
/// Pads to `width` characters: '<' after the text, '>' before it, '^' as str.center.
std::string text_pad(std::string_view text, int64_t width, std::string_view fill, char alignment);

std::string text_upper(std::string_view text);
std::string text_lower(std::string_view text);
std::string text_casefold(std::string_view text);
std::string text_swapcase(std::string_view text);
std::string text_capitalize(std::string_view text);
/// str.title: a letter after a character without case becomes a capital.
std::string text_title(std::string_view text);
/// The filter `title`: a word begins after white space and after - ( { [ <.
std::string text_title_words(std::string_view text);

/// The predicates isalpha, isalnum, isdecimal, isdigit, isnumeric, isspace, islower,
/// isupper, istitle, isascii, isprintable and isidentifier; nullopt for any other name.
std::optional<bool> text_predicate(std::string_view name, std::string_view text);

/// Replaces every decimal digit of Unicode by its ASCII digit. int() and float() read
/// numbers so.
std::string text_ascii_digits(std::string_view text);

/// Python's repr of a text, with its quotes.
std::string text_repr(std::string_view text);
/// Escapes & < > ' " as HTML does.
std::string text_escape(std::string_view text);

}  // namespace orrery::text::jinja
