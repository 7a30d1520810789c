#include "experiments/sft_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <string_view>

#include "actors/envs/single_turn.h"
#include "actors/jsonl.h"
#include "core/ascii.h"
#include "core/error.h"

namespace orrery::experiments {
namespace {

constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};
constexpr const char* kAssistant = "assistant";
/// How many rows are read between two signs of life for the watchdog.
constexpr size_t kRowsBetweenSigns = 1000;

/// A row as it stands in its file.
struct Row {
  std::vector<text::ChatMessage> messages;  // before the answer
  std::string prompt;                       // the same as plain text
  text::OrderedJson tools;
  text::ChatMessage answer;
  text::LearnedTurns turns = text::LearnedTurns::kLast;
  double weight = 1;
  std::string where;  // file:line
};

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

/// Whether an assistant's message has anything to learn: a text, calls of tools, or
/// thoughts.
bool says_something(const text::ChatMessage& message) {
  if (!is_blank(message.content)) return true;
  if (!message.more.is_object()) return false;
  for (const char* key : {"tool_calls", "reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.more.find(key);
    if (found == message.more.end() || found->is_null()) continue;
    if (found->is_string() ? !is_blank(found->get_ref<const std::string&>()) : !found->empty())
      return true;
  }
  return false;
}

bool has_calls(const text::ChatMessage& message) {
  const auto found =
      message.more.is_object() ? message.more.find("tool_calls") : message.more.end();
  return message.more.is_object() && found != message.more.end() && !found->is_null() &&
         !found->empty();
}

/// Reads rows. `key` names the files in messages.
class RowReader {
 public:
  RowReader(const std::string& key, bool chat) : key_(key), chat_(chat) {}

  Row read(const nlohmann::json& object, const std::string& where, std::string_view line) const {
    Row row;
    row.where = where;
    row.weight = weight(object, where);
    const bool messages = has(object, "messages"), prompt = has(object, "prompt");
    const bool response = has(object, "response"), completion = has(object, "completion");
    const char* answer = response ? "response" : "completion";
    if (response && completion)
      fail(
          "{}: both \"response\" and \"completion\", which are two names for one thing: "
          "leave one out",
          where);
    if (messages && (response || completion))
      fail("{}: both \"messages\" and \"{}\": leave one out, as either says what is learned", where,
           answer);
    if (!messages && !(prompt && (response || completion)))
      fail_no_row(object, where, prompt, answer);
    // Templates print objects with their keys in the order in which they stand.
    const text::OrderedJson ordered =
        text::OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (const auto tools = ordered.find("tools"); tools != ordered.end() && !tools->is_null()) {
      if (!tools->is_array()) fail("{}: \"tools\" is {}, not a list", where, tools->type_name());
      text::check_json_depth(*tools, where);
      row.tools = *tools;
    }
    if (messages) {
      read_messages(ordered.at("messages"), row);
    } else {
      read_prompt(ordered.at("prompt"), row);
      read_answer(ordered.at(answer), answer, row);
    }
    return row;
  }

 private:
  /// Tables that became JSON have null where a row has no such column.
  static bool has(const nlohmann::json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && !found->is_null();
  }

  [[noreturn]] void fail_no_row(const nlohmann::json& object, const std::string& where, bool prompt,
                                const char* answer) const {
    if (prompt) fail("{}: a \"prompt\" without a \"response\" (or \"completion\")", where);
    if (has(object, answer)) fail("{}: a \"{}\" without a \"prompt\"", where, answer);
    constexpr size_t kShownKeys = 6, kShownBytes = 40;
    std::string keys;
    size_t count = 0;
    for (const auto& [name, value] : object.items()) {
      if (count++ == kShownKeys) break;
      keys += (keys.empty() ? "" : ", ") +
              nlohmann::json(name.substr(0, kShownBytes))
                  .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }
    if (count > kShownKeys) keys += ", ...";
    fail("{}: a row of {} has \"prompt\" and \"response\", or \"messages\"; this one has {}", where,
         key_, keys.empty() ? "no keys" : keys);
  }

  static double weight(const nlohmann::json& object, const std::string& where) {
    const auto found = object.find("weight");
    if (found == object.end()) return 1;
    if (!found->is_number())
      fail("{}: \"weight\" is {}, not a number", where,
           found->is_null() ? "null" : found->type_name());
    const auto value = found->get<double>();
    if (!std::isfinite(value) || value < 0)
      fail("{}: \"weight\" is {}: it must be finite and not below 0", where, value);
    return value == 0 ? 0 : value;  // not -0
  }

  static void check_role(const text::ChatMessage& message, const std::string& where) {
    if (std::find(kRoles.begin(), kRoles.end(), message.role) != kRoles.end()) return;
    fail("{}: a message has the role {}; the roles are system, user, assistant and tool", where,
         nlohmann::json(message.role.substr(0, 40))
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }

  /// OpenAI's fine-tuning format has weights of 0 and 1 in an assistant's messages.
  static void check_no_weight(const text::ChatMessage& message, size_t index,
                              const std::string& where) {
    if (message.role != kAssistant || !message.more.is_object()) return;
    const auto found = message.more.find("weight");
    if (found == message.more.end() || found->is_null() || (found->is_number() && *found == 1))
      return;
    fail(
        "{}: message {} has a \"weight\" of its own, and a weight is of a row: "
        "give the answers that are to be learned as rows of \"prompt\" and \"response\"",
        where, index + 1);
  }

  void read_messages(const text::OrderedJson& list, Row& row) const {
    if (!chat_) {
      fail_usage(
          "{}: a row of \"messages\" is printed by the model's chat template: "
          "set data.apply_chat_template: true, or give rows of \"prompt\" and \"response\"",
          row.where);
    }
    row.messages = text::chat_messages_from_json(list, row.where);
    const auto is_assistant = [](const text::ChatMessage& message) {
      return message.role == kAssistant;
    };
    for (size_t i = 0; i < row.messages.size(); ++i) {
      check_role(row.messages[i], row.where);
      if (is_assistant(row.messages[i]) && !says_something(row.messages[i]))
        fail("{}: message {} is the assistant's and has no text, so there is nothing to learn",
             row.where, i + 1);
      check_no_weight(row.messages[i], i, row.where);
    }
    const auto last = std::find_if(row.messages.rbegin(), row.messages.rend(), is_assistant);
    if (last == row.messages.rend())
      fail("{}: none of the messages is the assistant's, so there is nothing to learn", row.where);
    if (is_assistant(row.messages.front()))
      fail("{}: the first message is the assistant's, so there is nothing that it answers",
           row.where);
    row.answer = std::move(*last);
    row.messages.erase(std::prev(last.base()), row.messages.end());
    row.turns = text::LearnedTurns::kAll;
  }

  static void read_prompt(const text::OrderedJson& prompt, Row& row) {
    if (prompt.is_string()) {
      row.prompt = prompt.get<std::string>();
      row.messages = {{"user", row.prompt, {}}};
      return;
    }
    if (!prompt.is_array())
      fail("{}: \"prompt\" is {}, neither text nor a list of messages", row.where,
           prompt.type_name());
    row.messages = text::chat_messages_from_json(prompt, row.where);
    for (const text::ChatMessage& message : row.messages) {
      check_role(message, row.where);
      row.prompt += (row.prompt.empty() ? "" : "\n\n") + message.content;
    }
  }

  void read_answer(const text::OrderedJson& value, const char* key, Row& row) const {
    if (value.is_string()) {
      row.answer = {kAssistant, value.get<std::string>(), {}};
    } else if (value.is_object() || (value.is_array() && value.size() == 1)) {
      row.answer =
          text::chat_message_from_json(value.is_object() ? value : value.front(), row.where);
      if (row.answer.role != kAssistant)
        fail("{}: \"{}\" is a message of another role than the assistant", row.where, key);
    } else if (value.is_array()) {
      fail(
          "{}: \"{}\" is a list of {} messages: give the assistant's alone, "
          "or the whole as \"messages\"",
          row.where, key, value.size());
    } else {
      fail("{}: \"{}\" is {}, neither text nor the assistant's message", row.where, key,
           value.type_name());
    }
    if (!says_something(row.answer))
      fail("{}: \"{}\" has no text, so there is nothing to learn", row.where, key);
    if (!chat_ && (is_blank(row.answer.content) || has_calls(row.answer))) {
      fail_usage(
          "{}: \"{}\" has calls or thoughts, which a chat template prints: "
          "set data.apply_chat_template: true",
          row.where, key);
    }
  }

  const std::string& key_;
  bool chat_;
};

/// Cuts what stands behind the first end-of-sequence token, as a text may bring its
/// own.
void end_at_first_end(const text::Tokenizer& tokenizer, std::vector<int32_t>& response) {
  const auto end = std::find_if(response.begin(), response.end(),
                                [&](int32_t id) { return tokenizer.is_eos(id); });
  if (end != response.end()) response.erase(end + 1, response.end());
}

}  // namespace

SftRows::SftRows(const std::string& key, const std::vector<std::string>& files,
                 const proto::Config& config, const actors::PromptSource& source,
                 const text::Tokenizer& tokenizer, const actors::CheckSetup& setup) {
  for (const std::string& file : files) {
    if (!std::filesystem::exists(file))
      fail_usage("cannot open {}: there is no such file; check {}", file, key);
  }
  const bool skip = config.data().on_error() == proto::DataSection::SKIP;
  const int64_t max_length = config.sft().max_length();
  const RowReader reader(key, source.is_chat());
  std::vector<Row> rows;
  actors::read_jsonl(
      files, skip,
      [&](const nlohmann::json& object, const std::string& where, std::string_view line) {
        rows.push_back(reader.read(object, where, line));
        if (setup.on_progress && rows.size() % kRowsBetweenSigns == 0) setup.on_progress();
      });

  std::vector<SftExample> all(rows.size());
  Cuts cuts(rows.size());
  actors::ItemCheck check;
  check.noun = "rows of " + key;
  check.count = check.wanted = rows.size();
  check.skip = skip;
  check.problem = [&](uint64_t i) -> actors::ItemProblem {
    Row row = std::move(rows[i]);
    rows[i].where = row.where;
    SftExample& example = all[i];
    try {
      const actors::SingleTurnEpisode episode(std::move(row.messages), std::move(row.prompt), "sft",
                                              {}, std::move(row.tools));
      text::ChatExample& tokens = example;
      tokens = source.example(episode, row.answer, row.turns);
    } catch (const Error& error) {
      return {fmt::format("{}: {}", row.where, error.what())};
    }
    example.weight = row.weight;
    if (!source.is_chat()) end_at_first_end(tokenizer, example.response);
    actors::ItemProblem found = sft_problem(example, max_length, row.where, "the response");
    if (found.text.empty() && example.tokens() > max_length) {
      cuts.add(i, example.tokens());
      cut_example(example, max_length);
    }
    return found;
  };
  const actors::UsableItems usable = actors::find_usable(setup, check);
  examples_.reserve(usable.size());
  for (uint64_t i = 0; i < usable.size(); ++i) examples_.push_back(std::move(all[usable[i]]));
  if (setup.tell)
    cuts.tell(check.noun.c_str(), max_length, [&](uint64_t i) { return rows[i].where; });
  if (std::all_of(examples_.begin(), examples_.end(),
                  [](const SftExample& one) { return one.weight == 0; })) {
    fail_usage(
        "every row of {} has \"weight\" 0, so that none has a loss: give some a weight above 0",
        key);
  }
}

void check_plain_text(const std::string& file, const std::string& text) {
  constexpr int kLines = 10;
  const std::string extension = to_lower(std::filesystem::path(file).extension().string());
  bool json = extension == ".jsonl" || extension == ".json" || extension == ".ndjson";
  if (!json) {
    std::istringstream lines(text);
    int objects = 0;
    for (std::string line; objects < kLines && std::getline(lines, line);) {
      if (is_blank(line)) continue;
      const auto value = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!value.is_object()) {
        objects = 0;
        break;
      }
      ++objects;
    }
    json = objects > 0;
  }
  if (!json) return;
  fail_usage(
      "sft.text_files: {} is JSON, which would be learned as it stands, braces and all: "
      "give it as sft.train_files, whose rows have \"prompt\" and \"response\", or \"messages\"",
      file);
}

}  // namespace orrery::experiments
