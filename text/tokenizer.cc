#include "text/tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/span.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_normalizer.h"
#include "text/tokenizer_special.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {

struct Tokenizer::Parts {
  Parts(TokenizerJson& parsed, const std::string& file, TokenizerConfig&& config_in);

  void add_token(const AddedToken& token, const std::string& file);
  void read_special_ids();
  std::optional<int32_t> named_id(const char* key) const;
  std::optional<int32_t> find(std::string_view token) const;
  std::string_view token(int32_t id) const;
  bool is_special(int32_t id) const { return id >= 0 && id < special.size() && special[id] != 0; }

  TokenizerConfig config;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  SequenceFrame frame;
  Vocabulary added;
  Array<uint8_t> special;  // 1 for an id of a special token
  std::vector<std::string> special_contents;
  std::map<std::string, std::string> template_tokens;
  AddedTokenFinder raw_finder, normalized_finder;
  BpeModel bpe;
  std::optional<int32_t> bos_id, pad_id;
  std::vector<int32_t> eos_ids;
};

Tokenizer::Parts::Parts(TokenizerJson& parsed, const std::string& file, TokenizerConfig&& config_in)
    : config(std::move(config_in)),
      normalizer(JsonNode(parsed.rest, file, "").member("normalizer")),
      pre_tokenizer(JsonNode(parsed.rest, file, "").member("pre_tokenizer")),
      decoder(JsonNode(parsed.rest, file, "").member("decoder")),
      bpe(parsed, file) {
  const JsonNode root(parsed.rest, file, "");
  for (const AddedTokenSource& added_token :
       merge_added_tokens(root.member("added_tokens"), file, config, bpe.vocabulary())) {
    add_token(added_token.token, added_token.file);
  }
  read_special_ids();
  frame = read_post_processor(root.member("post_processor"));
  for (const std::vector<int32_t>* ids : {&frame.prefix, &frame.suffix}) {
    for (const int32_t id : *ids) {
      if (token(id).empty())
        fail("{}: post_processor: no token has the id {} of its template", file, id);
    }
  }
}

void Tokenizer::Parts::add_token(const AddedToken& token, const std::string& file) {
  const int32_t model_id = bpe.vocabulary().find(token.content);
  const std::string_view model_token = bpe.vocabulary().token(token.id);
  if ((model_id >= 0 && model_id != token.id) ||
      (bpe.vocabulary().has(token.id) && model_token != token.content)) {
    fail("{}: added token \"{}\" with id {} contradicts model.vocab, where {}", file,
         token.content.substr(0, 80), token.id,
         model_id >= 0 ? fmt::format("it has the id {}", model_id)
                       : fmt::format("that id belongs to \"{}\"", model_token.substr(0, 80)));
  }
  if (added.add(token.content, token.id) != Vocabulary::Added::kNew) {
    fail("{}: added token \"{}\" has the id {} of another added token", file,
         token.content.substr(0, 80), token.id);
  }
  if (token.special) {
    if (token.id >= special.size()) special.resize(token.id + 1);
    special[token.id] = 1;
    special_contents.push_back(token.content);
  }
  if (token.special && config.split_special_tokens) return;
  if (token.normalized) {
    normalized_finder.add(normalizer.apply(token.content), token);
  } else {
    raw_finder.add(token.content, token);
  }
}

std::optional<int32_t> Tokenizer::Parts::named_id(const char* key) const {
  const std::string* content = config.name(key);
  return content == nullptr || content->empty() ? std::nullopt : find(*content);
}

void Tokenizer::Parts::read_special_ids() {
  for (const auto& [key, name] : config.names) {
    if (name.content) template_tokens.emplace(key, *name.content);
  }
  bos_id = named_id("bos_token");
  if (!bos_id) bos_id = config.bos_id;
  pad_id = named_id("pad_token");
  if (const std::optional<int32_t> eos = named_id("eos_token")) eos_ids.push_back(*eos);
  for (const int32_t id : config.eos_ids) {
    if (std::find(eos_ids.begin(), eos_ids.end(), id) == eos_ids.end()) eos_ids.push_back(id);
  }
}

std::optional<int32_t> Tokenizer::Parts::find(std::string_view token) const {
  int32_t id = added.find(token);
  if (id < 0) id = bpe.vocabulary().find(token);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

std::string_view Tokenizer::Parts::token(int32_t id) const {
  return added.has(id) ? added.token(id) : bpe.vocabulary().token(id);
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& folder,
                          const TokenizerReplacements& instead) {
  const std::filesystem::path file = folder / "tokenizer.json";
  if (!std::filesystem::exists(file)) {
    fail("{}: not found; a model folder needs a tokenizer.json (Hugging Face tokenizers format)",
         file.string());
  }
  TokenizerJson parsed = read_tokenizer_json(file);
  const JsonNode root(parsed.rest, file.string(), "");
  TokenizerConfig config = read_tokenizer_config(folder, root, instead.model_config);
  if (!instead.chat_template_file.empty())
    replace_chat_template(instead.chat_template_file, config);
  return Tokenizer(std::make_unique<const Parts>(parsed, file.string(), std::move(config)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    fail("text to encode is not UTF-8: byte {} of {} is malformed", bad, text.size());
  }
  const Parts& parts = *parts_;
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = parts.frame.prefix;
  for (const TextSegment& raw : parts.raw_finder.split(text)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    const std::string normalized =
        parts.normalizer.apply(text.substr(raw.begin, raw.end - raw.begin));
    for (const TextSegment& segment : parts.normalized_finder.split(normalized)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      const std::string_view part =
          std::string_view(normalized).substr(segment.begin, segment.end - segment.begin);
      const bool at_start = raw.begin == 0 && segment.begin == 0;
      for (const std::string& piece : parts.pre_tokenizer.apply(part, at_start))
        parts.bpe.encode(piece, ids);
    }
  }
  if (add_special_tokens)
    ids.insert(ids.end(), parts.frame.suffix.begin(), parts.frame.suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (skip_special_tokens && parts_->is_special(id)) continue;
    const std::string_view token = parts_->token(id);
    if (!token.empty()) tokens.emplace_back(token);
  }
  return parts_->decoder.decode(std::move(tokens));
}

std::string Tokenizer::token_bytes(int32_t id, bool is_first) const {
  const std::string_view token = parts_->token(id);
  return token.empty() ? std::string() : parts_->decoder.token_bytes(token, is_first);
}

int32_t Tokenizer::vocab_size() const {
  return std::max(parts_->bpe.vocabulary().size(), parts_->added.size());
}
std::optional<int32_t> Tokenizer::bos_id() const { return parts_->bos_id; }
std::optional<int32_t> Tokenizer::pad_id() const { return parts_->pad_id; }
const std::vector<int32_t>& Tokenizer::eos_ids() const { return parts_->eos_ids; }
std::optional<int32_t> Tokenizer::eos_id() const {
  return parts_->eos_ids.empty() ? std::nullopt : std::optional(parts_->eos_ids.front());
}
bool Tokenizer::is_eos(int32_t id) const {
  return std::find(parts_->eos_ids.begin(), parts_->eos_ids.end(), id) != parts_->eos_ids.end();
}
bool Tokenizer::is_special(int32_t id) const { return parts_->is_special(id); }
std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return parts_->find(token);
}
std::string_view Tokenizer::id_to_token(int32_t id) const { return parts_->token(id); }
bool Tokenizer::mentions_special_token(std::string_view text) const {
  return std::ranges::any_of(parts_->special_contents, [&](const std::string& content) {
    return text.find(content) != std::string_view::npos;
  });
}
const std::map<std::string, std::string>& Tokenizer::template_tokens() const {
  return parts_->template_tokens;
}
const std::string& Tokenizer::chat_template() const { return parts_->config.chat_template; }
const std::string& Tokenizer::chat_template_file() const {
  return parts_->config.chat_template_file;
}
const std::string& Tokenizer::tool_template() const { return parts_->config.tool_template; }
const std::string& Tokenizer::tool_template_file() const {
  return parts_->config.tool_template_file;
}

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      strip_left_(tokenizer.parts_->decoder.leading_strip().count) {}

std::string IncrementalDecoder::push(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->is_special(id)) return {};
  if (tokenizer_->id_to_token(id).empty()) return {};
  pending_ += tokenizer_->token_bytes(id, is_first_);
  is_first_ = false;
  return take(true);
}

std::string IncrementalDecoder::finish() { return take(false); }

std::string IncrementalDecoder::take(bool more_follows) {
  std::string text;
  pending_.erase(0, append_lossy_utf8(pending_, more_follows, text));
  const std::string& character = tokenizer_->parts_->decoder.leading_strip().character;
  while (strip_left_ > 0 && text.starts_with(character)) {
    text.erase(0, character.size());
    --strip_left_;
  }
  if (!text.empty()) strip_left_ = 0;
  return text;
}

}  // namespace orrery::text
