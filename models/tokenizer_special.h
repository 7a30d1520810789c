// What surrounds a sequence: the post-processor of tokenizer.json, the special tokens named by
// tokenizer_config.json and generation_config.json, the chat template's text. Errors name the file and the
// key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "models/tokenizer_added.h"
#include "models/tokenizer_json.h"

namespace orrery {

/// Ids that encode(text, true) puts around a single sequence.
struct SequenceFrame {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

/// TemplateProcessing, ByteLevel (which adds nothing) and Sequence of those; any other type is an Error.
SequenceFrame read_post_processor(const JsonNode& node);

/// One entry of added_tokens, or of tokenizer_config.json's added_tokens_decoder with its id given apart.
AddedToken read_added_token(const JsonNode& node, std::optional<int32_t> id = std::nullopt);

/// tokenizer_config.json, chat_template.jinja and generation_config.json of a folder; members stay empty
/// where a file or a key is absent.
struct TokenizerConfig {
  std::string bos_token, eos_token, pad_token;
  std::optional<int32_t> bos_id, pad_id;  ///< from generation_config.json
  std::vector<int32_t> eos_ids;           ///< from generation_config.json
  bool add_bos_token = false, add_eos_token = false;
  std::vector<AddedToken> added_tokens;
  std::string chat_template;
  std::string chat_template_file;
  std::string file;  ///< path of tokenizer_config.json, for messages
};

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

}  // namespace orrery
