#include "text/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/lfs_pointer.h"
#include "text/tokenizer_special.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

namespace fs = std::filesystem;

bool is_extra_key(const std::string& key) {
  return key == "additional_special_tokens" || key == "extra_special_tokens";
}

bool is_name_key(const std::string& key) {
  return key.ends_with("_token") && key != "add_bos_token" && key != "add_eos_token";
}

/// The names whose value must have the right type. Any other key that ends in "_token"
/// may hold anything.
bool is_standard_name(const std::string& key) {
  static const std::vector<std::string> kNames = {
      "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
  return std::find(kNames.begin(), kNames.end(), key) != kNames.end();
}

/// A special token is named by its text, or by an object with its text and flags.
std::string token_text(const JsonNode& node) {
  return node.is_object() ? node.member("content").as_string() : node.as_string();
}

void read_name(const std::string& key, const JsonNode& node, TokenizerConfig& out) {
  if (node.is_null()) {
    out.names[key] = {std::nullopt, node.place()};
  } else if (is_standard_name(key) || node.is_string() || node.has("content")) {
    out.names[key] = {token_text(node), node.place()};
  }
}

void read_extra(const JsonNode& node, TokenizerConfig& out) {
  if (node.is_null()) return;
  if (node.is_object()) {
    for (const auto& [key, token] : node.members()) read_name(key, token, out);
    return;
  }
  for (const JsonNode& token : node.items()) out.extra_special.push_back(token_text(token));
}

void read_names(const JsonNode& root, TokenizerConfig& out) {
  for (const auto& [key, node] : root.members()) {
    if (is_extra_key(key)) {
      read_extra(node, out);
    } else if (is_name_key(key) && (is_standard_name(key) || out.name(key) == nullptr)) {
      read_name(key, node, out);
    }
  }
}

std::string read_template(const fs::path& file) {
  std::string text = read_model_file(file);
  if (find_invalid_utf8(text) != std::string::npos) fail("{}: is not UTF-8 text", file.string());
  return text;
}

void read_chat_template(const JsonNode& node, TokenizerConfig& out) {
  if (node.is_null()) return;
  out.chat_template_file = node.place();
  if (node.is_string()) {
    out.chat_template = node.as_string();
    return;
  }
  // Several templates have names. They are an object, or a list in which the last one
  // of a name counts.
  std::optional<std::string> text;
  if (node.is_object()) {
    if (node.has("default")) text = node.member("default").as_string();
    if (node.has("tool_use")) out.tool_template = node.member("tool_use").as_string();
  } else {
    for (const JsonNode& item : node.items()) {
      const std::string name = item.string_or("name", "");
      if (name == "default") text = item.member("template").as_string();
      if (name == "tool_use") out.tool_template = item.member("template").as_string();
    }
  }
  if (!text) node.fail_here("none of the chat templates has the name \"default\"");
  out.chat_template = *text;
  out.tool_template_file = out.chat_template_file + " (tool_use)";
}

int32_t parse_id(const std::string& text, const JsonNode& node) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0 ||
      id >= Vocabulary::kMaxId) {
    node.fail_here("the key is not a token id");
  }
  return id;
}

bool is_named(const std::string& content, const TokenizerConfig& config) {
  const auto is_content = [&](const auto& entry) { return entry.second.content == content; };
  return std::any_of(config.names.begin(), config.names.end(), is_content) ||
         std::find(config.extra_special.begin(), config.extra_special.end(), content) !=
             config.extra_special.end();
}

/// Reads {"<text>": id, ...}, which transformers wrote before it had an
/// added_tokens_decoder.
void read_added_tokens_file(const fs::path& file, TokenizerConfig& out) {
  if (!fs::exists(file)) return;
  const nlohmann::json parsed = read_json_object(file);
  for (const auto& [content, node] : JsonNode(parsed, file.string(), "").members()) {
    if (content.empty()) continue;
    AddedToken token;
    token.id = node.as_id();
    token.content = content;
    token.normalized = !is_named(content, out);
    out.added_tokens.push_back(token);
  }
}

/// Reads the ids of a file of the model. The first file that has an id counts.
void read_model_ids(const JsonNode& root, TokenizerConfig& out) {
  const JsonNode eos = root.member("eos_token_id"), bos = root.member("bos_token_id");
  if (out.eos_ids.empty()) {
    if (eos.is_array()) {
      for (const JsonNode& id : eos.items()) out.eos_ids.push_back(id.as_id());
    } else if (!eos.is_null()) {
      out.eos_ids.push_back(eos.as_id());
    }
  }
  if (!out.bos_id && !bos.is_null()) out.bos_id = bos.as_id();
}

void read_class_names(std::string tokenizer_class, const std::string& model_type,
                      const JsonNode& tokenizer_json, TokenizerConfig& out) {
  constexpr std::string_view kFast = "Fast";
  if (tokenizer_class.ends_with(kFast))
    tokenizer_class.resize(tokenizer_class.size() - kFast.size());
  const bool byte_level = tokenizer_json.text().find("\"ByteLevel\"") != std::string::npos;
  for (auto& [key, content] : class_token_names(tokenizer_class, model_type, byte_level)) {
    out.names.try_emplace(key, TokenName{content, ""});
  }
}

}  // namespace

const std::string* TokenizerConfig::name(const std::string& key) const {
  const auto found = names.find(key);
  return found == names.end() || !found->second.content ? nullptr : &*found->second.content;
}

std::map<std::string, std::string> class_token_names(std::string_view tokenizer_class,
                                                     std::string_view model_type, bool byte_level) {
  // transformers takes the class that tokenizer_config.json names, or the model type's
  // own class where it names none. For Qwen 2 it always takes the model type's class,
  // because many of its folders name another. For a byte-level Llama tokenizer, and for
  // every one of Mistral, it takes a class without defaults.
  if (model_type == "qwen2" || (model_type == "qwen3" && tokenizer_class.empty()))
    tokenizer_class = "Qwen2Tokenizer";
  if (model_type == "mistral") return {};
  if (tokenizer_class == "LlamaTokenizer" && !byte_level)
    return {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  const std::string end = "<|endoftext|>";
  if (tokenizer_class == "Qwen2Tokenizer")
    return {{"eos_token", end}, {"pad_token", end}, {"unk_token", end}};
  if (tokenizer_class == "GPT2Tokenizer")
    return {{"bos_token", end}, {"eos_token", end}, {"unk_token", end}};
  return {};
}

void replace_chat_template(const fs::path& file, TokenizerConfig& config) {
  if (!fs::is_regular_file(file)) {
    fail("{}: {}; give the file of a chat template (Jinja text)", file.string(),
         fs::exists(file) ? "not a file" : "there is no such file");
  }
  config.chat_template = read_template(file);
  config.chat_template_file = file.string();
  config.tool_template.clear();
  config.tool_template_file.clear();
  if (config.chat_template.find_first_not_of(" \t\r\n") == std::string::npos)
    fail("{}: empty, it holds no chat template", file.string());
}

TokenizerConfig read_tokenizer_config(const fs::path& folder, const JsonNode& tokenizer_json,
                                      const std::string& model_config) {
  TokenizerConfig out;
  const fs::path file = folder / "tokenizer_config.json", map = folder / "special_tokens_map.json";
  out.file = file.string();
  std::string tokenizer_class, model_type;
  if (fs::exists(file)) {
    const nlohmann::json parsed = read_json_object(file);
    const JsonNode root(parsed, out.file, "");
    read_names(root, out);
    tokenizer_class = root.string_or("tokenizer_class", "");
    out.split_special_tokens = root.bool_or("split_special_tokens", false);
    const JsonNode added = root.member("added_tokens_decoder");
    out.has_added_tokens_decoder = !added.is_null();
    if (out.has_added_tokens_decoder) {
      for (const auto& [id, node] : added.members())
        out.added_tokens.push_back(read_added_token(node, parse_id(id, node)));
    }
    read_chat_template(root.member("chat_template"), out);
  }
  if (!out.has_added_tokens_decoder) {
    if (fs::exists(map)) {
      const nlohmann::json parsed = read_json_object(map);
      read_names(JsonNode(parsed, map.string(), ""), out);
    }
    read_added_tokens_file(folder / "added_tokens.json", out);
  }
  const fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja)) {
    out.chat_template = read_template(jinja);
    out.chat_template_file = jinja.string();
    out.tool_template.clear();
    const fs::path tools = folder / "additional_chat_templates" / "tool_use.jinja";
    if (fs::exists(tools)) {
      out.tool_template = read_template(tools);
      out.tool_template_file = tools.string();
    }
  }
  const fs::path generation = folder / "generation_config.json", config = folder / "config.json";
  if (fs::exists(generation)) {
    const nlohmann::json parsed = read_json_object(generation);
    read_model_ids(JsonNode(parsed, generation.string(), ""), out);
  }
  if (!model_config.empty() || fs::exists(config)) {
    const nlohmann::json parsed = model_config.empty()
                                      ? read_json_object(config)
                                      : parse_json_object(model_config, config.string());
    const JsonNode root(parsed, config.string(), "");
    read_model_ids(root, out);
    if (root.member("model_type").is_string()) model_type = root.member("model_type").as_string();
  }
  read_class_names(tokenizer_class, model_type, tokenizer_json, out);
  return out;
}

}  // namespace orrery::text
