// The regular expressions of tokenizer.json are written for Oniguruma (Ruby syntax,
// Unicode). They run here on PCRE2 with UTF and UCP. Syntax that both share is passed
// on; \s and \w, whose Unicode meaning differs, are spelled out; syntax that means
// something else in PCRE2 is refused. Letters and digits are those of PCRE2's Unicode
// version (14 in PCRE2 10.42): newer ones, such as the hieroglyphs of Unicode 16, count
// as other characters. Immutable, safe to share between threads.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace orrery::text {

class Regex {
 public:
  /// Throws Error "where: ..." for a pattern that is malformed or uses syntax that is
  /// not supported.
  Regex(std::string_view pattern, std::string where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Calls on_match(begin, end) for each match in valid UTF-8 text from left to right.
  /// Matches do not overlap; empty ones are left out. Throws Error when a match needs
  /// more steps than any honest pattern does (catastrophic backtracking).
  void for_each_match(std::string_view text,
                      const std::function<void(size_t, size_t)>& on_match) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

/// The same expression in PCRE2's syntax (exposed for tests). Throws Error with the
/// text "where: ...".
std::string pcre2_syntax(std::string_view oniguruma, const std::string& where);

}  // namespace orrery::text
