// Where a response ends because its request says so: ids, and texts that arrive piece
// by piece.
//
// A stop string ends a response when it is in the response's text. Special tokens are
// no part of that text, so a stop string that names one is looked for where it can be
// found: one that is exactly a special token ("<|im_end|>") becomes a stop id, one that
// holds a special token among other text ("<|im_end|>\n") is sought in the text with
// special tokens spelled out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace orrery::rollout {

/// Adds `text` to a response whose end is `tail` and says whether one of `stop_strings`
/// (none empty) is now in it, wherever it began. Keeps of the tail only what the
/// beginning of a later match may need.
bool find_stop_string(std::string& tail, std::string_view text,
                      std::span<const std::string> stop_strings);

/// The stop strings of a request, by where they are looked for.
struct StopStrings {
  std::vector<int32_t> ids;          ///< of those that are a special token each
  std::vector<std::string> strings;  ///< all of them: sought in the text without special tokens
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
  std::string tail_, spelled_tail_;  // ends of the texts, enough to find a stop string in
};

}  // namespace orrery::rollout
