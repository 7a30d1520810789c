// The error for what a chat template asks of Jinja or Python and Orrery does not do.
// Internal to chat_template.h, which refuses a template that throws it on a sample
// conversation; every other Error there may be the fault of the sample.
#pragma once

#include <utility>

#include "core/error.h"

namespace orrery::text::jinja {

class UnsupportedTemplate : public Error {
 public:
  using Error::Error;
};

/// Throws UnsupportedTemplate with a formatted message, which says what is not
/// supported.
template <class... Args>
[[noreturn]] void fail_unsupported(fmt::format_string<Args...> format, Args&&... args) {
  throw UnsupportedTemplate(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace orrery::text::jinja
