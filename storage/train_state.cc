#include "storage/train_state.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_read.h"

namespace orrery::storage {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kMaxSteps = int64_t{1} << 53;  // so that their sum is one too
constexpr double kMaxScore = 1e300;

}  // namespace

std::string step_text(const TrainState& state) {
  return fmt::format("step {} ({} {})", state.step(), state.stage(), state.stage_step());
}

std::string state_to_json(const TrainState& state) {
  nlohmann::json json = {{"format", kFormat},
                         {"sft_step", state.sft_step},
                         {"rl_step", state.rl_step},
                         {"adam_t", state.adam_t},
                         {"reward", state.reward}};
  if (state.skipped_steps > 0) json["skipped_steps"] = state.skipped_steps;
  if (state.start_largest) json["start_largest"] = *state.start_largest;
  if (state.val_before) json["val_before"] = *state.val_before;
  if (state.val_after) json["val_after"] = *state.val_after;
  if (state.validation_due) json["validation_due"] = true;
  return json.dump();
}

TrainState state_from_json(const nlohmann::json& value, const std::string& where) {
  const JsonObject object(value, where);
  const int64_t format = object.integer("format", 0, INT64_MAX);
  if (format != kFormat) fail("{} is of format {}; this program reads {}", where, format, kFormat);
  TrainState state;
  state.sft_step = object.integer("sft_step", 0, kMaxSteps);
  state.rl_step = object.integer("rl_step", 0, kMaxSteps);
  state.adam_t = object.integer("adam_t", 0, kMaxSteps);
  state.skipped_steps = object.integer("skipped_steps", 0, kMaxSteps, 0);
  // JSON has no infinity and no NaN: such a score is written as null, and none is read
  // back.
  const auto score = [&](const char* key) -> std::optional<double> {
    if (object.find(key) == nullptr) return std::nullopt;
    return object.number(key, -kMaxScore, kMaxScore);
  };
  if (!object.has_key("reward")) object.reject("reward", "a number is needed");
  state.reward = score("reward").value_or(std::nan(""));
  state.val_before = score("val_before");
  state.val_after = score("val_after");
  if (object.find("start_largest") != nullptr)
    state.start_largest = object.number("start_largest", 0, kMaxScore);
  state.validation_due = object.boolean("validation_due", false);
  return state;
}

}  // namespace orrery::storage
