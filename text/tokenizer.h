// Tokenizers of Hugging Face model folders, read from tokenizer.json. They give the
// same ids and the same text as the library `tokenizers` (compared with version 0.22).
// clean_up_tokenization_spaces loses text; it is no step of that library, nor of this.
//
//   encode: raw text
//           -> split at the added tokens (tokenizer_added.h)
//           -> normalizer (tokenizer_normalizer.h)
//           -> pre-tokenizer (pretokenizer.h)
//           -> BPE (bpe.h)
//           -> post-processor (tokenizer_special.h)
//   decode: ids -> token strings -> decoder (tokenizer_decoder.h)
//
// Supported are byte-level BPE (GPT-2, Llama 3, Qwen) and SentencePiece-style BPE with
// byte fallback. A file that asks for anything else is refused with an Error naming the
// file, the key and the type; nothing is ever skipped.
//
// Thread-safety: all const members may be called from any number of threads at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::text {

/// Replacements for files of the folder. Where a member is empty, the folder's own file
/// counts.
struct TokenizerReplacements {
  /// Jinja text that replaces all chat templates of the folder.
  std::filesystem::path chat_template_file;
  /// The text of a config.json, for a folder that is a checkpoint.
  std::string model_config;
};

class Tokenizer {
 public:
  /// Reads tokenizer.json from a model folder and, where they exist,
  ///   tokenizer_config.json: names and flags of special tokens, the chat template;
  ///   special_tokens_map.json and added_tokens.json: further names and tokens, unless
  ///     the config has an added_tokens_decoder;
  ///   chat_template.jinja: replaces the config's chat template;
  ///   generation_config.json and config.json: BOS and the ids that end a sequence.
  /// tokenizer_config.h has the rules. Throws Error naming the file and the key.
  static Tokenizer load(const std::filesystem::path& folder, const TokenizerReplacements& instead);
  static Tokenizer load(const std::filesystem::path& folder) { return load(folder, {}); }

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// The ids of `text`. The texts of added tokens ("<|im_end|>") become their ids. With
  /// add_special_tokens, the file's post-processor adds its ids: for most models BOS in
  /// front, or none. Throws Error when the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;

  /// The text of `ids`. It is valid UTF-8, with U+FFFD in place of malformed bytes. An
  /// id without a token gives no text (a model may have more rows than its tokenizer
  /// has tokens).
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// The bytes that one token adds to a text; they may end inside a character. With
  /// `is_first`, no token stands before it.
  std::string token_bytes(int32_t id, bool is_first = false) const;

  /// 1 + the largest id. A model's embedding must have at least as many rows.
  int32_t vocab_size() const;
  /// The id that begins a text: that of bos_token, else the model's bos_token_id.
  std::optional<int32_t> bos_id() const;
  /// The id of pad_token.
  std::optional<int32_t> pad_id() const;
  /// The ids at which generation ends. The tokenizer's eos_token is always one of them,
  /// and the first. The others come from eos_token_id in generation_config.json or,
  /// where it has none, in config.json. Empty when no file names one.
  const std::vector<int32_t>& eos_ids() const;
  /// The id that ends a text: the first of eos_ids().
  std::optional<int32_t> eos_id() const;
  bool is_eos(int32_t id) const;
  /// Whether decode(ids, true) leaves the id out. Such a token is flagged special in
  /// tokenizer.json or in the added_tokens_decoder of tokenizer_config.json, or it is
  /// named by tokenizer_config.json or special_tokens_map.json ("pad_token",
  /// "additional_special_tokens").
  bool is_special(int32_t id) const;
  /// Whether `text` contains the text of a special token.
  bool mentions_special_token(std::string_view text) const;

  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token as the file spells it; empty for an id without a token.
  std::string_view id_to_token(int32_t id) const;

  /// The special tokens that a chat template knows by name, such as "bos_token", with
  /// their texts: special_tokens_map in transformers. They come from
  /// tokenizer_config.json and special_tokens_map.json alone; an id in
  /// generation_config.json or config.json adds none. A name that is null or absent has
  /// no entry.
  const std::map<std::string, std::string>& template_tokens() const;

  /// The raw Jinja text of the chat template; empty when the folder has none.
  const std::string& chat_template() const;
  /// The file that the chat template came from, for messages.
  const std::string& chat_template_file() const;
  /// The template named "tool_use", which transformers uses for conversations with
  /// tools; empty when there is none.
  const std::string& tool_template() const;
  const std::string& tool_template_file() const;

 private:
  friend class IncrementalDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);

  std::unique_ptr<const Parts> parts_;
};

/// Decodes a growing sequence token by token, for stop strings and streaming. push()
/// returns the text that has become certain, in whole characters; an unfinished
/// character waits. The texts of all pushes and of finish() together are decode(ids,
/// skip_special_tokens), except that malformed runs of SentencePiece byte tokens keep
/// their valid characters. The decoder keeps a pointer to the tokenizer, which must
/// outlive it. Not thread-safe; use one per sequence.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  std::string push(int32_t id);
  /// U+FFFD if the sequence ends inside a character, else an empty text.
  std::string finish();

 private:
  std::string take(bool more_follows);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  bool is_first_ = true;
  int strip_left_;       // how many leading characters are still to be stripped
  std::string pending_;  // bytes of an unfinished character
};

}  // namespace orrery::text
