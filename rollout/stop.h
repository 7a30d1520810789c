// Where a response ends because its request says so: at an id, or at a text, which
// arrives piece by piece.
//
// A stop string ends a response when it is in the response's text. Special tokens are
// not part of that text, so a stop string that names one is looked for elsewhere. One
// that is exactly a special token ("<|im_end|>") becomes a stop id. One that holds a
// special token among other text ("<|im_end|>\n") is sought in the text with special
// tokens spelled out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace orrery::rollout {

/// Adds `text` to a response whose end is `tail`, and returns whether one of
/// `stop_strings` (none empty) is now in it, wherever it begins. Keeps only as much of
/// the tail as the beginning of a later match may need.
bool find_stop_string(std::string& tail, std::string_view text,
                      std::span<const std::string> stop_strings);

/// The stop strings of a request, by where they are looked for.
struct StopStrings {
  std::vector<int32_t> ids;          ///< of the strings that are exactly a special token
  std::vector<std::string> strings;  ///< all strings: sought in the text without special tokens
  std::vector<std::string> spelled;  ///< sought in the text with special tokens spelled out
};

/// `stop_strings`: none empty.
StopStrings sort_stop_strings(const text::Tokenizer& tokenizer,
                              std::span<const std::string> stop_strings);

/// Watches one growing response for the strings of `stops`, which must outlive it, as
/// must the tokenizer. Not thread-safe.
class StopMatcher {
 public:
  StopMatcher(const text::Tokenizer& tokenizer, const StopStrings& stops);
  /// Adds a token; true when one of the strings is now in the response.
  bool push(int32_t id);

 private:
  const StopStrings* stops_;
  text::IncrementalDecoder decoder_, spelled_decoder_;
  std::string tail_, spelled_tail_;  // the ends of the texts, as find_stop_string() keeps them
};

}  // namespace orrery::rollout
