// Tokenizers of Hugging Face model folders, from tokenizer.json. Same ids and same text
// as the library `tokenizers` (compared with 0.22; clean_up_tokenization_spaces, which
// loses text, is not its step and not ours):
//   encode  raw text -> added tokens cut out -> normalizer -> pre-tokenizer -> BPE (bpe.h) -> post-processor
//   decode  ids -> token strings -> decoder
// Supported: byte-level BPE (GPT-2, Llama 3, Qwen) and SentencePiece-style BPE with
// byte fallback; see tokenizer_normalizer.h, pretokenizer.h and tokenizer_decoder.h for
// their parts. A file that asks for anything else is refused with an Error naming the
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

/// What counts instead of a file of the folder; empty: the folder's own.
struct TokenizerReplacements {
  std::filesystem::path chat_template_file;  ///< Jinja text in the place of all its chat templates
  std::string model_config;  ///< the text of a config.json: the folder is a checkpoint's
};

class Tokenizer {
 public:
  /// Reads from a model folder tokenizer.json and, where they are there,
  /// tokenizer_config.json (names and flags of the special tokens, chat template),
  /// special_tokens_map.json and added_tokens.json (which the config's
  /// added_tokens_decoder replaces), chat_template.jinja (goes before the config's
  /// template), generation_config.json and config.json (ids that end a sequence, BOS).
  /// tokenizer_config.h has the rules. Throws Error naming the file and the key.
  static Tokenizer load(const std::filesystem::path& folder, const TokenizerReplacements& instead);
  static Tokenizer load(const std::filesystem::path& folder) { return load(folder, {}); }

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Ids of `text`. Texts of added tokens ("<|im_end|>") become their ids. With
  /// add_special_tokens, what the file's post-processor adds is added: for most models
  /// BOS in front, or nothing. Throws Error when the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;

  /// Text of `ids`: valid UTF-8, with U+FFFD for bytes that are not. Ids without a
  /// token (a model may have more rows than its tokenizer has tokens) give nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// The bytes that one token adds to a text, perhaps a part of a character.
  /// `is_first`: no token stands before it.
  std::string token_bytes(int32_t id, bool is_first = false) const;

  /// 1 + the largest id. A model's embedding must have at least as many rows.
  int32_t vocab_size() const;
  /// What stands for the beginning of a text: bos_token, else the model's bos_token_id.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> pad_id() const;  ///< of pad_token
  /// Ids at which generation ends. The tokenizer's eos_token is always one of them, and
  /// the first; then come those of generation_config.json's eos_token_id or, where it
  /// has none, config.json's. Empty when no file names one.
  const std::vector<int32_t>& eos_ids() const;
  /// The one that ends a text: the first of eos_ids().
  std::optional<int32_t> eos_id() const;
  bool is_eos(int32_t id) const;
  /// Left out by decode(ids, true): flagged special in tokenizer.json or in
  /// tokenizer_config.json's added_tokens_decoder, or named by tokenizer_config.json or
  /// special_tokens_map.json ("pad_token", "additional_special_tokens").
  bool is_special(int32_t id) const;
  /// Whether the text of a special token stands in `text`.
  bool mentions_special_token(std::string_view text) const;

  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token as the file spells it; empty for an id without one.
  std::string_view id_to_token(int32_t id) const;

  /// The special tokens that a chat template knows by name, "bos_token" -> its text:
  /// transformers' special_tokens_map. Those of tokenizer_config.json and
  /// special_tokens_map.json alone: an id in generation_config.json or config.json
  /// gives none, and a name that is null or absent is not here.
  const std::map<std::string, std::string>& template_tokens() const;

  /// The raw Jinja text of the chat template; empty when the folder has none.
  const std::string& chat_template() const;
  /// The file the chat template came from, for messages.
  const std::string& chat_template_file() const;
  /// The template named "tool_use", which transformers takes for conversations with
  /// tools; empty when there is none.
  const std::string& tool_template() const;
  const std::string& tool_template_file() const;

 private:
  friend class IncrementalDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);

  std::unique_ptr<const Parts> parts_;
};

/// Text of a growing sequence, token by token, for stop strings and streaming: push()
/// returns the text that has become certain, always whole characters; what is
/// unfinished waits. All pushes and finish() together are decode(ids,
/// skip_special_tokens), except that malformed runs of SentencePiece byte tokens keep
/// their valid characters. Keeps a pointer to the tokenizer, which must outlive it. Not
/// thread-safe; one per sequence.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  std::string push(int32_t id);
  /// The text of an unfinished character at the end: U+FFFD, or nothing.
  std::string finish();

 private:
  std::string take(bool more_follows);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  bool is_first_ = true;
  int strip_left_;       // leading characters still to be taken
  std::string pending_;  // bytes not given out
};

}  // namespace orrery::text
