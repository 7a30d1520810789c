// Reads the post-processor of tokenizer.json, which puts ids around a sequence, and its
// added tokens, which are cut out of a text. The files beside it may change and add to
// the latter (tokenizer_config.h). Errors name the file and the key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer_added.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_json.h"

namespace orrery::text {

/// The ids that encode(text, true) puts around a single sequence.
struct SequenceFrame {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

/// Supports TemplateProcessing, ByteLevel (which adds nothing) and Sequence of those.
/// Any other type is an Error.
SequenceFrame read_post_processor(const JsonNode& node);

/// Reads an entry of added_tokens, or one of the added_tokens_decoder of
/// tokenizer_config.json, whose `id` is its key.
AddedToken read_added_token(const JsonNode& node, std::optional<int32_t> id = std::nullopt);

/// An added token with its file, for messages.
struct AddedTokenSource {
  AddedToken token;
  std::string file;
};

/// Every added token of a folder. The tokens of tokenizer.json (`added_tokens`, perhaps
/// null) come first, in its order; then those that only the files beside it have. A
/// token that the added_tokens_decoder of tokenizer_config.json repeats has that
/// entry's flags and keeps its id. A token is special if one of the files flags it so,
/// or if it has a name ("eos_token", "additional_special_tokens"). A name makes an
/// ordinary entry of `vocabulary` an added token. A bos_token or eos_token that no file
/// has as a token is an Error; other names need no token, because a template may print
/// their text.
std::vector<AddedTokenSource> merge_added_tokens(const JsonNode& added_tokens,
                                                 const std::string& file,
                                                 const TokenizerConfig& config,
                                                 const Vocabulary& vocabulary);

}  // namespace orrery::text
