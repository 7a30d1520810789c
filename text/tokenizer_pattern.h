// The "pattern" of tokenizer.json: {"String": literal} or {"Regex": expression}.
// Immutable, safe to share.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "text/tokenizer_json.h"
#include "text/tokenizer_regex.h"

namespace orrery::text {

/// How many bytes the steps of a normalizer, pre-tokenizer or decoder may make from
/// `bytes` bytes. That is far more than any honest one makes, and it keeps steps that
/// each double a text from filling the memory.
inline size_t growth_limit(size_t bytes) { return (size_t{1} << 20) + 64 * bytes; }
/// Throws Error above the limit; `step` names the part that grew the text.
void check_growth(size_t made, size_t limit, const char* step);

class Pattern {
 public:
  /// Throws Error naming the place unless the node has one of the two forms.
  explicit Pattern(const JsonNode& node);

  static Pattern literal(std::string text);
  static Pattern regex(std::string_view expression, const JsonNode& where);

  /// Calls on_match(begin, end) for each match from left to right. Matches do not
  /// overlap and are not empty.
  void for_each_match(std::string_view text,
                      const std::function<void(size_t, size_t)>& on_match) const;

  /// Replaces every match by `content`. Throws Error when the result would have more
  /// than `limit` bytes.
  std::string replace_all(std::string_view text, std::string_view content, size_t limit) const;

 private:
  Pattern() = default;

  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace orrery::text
