// data.prompt_template: text around what is asked.
//
// A template has one place for the prompt: {prompt}, or {} in a template without
// {prompt} (so that one with
// \boxed{} in it can be written). Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "text/chat_template.h"

namespace orrery::actors {

/// Usage Error unless `pattern` has exactly one place for the prompt.
void check_prompt_template(const std::string& pattern);

/// `pattern` with `text` in its place. REQUIRES: check_prompt_template(pattern) passed.
std::string fill_prompt_template(const std::string& pattern, const std::string& text);

/// The conversation with its last user message inside `pattern`; as it was for "{}" and
/// "{prompt}". Of a message in parts, the first text part gets what stands before the
/// prompt and the last one what stands behind. Error when there is no user message, or
/// none of its parts is a text.
std::vector<text::ChatMessage> with_prompt_template(std::vector<text::ChatMessage> messages,
                                                    const std::string& pattern);

}  // namespace orrery::actors
