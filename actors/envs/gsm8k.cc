#include "actors/envs/gsm8k.h"

#include "actors/envs/single_turn.h"
#include "actors/envs/text.h"
#include "actors/jsonl.h"
#include "core/error.h"

namespace orrery {
namespace {

constexpr std::string_view kAnswerMark = "####";
constexpr std::string_view kBoxed = "\\boxed{";

struct Row {
  std::vector<ChatMessage> messages;
  std::string prompt, data_source, ground_truth;
  std::optional<std::string> solution;  // a teacher's answer
  std::string where;                    // file:line
};

/// The content of the last \boxed{...} with balanced braces.
std::optional<std::string_view> last_boxed(std::string_view text) {
  const size_t at = text.rfind(kBoxed);
  if (at == std::string_view::npos) return std::nullopt;
  const size_t begin = at + kBoxed.size();
  int depth = 1;
  for (size_t i = begin; i < text.size(); ++i) {
    depth += text[i] == '{' ? 1 : (text[i] == '}' ? -1 : 0);
    if (depth == 0) return text.substr(begin, i - begin);
  }
  return std::nullopt;
}

/// GSM8K's solutions carry calculator notes: "48/2 = <<48/2=24>>24".
std::string without_calculator_notes(const std::string& text) {
  std::string result;
  size_t at = 0;
  while (at < text.size()) {
    const size_t begin = text.find("<<", at);
    const size_t end = begin == std::string::npos ? begin : text.find(">>", begin);
    if (end == std::string::npos) break;
    result.append(text, at, begin - at);
    at = end + 2;
  }
  return result.append(text, at, std::string::npos);
}

Row parse_gsm8k(const nlohmann::json& object, const std::string& where) {
  Row row;
  row.prompt = json_string(object, "question", where);
  row.messages = {{"user", row.prompt}};
  row.data_source = "gsm8k";
  const std::string answer = json_string(object, "answer", where);
  const size_t mark = answer.rfind(kAnswerMark);
  if (mark == std::string::npos) fail("{}: \"answer\" has no \"#### number\"", where);
  const std::string_view final_answer = strip(std::string_view(answer).substr(mark + kAnswerMark.size()));
  row.ground_truth = normalize_number(final_answer).value_or(std::string(final_answer));
  if (row.ground_truth.empty()) fail("{}: nothing stands after \"####\"", where);
  row.solution = without_calculator_notes(answer);
  return row;
}

std::vector<ChatMessage> parse_messages(const nlohmann::json& prompt, const std::string& where) {
  std::vector<ChatMessage> messages;
  for (const auto& message : prompt) {
    if (!message.is_object())
      fail("{}: an entry of \"prompt\" is not a message with role and content", where);
    messages.push_back({json_string(message, "role", where), json_string(message, "content", where)});
  }
  if (messages.empty()) fail("{}: \"prompt\" has no messages", where);
  return messages;
}

Row parse_verl(const nlohmann::json& object, const std::string& where) {
  Row row;
  const auto& prompt = object.at("prompt");
  if (prompt.is_string()) {
    row.messages = {{"user", prompt.get<std::string>()}};
  } else if (prompt.is_array()) {
    row.messages = parse_messages(prompt, where);
  } else {
    fail("{}: \"prompt\" is {}, neither text nor a list of messages", where, prompt.type_name());
  }
  for (const ChatMessage& message : row.messages) {
    row.prompt += (row.prompt.empty() ? "" : "\n\n") + message.content;
  }
  row.data_source = object.contains("data_source") ? json_string(object, "data_source", where) : "gsm8k";
  const auto model = object.find("reward_model");
  if (model == object.end() || !model->is_object() || !model->contains("ground_truth")) {
    fail("{}: no \"reward_model\": {{\"ground_truth\": ...}}", where);
  }
  const auto& truth = (*model)["ground_truth"];
  // Before it is printed: printing recurses, and a list may be nested a million levels deep.
  if (!truth.is_string() && !truth.is_number()) fail("{}: ground_truth is {}", where, truth.type_name());
  const std::string text = truth.is_string() ? truth.get<std::string>() : truth.dump();
  row.ground_truth = normalize_number(text).value_or(std::string(strip(text)));
  if (row.ground_truth.empty()) fail("{}: ground_truth is empty", where);
  return row;
}

class Gsm8k final : public Environment {
 public:
  explicit Gsm8k(const proto::DataSection& data) {
    const bool skip = data.on_error() == proto::DataSection::SKIP;
    load({data.train_files().begin(), data.train_files().end()}, skip, train_);
    load({data.val_files().begin(), data.val_files().end()}, skip, val_);
    if (train_.empty() && val_.empty()) {
      fail_usage("data.env is gsm8k but neither data.train_files nor data.val_files is set");
    }
  }

  uint64_t size(Split split) const override { return rows(split).size(); }

  std::unique_ptr<Episode> reset(Split split, uint64_t index) const override {
    const auto& all = rows(split);
    if (index >= all.size()) {
      fail("item {} of {}; data.{} has {} rows", index,
           split == Split::kVal ? "the held-out set" : "the training set",
           split == Split::kVal ? "val_files" : "train_files", all.size());
    }
    const Row& row = all[index];
    return std::make_unique<SingleTurnEpisode>(row.messages, row.prompt, row.data_source,
                                               [truth = row.ground_truth](const std::string& response) {
                                                 const auto answer = extract_answer(response);
                                                 const bool correct = answer && answer->value == truth;
                                                 StepResult result;
                                                 result.reward = correct ? 1.0f : 0.0f;
                                                 result.extra["correct"] = correct ? 1 : 0;
                                                 result.extra["format"] = answer && answer->marked ? 1 : 0;
                                                 return result;
                                               });
  }

  std::string where(Split split, uint64_t index) const override { return rows(split)[index].where; }

  std::optional<Demonstration> demonstration(uint64_t index) const override {
    if (index >= train_.size() || !train_[index].solution) return std::nullopt;
    return Demonstration{train_[index].prompt, *train_[index].solution};
  }

 private:
  const std::vector<Row>& rows(Split split) const { return split == Split::kTrain ? train_ : val_; }

  static void load(const std::vector<std::string>& files, bool skip, std::vector<Row>& rows) {
    read_jsonl(files, skip, [&](const nlohmann::json& object, const std::string& where) {
      if (object.contains("question")) {
        rows.push_back(parse_gsm8k(object, where));
      } else if (object.contains("prompt")) {
        rows.push_back(parse_verl(object, where));
      } else {
        fail("{}: neither \"question\" (GSM8K's layout) nor \"prompt\" (verl's)", where);
      }
      rows.back().where = where;
    });
  }

  std::vector<Row> train_, val_;
};

}  // namespace

std::optional<ExtractedAnswer> extract_answer(std::string_view response) {
  if (const size_t mark = response.rfind(kAnswerMark); mark != std::string_view::npos) {
    std::string_view rest = response.substr(mark + kAnswerMark.size());
    rest = strip(rest.substr(0, rest.find('\n')));
    if (const auto number = normalize_number(rest)) return ExtractedAnswer{*number, true};
    if (const auto number = last_number(rest)) return ExtractedAnswer{*number, true};
    if (!rest.empty()) return ExtractedAnswer{std::string(rest), true};
  }
  if (const auto boxed = last_boxed(response)) {
    if (const auto number = normalize_number(*boxed)) return ExtractedAnswer{*number, true};
    if (const auto number = last_number(*boxed)) return ExtractedAnswer{*number, true};
    return ExtractedAnswer{std::string(strip(*boxed)), true};
  }
  if (const auto number = last_number(response)) return ExtractedAnswer{*number, false};
  return std::nullopt;
}

std::unique_ptr<Environment> make_gsm8k(const proto::DataSection& data) {
  return std::make_unique<Gsm8k>(data);
}

}  // namespace orrery
