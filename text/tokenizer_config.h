// The files beside tokenizer.json have the special tokens' names, further added tokens,
// the ids that end a sequence and the chat template's text. They are read as Hugging
// Face transformers 5 reads them:
//   - special_tokens_map.json and added_tokens.json count only if tokenizer_config.json
//     has no "added_tokens_decoder". The standard names of the map, nulls included,
//     then replace those of the config.
//   - The tokenizer's class may give a name that no file has (class_token_names).
//   - "add_bos_token" and "add_eos_token" have no effect beside a tokenizer.json.
// The ids that end a sequence are the eos_token_id of generation_config.json, else that
// of config.json, each a number or a list. text/tokenizer.h adds the tokenizer's own
// eos_token to them.
//
// Errors name the file and the key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_added.h"
#include "text/tokenizer_json.h"

namespace orrery::text {

/// The value of a key such as "bos_token".
struct TokenName {
  /// The token's text. Nullopt when the key is null: then there is no such token, even
  /// if the tokenizer's class has one.
  std::optional<std::string> content;
  /// File and key, for messages; empty when the tokenizer's class gives the name.
  std::string place;
};

/// Members stay empty where a file or a key is absent.
struct TokenizerConfig {
  /// Every key that ends in "_token", with its token's text.
  std::map<std::string, TokenName> names;
  /// Special tokens without a name of their own.
  std::vector<std::string> extra_special;
  /// From added_tokens_decoder, else from added_tokens.json.
  std::vector<AddedToken> added_tokens;
  bool has_added_tokens_decoder = false;
  /// Whether the texts of special tokens are encoded as any other text.
  bool split_special_tokens = false;
  /// From generation_config.json, else from config.json: bos_token_id and eos_token_id.
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
  std::string chat_template;
  std::string chat_template_file;
  /// The template named tool_use, for conversations with tools; empty without one.
  std::string tool_template;
  std::string tool_template_file;
  /// Path of tokenizer_config.json, for messages.
  std::string file;

  /// The text of a named token; null where there is none.
  const std::string* name(const std::string& key) const;
};

/// `tokenizer_json` is the folder's tokenizer.json without its tables. `model_config`
/// is the text of a config.json that replaces the folder's; if empty, the folder's
/// counts.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder,
                                      const JsonNode& tokenizer_json,
                                      const std::string& model_config = "");

/// Replaces all chat templates of the folder by the Jinja text of `file`. Throws Error
/// naming the file.
void replace_chat_template(const std::filesystem::path& file, TokenizerConfig& config);

/// Names that a tokenizer's class gives where no file has the key: the defaults of
/// transformers for the classes of the supported model types. `byte_level` says whether
/// tokenizer.json mentions ByteLevel.
std::map<std::string, std::string> class_token_names(std::string_view tokenizer_class,
                                                     std::string_view model_type, bool byte_level);

}  // namespace orrery::text
