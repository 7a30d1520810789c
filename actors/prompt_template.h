// data.prompt_template: text that is put around the prompt.
//
// A template has one place for the prompt: {prompt}, or {} in a template that has no
// {prompt}. The longer form is for templates with another {} in them, as in \boxed{}.
// Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "text/chat_template.h"

namespace orrery::actors {

/// Throws a usage Error unless `pattern` has exactly one place for the prompt.
void check_prompt_template(const std::string& pattern);

/// Returns `pattern` with `text` in the place of the prompt. REQUIRES:
/// check_prompt_template(pattern) passed.
std::string fill_prompt_template(const std::string& pattern, const std::string& text);

/// Puts `pattern` around the last user message of the conversation; "{}" and "{prompt}"
/// change nothing. In a message of several parts, the first text part gets what stands
/// before the prompt and the last one what stands behind it. Throws an Error when there
/// is no user message, or none of its parts is a text.
std::vector<text::ChatMessage> with_prompt_template(std::vector<text::ChatMessage> messages,
                                                    const std::string& pattern);

}  // namespace orrery::actors
