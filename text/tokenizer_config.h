// What the files beside tokenizer.json say of a model's tokenizer: the special tokens'
// names, further added tokens, the ids that end a sequence, the chat template's text.
// Read as Hugging Face transformers 5 reads them:
//   special_tokens_map.json and added_tokens.json count only where tokenizer_config.json has no
//   "added_tokens_decoder"; then the map's standard names, nulls included, go before the config's;
//   a name that no file has may be given by the tokenizer's class (class_token_names);
//   "add_bos_token" and "add_eos_token" change nothing beside a tokenizer.json.
// The ids that end a sequence are generation_config.json's eos_token_id, else
// config.json's, each a number or a list; what the tokenizer itself calls eos_token is
// added by text/tokenizer.h.
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

/// What a key such as "bos_token" says.
struct TokenName {
  std::optional<std::string>
      content;        ///< nothing: null, no such token, whatever the tokenizer's class says
  std::string place;  ///< file and key, for messages; empty: by the tokenizer's class
};

/// Members stay empty where a file or a key is absent.
struct TokenizerConfig {
  std::map<std::string, TokenName>
      names;  ///< every key that ends in "_token", and its token's text
  std::vector<std::string> extra_special;  ///< special tokens without a name of their own
  std::vector<AddedToken> added_tokens;    ///< of added_tokens_decoder, else of added_tokens.json
  bool has_added_tokens_decoder = false;
  bool split_special_tokens = false;  ///< texts of special tokens are encoded as any other text
  std::optional<int32_t> bos_id;  ///< bos_token_id of generation_config.json, else of config.json
  std::vector<int32_t> eos_ids;   ///< eos_token_id of generation_config.json, else of config.json
  std::string chat_template;
  std::string chat_template_file;
  std::string
      tool_template;  ///< the one named tool_use, for conversations with tools; empty: there is none
  std::string tool_template_file;
  std::string file;  ///< path of tokenizer_config.json, for messages

  const std::string* name(const std::string& key) const;  ///< its text; null where there is none
};

/// `tokenizer_json`: the folder's tokenizer.json, without its tables. `model_config`:
/// the text of a config.json that stands for the folder's own; empty: the folder's.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder,
                                      const JsonNode& tokenizer_json,
                                      const std::string& model_config = "");

/// Puts the Jinja text of `file` in the place of all the folder's chat templates. Error
/// naming the file.
void replace_chat_template(const std::filesystem::path& file, TokenizerConfig& config);

/// Names that a tokenizer's class gives where no file has the key: transformers'
/// defaults for the classes of the model types that are supported. `byte_level`:
/// tokenizer.json mentions ByteLevel.
std::map<std::string, std::string> class_token_names(std::string_view tokenizer_class,
                                                     std::string_view model_type, bool byte_level);

}  // namespace orrery::text
