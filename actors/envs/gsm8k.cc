#include "actors/envs/gsm8k.h"

#include "actors/envs/answer.h"
#include "actors/envs/reward_rule.h"
#include "actors/envs/row_files.h"
#include "actors/envs/row_prompt.h"
#include "actors/envs/single_turn.h"
#include "actors/envs/text.h"
#include "actors/jsonl.h"
#include "core/error.h"

namespace orrery::actors {
namespace {

constexpr std::string_view kAnswerMark = "####";

struct MathRow {
  std::vector<text::ChatMessage> messages;
  text::OrderedJson tools;  // null where the row has none
  std::string prompt, data_source;
  std::vector<std::string> truths;  // answers, each of which is right
  proto::RewardRule rule = proto::GSM8K;
  std::optional<std::string> solution;  // a teacher's answer
  std::string where;                    // file:line
};

/// A file's text in a message: on one line, and short.
std::string in_quotes(const std::string& text) {
  constexpr size_t kShown = 80;
  return nlohmann::json(text.substr(0, kShown))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

struct SourceLine {
  const nlohmann::json& object;
  std::string_view line;
  const std::string& where;
};

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

/// Reads a ground truth: a text, a number as the file writes it, or a list of these in
/// which each is right.
std::vector<std::string> truths_at(const nlohmann::json& truth,
                                   const std::vector<std::string>& path, const SourceLine& source) {
  // Before anything is printed: printing recurses, and a list may be nested a million
  // levels deep.
  const auto check = [&](const nlohmann::json& value) {
    if (!value.is_string() && !value.is_number()) {
      fail("{}: {} is {}, neither text nor a number", source.where, path.back(), value.type_name());
    }
  };
  const bool list = truth.is_array();
  if (!list) check(truth);
  if (list && truth.empty()) fail("{}: {} is an empty list", source.where, path.back());
  const std::vector<std::string> numbers = json_number_texts(source.line, path);
  size_t next_number = 0;
  std::vector<std::string> truths;
  for (size_t i = 0; i < (list ? truth.size() : 1); ++i) {
    const nlohmann::json& value = list ? truth[i] : truth;
    check(value);
    if (value.is_number()) ORRERY_CHECK(next_number < numbers.size(), "{}: numbers", source.where);
    truths.push_back(value.is_string() ? value.get<std::string>() : numbers[next_number++]);
  }
  return truths;
}

MathRow question_row(const std::string& question, const std::string& data_source,
                     proto::RewardRule rule) {
  MathRow row;
  row.prompt = question;
  row.messages = {{"user", question}};
  row.data_source = data_source;
  row.rule = rule;
  return row;
}

MathRow parse_gsm8k(const SourceLine& source) {
  MathRow row =
      question_row(json_string(source.object, "question", source.where), "gsm8k", proto::GSM8K);
  const std::string answer = json_string(source.object, "answer", source.where);
  const size_t mark = answer.rfind(kAnswerMark);
  if (mark == std::string::npos) fail("{}: \"answer\" has no \"#### number\"", source.where);
  const std::string_view final_answer =
      strip(std::string_view(answer).substr(mark + kAnswerMark.size()));
  if (final_answer.empty()) fail("{}: nothing stands after \"####\"", source.where);
  row.truths = {std::string(final_answer)};
  row.solution = without_calculator_notes(answer);
  return row;
}

MathRow parse_math(const SourceLine& source) {
  MathRow row =
      question_row(json_string(source.object, "problem", source.where), "math", proto::MATH_BOXED);
  if (source.object.contains("solution"))
    row.solution = json_string(source.object, "solution", source.where);
  if (source.object.contains("answer")) {
    row.truths = truths_at(source.object.at("answer"), {"answer"}, source);
  } else if (row.solution && last_boxed_answer(*row.solution)) {
    row.truths = {*row.solution};
  } else {
    fail("{}: neither an \"answer\" nor a \"solution\" with \\boxed{{...}}", source.where);
  }
  return row;
}

MathRow parse_verl(const SourceLine& source) {
  MathRow row;
  const auto& [object, line, where] = source;
  RowPrompt prompt = row_prompt(object, "prompt", line, where);
  row.messages = std::move(prompt.messages);
  row.tools = std::move(prompt.tools);
  row.prompt = std::move(prompt.text);
  row.data_source = "gsm8k";
  const auto model = object.find("reward_model");
  if (model == object.end() || !model->is_object() || !model->contains("ground_truth")) {
    fail("{}: no \"reward_model\": {{\"ground_truth\": ...}}", where);
  }
  row.truths = truths_at((*model)["ground_truth"], {"reward_model", "ground_truth"}, source);
  return row;
}

/// Reads a row by its layout. A row that has all of verl's keys is verl's, whatever
/// other keys it has.
MathRow parse_layout(const SourceLine& source) {
  const nlohmann::json& object = source.object;
  if (object.contains("prompt") && object.contains("reward_model")) return parse_verl(source);
  if (object.contains("question")) return parse_gsm8k(source);
  if (object.contains("problem")) return parse_math(source);
  if (object.contains("prompt")) return parse_verl(source);
  fail("{}: neither \"question\" (GSM8K's layout) nor \"problem\" (MATH's) nor \"prompt\" (verl's)",
       source.where);
}

MathRow parse_row(const SourceLine& source, const proto::DataSection& data) {
  const std::string& where = source.where;
  MathRow row = parse_layout(source);
  row.where = where;
  const auto named = source.object.find("data_source");
  const bool has_source = named != source.object.end() && !named->is_null();
  if (has_source) row.data_source = json_string(source.object, "data_source", where);
  if (data.reward_rule() != proto::AUTO) {
    row.rule = data.reward_rule();
  } else if (has_source) {
    const auto rule = rule_of_source(row.data_source);
    if (!rule) {
      // Also with data.on_error: skip, as most likely all rows of the set have that
      // name.
      fail_usage(
          "{}: there is no reward rule for data_source {} (known: {}); "
          "set data.reward_rule to gsm8k or math-boxed to grade every row by it",
          where, in_quotes(row.data_source), known_sources());
    }
    row.rule = *rule;
  }
  const Grader grader(row.rule, data.answer_extraction(), row.truths);
  for (const std::string& truth : row.truths) {
    if (!grader.can_be_met(truth)) {
      fail(
          "{}: no response could earn the reward of the ground truth {}: "
          "it is empty or not an answer that can stand {}",
          where, in_quotes(truth),
          row.rule == proto::MATH_BOXED ? "in \\boxed{}" : "in \\boxed{} or after ####");
    }
  }
  return row;
}

class Gsm8k final : public Environment {
 public:
  explicit Gsm8k(const proto::DataSection& data)
      : extraction_(data.answer_extraction()),
        rows_(data, "gsm8k",
              [&](const nlohmann::json& object, const std::string& where, std::string_view line) {
                return parse_row({object, line, where}, data);
              }) {}

  uint64_t size(Split split) const override { return rows_.of(split).size(); }

  std::unique_ptr<Episode> reset(Split split, uint64_t index) const override {
    const auto& all = rows_.of(split);
    if (index >= all.size()) {
      fail("item {} of {}; data.{} has {} rows", index,
           split == Split::kVal ? "the held-out set" : "the training set",
           split == Split::kVal ? "val_files" : "train_files", all.size());
    }
    const MathRow& row = all[index];
    return std::make_unique<SingleTurnEpisode>(
        row.messages, row.prompt, row.data_source,
        [grader = Grader(row.rule, extraction_, row.truths)](const std::string& response) {
          const Grade grade = grader.grade(response);
          StepResult result;
          result.reward = grade.correct ? 1.0f : 0.0f;
          result.extra["correct"] = grade.correct ? 1 : 0;
          result.extra["format"] = grade.marked ? 1 : 0;
          return result;
        },
        row.tools, fmt::format("{}", fmt::join(row.truths, " or ")));
  }

  std::string where(Split split, uint64_t index) const override {
    return rows_.of(split)[index].where;
  }

  DataRow data_row(Split split, uint64_t index) const override {
    return data_row_at(where(split, index));
  }

  std::vector<std::string> reward_parts() const override { return {"correct", "format"}; }

  std::optional<Demonstration> demonstration(uint64_t index) const override {
    const auto& train = rows_.of(Split::kTrain);
    if (index >= train.size() || !train[index].solution) return std::nullopt;
    return Demonstration{train[index].prompt, *train[index].solution};
  }

 private:
  proto::DataSection::AnswerExtraction extraction_;
  RowFiles<MathRow> rows_;
};

}  // namespace

std::unique_ptr<Environment> make_gsm8k(const proto::DataSection& data) {
  return std::make_unique<Gsm8k>(data);
}

}  // namespace orrery::actors
