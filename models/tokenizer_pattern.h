// The "pattern" of tokenizer.json: {"String": literal} or {"Regex": expression}. Immutable, safe to share.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "models/tokenizer_json.h"
#include "models/tokenizer_regex.h"

namespace orrery {

class Pattern {
 public:
  /// Throws Error naming the place for any other form.
  explicit Pattern(const JsonNode& node);

  static Pattern literal(std::string text);
  static Pattern regex(std::string_view expression, const JsonNode& where);

  /// Calls on_match(begin, end) for each match, left to right, not overlapping, none of them empty.
  void for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& on_match) const;

  /// Every match replaced by `content`.
  std::string replace_all(std::string_view text, std::string_view content) const;

 private:
  Pattern() = default;

  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace orrery
