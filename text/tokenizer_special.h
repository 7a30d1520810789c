// What surrounds a sequence and what is cut out of one: the post-processor and the
// added tokens of tokenizer.json, the latter together with what the files beside it say
// of them (tokenizer_config.h). Errors name the file and the key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer_added.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_json.h"

namespace orrery::text {

/// Ids that encode(text, true) puts around a single sequence.
struct SequenceFrame {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

/// TemplateProcessing, ByteLevel (which adds nothing) and Sequence of those; any other
/// type is an Error.
SequenceFrame read_post_processor(const JsonNode& node);

/// One entry of added_tokens, or of tokenizer_config.json's added_tokens_decoder with
/// its id given apart.
AddedToken read_added_token(const JsonNode& node, std::optional<int32_t> id = std::nullopt);

/// An added token, and the file that it stands in, for messages.
struct AddedTokenSource {
  AddedToken token;
  std::string file;
};

/// Every added token of a folder. First come those of tokenizer.json (`added_tokens`,
/// perhaps null), in its order, then those that only the files beside it have. A token
/// that tokenizer_config.json's added_tokens_decoder repeats has that entry's flags,
/// and keeps its id. Special are those that one of the files flags so, and all that
/// have a name ("eos_token", "additional_special_tokens"); a name makes an ordinary
/// entry of `vocabulary` an added token. A bos_token or eos_token that is nowhere is an
/// Error; of other names a template may still print the text.
std::vector<AddedTokenSource> merge_added_tokens(const JsonNode& added_tokens,
                                                 const std::string& file,
                                                 const TokenizerConfig& config,
                                                 const Vocabulary& vocabulary);

}  // namespace orrery::text
