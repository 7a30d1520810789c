#include "text/tokenizer_special.h"

#include <map>
#include <set>

#include "core/error.h"

namespace orrery::text {
namespace {

void append_template(const JsonNode& node, SequenceFrame& frame) {
  SequenceFrame own;
  bool sequence_seen = false;
  const JsonNode special_tokens = node.member("special_tokens");
  for (const JsonNode& piece : node.member("single").items()) {
    if (piece.has("Sequence")) {
      if (sequence_seen || piece.member("Sequence").string_or("id", "") != "A") {
        piece.fail_here("a template of one sequence must hold the sequence A once");
      }
      sequence_seen = true;
      continue;
    }
    const std::string& name = piece.member("SpecialToken").member("id").as_string();
    for (const JsonNode& id : special_tokens.member(name.c_str()).member("ids").items()) {
      (sequence_seen ? own.suffix : own.prefix).push_back(id.as_id());
    }
  }
  if (!sequence_seen)
    node.member("single").fail_here("a template of one sequence must hold the sequence A once");
  // The ids of a later template go around those of an earlier one.
  frame.prefix.insert(frame.prefix.begin(), own.prefix.begin(), own.prefix.end());
  frame.suffix.insert(frame.suffix.end(), own.suffix.begin(), own.suffix.end());
}

void append_post_processor(const JsonNode& node, int depth, SequenceFrame& frame) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= 8) node.fail_here("sequences nested too deep");
    for (const JsonNode& item : node.member("processors").items())
      append_post_processor(item, depth + 1, frame);
  } else if (type == "TemplateProcessing") {
    append_template(node, frame);
  } else if (type != "ByteLevel") {
    node.fail_here(fmt::format(
        "post-processor type {} is not supported (supported: TemplateProcessing, ByteLevel, "
        "Sequence)",
        type.substr(0, 40)));
  }
}

/// The tokens so far. They can be found by text.
struct TokenList {
  std::vector<AddedTokenSource> tokens;
  std::map<std::string, size_t, std::less<>> by_content;

  AddedToken* find(const std::string& content) {
    const auto found = by_content.find(content);
    return found == by_content.end() ? nullptr : &tokens[found->second].token;
  }
  void add(AddedToken token, const std::string& file) {
    by_content.emplace(token.content, tokens.size());
    tokens.push_back({std::move(token), file});
  }
};

void read_added_tokens(const JsonNode& added_tokens, const std::string& file, TokenList& out) {
  if (added_tokens.is_null()) return;
  std::set<int32_t> ids;
  for (const JsonNode& node : added_tokens.items()) {
    const AddedToken token = read_added_token(node);
    if (out.find(token.content) != nullptr || !ids.insert(token.id).second) {
      node.fail_here(fmt::format("token \"{}\" with id {} repeats a text or an id of another entry",
                                 token.content.substr(0, 80), token.id));
    }
    out.add(token, file);
  }
}

/// Applies a token's entry in another file: it changes the flags.
void change_flags(AddedToken& token, const AddedToken& entry) {
  const AddedToken before = token;
  token = entry;
  token.id = before.id;
  token.special = before.special || entry.special;
}

/// False when no token has this text.
bool make_special(const std::string& content, const Vocabulary& vocabulary, const std::string& file,
                  TokenList& out) {
  if (AddedToken* token = out.find(content)) {
    token->special = true;
    return true;
  }
  const int32_t id = vocabulary.find(content);
  if (id < 0) return false;
  AddedToken token;
  token.id = id;
  token.content = content;
  token.special = true;
  out.add(token, file);
  return true;
}

}  // namespace

SequenceFrame read_post_processor(const JsonNode& node) {
  SequenceFrame frame;
  append_post_processor(node, 0, frame);
  return frame;
}

AddedToken read_added_token(const JsonNode& node, std::optional<int32_t> id) {
  AddedToken token;
  token.id = id ? *id : node.member("id").as_id();
  token.content = node.member("content").as_string();
  if (token.content.empty()) node.member("content").fail_here("an added token needs a text");
  token.special = node.bool_or("special", false);
  token.single_word = node.bool_or("single_word", false);
  token.lstrip = node.bool_or("lstrip", false);
  token.rstrip = node.bool_or("rstrip", false);
  token.normalized = node.bool_or("normalized", !token.special);
  return token;
}

std::vector<AddedTokenSource> merge_added_tokens(const JsonNode& added_tokens,
                                                 const std::string& file,
                                                 const TokenizerConfig& config,
                                                 const Vocabulary& vocabulary) {
  TokenList list;
  read_added_tokens(added_tokens, file, list);
  for (const AddedToken& entry : config.added_tokens) {
    AddedToken* token = list.find(entry.content);
    if (token == nullptr) {
      list.add(entry, config.file);
    } else if (config.has_added_tokens_decoder) {
      change_flags(*token, entry);
    }
  }
  for (const auto& [key, name] : config.names) {
    if (!name.content || name.content->empty()) continue;
    const bool known = make_special(*name.content, vocabulary, file, list);
    if (!known && !name.place.empty() && (key == "bos_token" || key == "eos_token")) {
      fail("{}: \"{}\" is not in the vocabulary of tokenizer.json", name.place,
           name.content->substr(0, 80));
    }
  }
  for (const std::string& content : config.extra_special)
    make_special(content, vocabulary, file, list);
  return std::move(list.tokens);
}

}  // namespace orrery::text
