#include "experiments/rollout_records.h"

#include <filesystem>

#include "core/error.h"
#include "core/log.h"
#include "launch/run_folder.h"
#include "rollout/rollout_file.h"

namespace orrery::experiments {

std::vector<std::string> prompt_texts(std::span<const rollout::Group> groups,
                                      const text::Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const rollout::Group& group : groups) {
    texts.push_back(group.samples.empty() ? ""
                                          : tokenizer.decode(group.samples.front().prompt_tokens,
                                                             /*skip_special_tokens=*/false));
  }
  return texts;
}

void save_rollouts(const Job& job, const storage::TrainState& state, const char* stage,
                   std::span<const rollout::Group> groups,
                   const std::optional<rollout::DrawRecord>& drawn) {
  const bool validation = std::string_view(stage) == rollout::kValidationStage;
  const std::filesystem::path path = launch::rollout_path(job.run_dir, state.step(), validation);
  try {
    std::error_code error;
    std::filesystem::create_directories(path.parent_path(), error);
    if (error) fail("cannot create {}: {}", path.parent_path().string(), error.message());
    const std::vector<std::string> texts = prompt_texts(groups, job.tokenizer);
    rollout::write_rollout_file(path, state.step(), groups, state.rl_step, {stage, texts, drawn});
  } catch (const Error& error) {
    spdlog::error("the rollouts of {}{} are not kept, training goes on: {}",
                  validation ? "the validation at " : "", storage::step_text(state), error.what());
  }
}

nlohmann::ordered_json sample_to_json(const rollout::Trajectory& sample,
                                      const std::string* prompt_text) {
  nlohmann::ordered_json object = {
      {"prompt_index", sample.prompt_index},
      {"sample_index", sample.sample_index},
      {"data_source", sample.data_source},
      {"file", nullptr},
      {"row", nullptr},
      {"reward", sample.reward},
      {"reward_extra", sample.reward_extra},
      {"finish_reason", rollout::finish_reason_name(sample.finish_reason)},
      {"prompt", nullptr},
      {"truth", nullptr},
      {"response", sample.response_text},
      {"prompt_length", sample.prompt_tokens.size()},
      {"response_length", sample.tokens.size()}};
  if (!sample.data_file.empty()) object["file"] = sample.data_file;
  if (sample.data_row != 0) object["row"] = sample.data_row;
  if (prompt_text != nullptr) object["prompt"] = *prompt_text;
  if (!sample.truth.empty()) object["truth"] = sample.truth;
  return object;
}

std::string json_line(const nlohmann::ordered_json& object) {
  const std::string plain = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  // JSON escapes what is below a space. DEL and U+0080 to U+009F, which stand in texts
  // alone, drive terminals too.
  std::string line;
  line.reserve(plain.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    const auto byte = static_cast<unsigned char>(plain[i]);
    const auto next = static_cast<unsigned char>(i + 1 < plain.size() ? plain[i + 1] : 0);
    if (byte == 0x7F) {
      line += "\\u007f";
    } else if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {
      line += fmt::format("\\u{:04x}", next);
      ++i;
    } else {
      line.push_back(plain[i]);
    }
  }
  return line;
}

bool is_correct(const rollout::Trajectory& sample) {
  const auto correct = sample.reward_extra.find("correct");
  return correct != sample.reward_extra.end() ? correct->second > 0.5 : sample.reward >= 1.0f;
}

}  // namespace orrery::experiments
