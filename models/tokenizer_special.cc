#include "models/tokenizer_special.h"

#include <charconv>

#include "core/error.h"
#include "core/file.h"
#include "models/tokenizer_utf8.h"

namespace orrery {
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
  // A later template goes around what an earlier one has made.
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
    node.fail_here(
        fmt::format("post-processor type {} is not supported (supported: TemplateProcessing, ByteLevel, "
                    "Sequence)",
                    type.substr(0, 40)));
  }
}

/// A special token is named by its text, or by an object with its text and flags.
std::string token_name(const JsonNode& node) {
  if (node.is_null()) return {};
  return node.is_object() ? node.member("content").as_string() : node.as_string();
}

void read_chat_template(const JsonNode& node, TokenizerConfig& out) {
  if (node.is_null()) return;
  out.chat_template_file = node.place();
  if (!node.is_array()) {
    out.chat_template = node.as_string();
    return;
  }
  for (const JsonNode& item : node.items()) {
    if (item.string_or("name", "") == "default") {
      out.chat_template = item.member("template").as_string();
      return;
    }
  }
  node.fail_here("none of the chat templates has the name \"default\"");
}

int32_t parse_id(const std::string& text, const JsonNode& node) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0 || id >= Vocabulary::kMaxId) {
    node.fail_here("the key is not a token id");
  }
  return id;
}

void read_generation_config(const std::filesystem::path& file, TokenizerConfig& out) {
  if (!std::filesystem::exists(file)) return;
  const nlohmann::json parsed = read_json_object(file);
  const JsonNode root(parsed, file.string(), "");
  const JsonNode eos = root.member("eos_token_id"), bos = root.member("bos_token_id"),
                 pad = root.member("pad_token_id");
  if (eos.is_array()) {
    for (const JsonNode& id : eos.items()) out.eos_ids.push_back(id.as_id());
  } else if (!eos.is_null()) {
    out.eos_ids.push_back(eos.as_id());
  }
  if (!bos.is_null()) out.bos_id = bos.as_id();
  if (!pad.is_null()) out.pad_id = pad.as_id();
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

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig out;
  const std::filesystem::path file = folder / "tokenizer_config.json";
  out.file = file.string();
  if (std::filesystem::exists(file)) {
    const nlohmann::json parsed = read_json_object(file);
    const JsonNode root(parsed, out.file, "");
    out.bos_token = token_name(root.member("bos_token"));
    out.eos_token = token_name(root.member("eos_token"));
    out.pad_token = token_name(root.member("pad_token"));
    out.add_bos_token = root.bool_or("add_bos_token", false);
    out.add_eos_token = root.bool_or("add_eos_token", false);
    const JsonNode added = root.member("added_tokens_decoder");
    if (!added.is_null()) {
      for (const auto& [id, node] : added.members())
        out.added_tokens.push_back(read_added_token(node, parse_id(id, node)));
    }
    read_chat_template(root.member("chat_template"), out);
  }
  const std::filesystem::path jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) {
    out.chat_template = read_file(jinja);
    out.chat_template_file = jinja.string();
    if (find_invalid_utf8(out.chat_template) != std::string::npos)
      fail("{}: is not UTF-8 text", jinja.string());
  }
  read_generation_config(folder / "generation_config.json", out);
  return out;
}

}  // namespace orrery
