#include "actors/envs/external_protocol.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::actors {
namespace {

constexpr size_t kMaxRewardParts = 64, kLongestName = 64;

/// Reads a number or a boolean; nothing when the value is neither.
std::optional<double> number_of(std::string_view value) {
  if (value == "true") return 1;
  if (value == "false") return 0;
  if (value.front() != '-' && !is_digit(value.front())) return std::nullopt;
  return nlohmann::json::parse(value).get<double>();
}

const char* kind_of(std::string_view value) {
  switch (value.front()) {
    case '"':
      return "text";
    case '{':
      return "an object";
    case '[':
      return "a list";
    case 'n':
      return "null";
    default:
      return "a number or a boolean";
  }
}

float reward_of(std::string_view value) {
  const auto reward = number_of(value);
  if (!reward) fail("has a reward that is {}, not a number", kind_of(value));
  const auto single = static_cast<float>(*reward);
  if (!std::isfinite(single)) fail("has a reward beyond float32, {:g}", *reward);
  return single;
}

bool is_name(const std::string& key) {
  bool good = !key.empty() && key.size() <= kLongestName;
  for (const char c : key) good = good && !is_control(c) && c != ' ' && c != kDelete;
  return good;
}

/// All other numbers are parts of the reward.
std::map<std::string, double> parts_of(const std::vector<JsonMember>& answer) {
  std::map<std::string, double> parts;
  for (const JsonMember& member : answer) {
    if (member.key == "id" || member.key == "reward" || member.key == "state") continue;
    const auto number = number_of(member.value);
    if (!number && (member.key == "acc" || member.key == "correct"))
      fail("has an \"{}\" that is {}, not a boolean or a number", member.key,
           kind_of(member.value));
    if (!number) continue;
    if (!is_name(member.key)) {
      fail("has a part of the reward whose name is empty, longer than {} bytes or has spaces",
           kLongestName);
    }
    // verl's name of it.
    const std::string name = member.key == "acc" ? "correct" : member.key;
    if (!parts.emplace(name, *number).second)
      fail("has both \"acc\" and \"correct\", which are the same");
    if (parts.size() > kMaxRewardParts)
      fail("has more than {} parts of the reward", kMaxRewardParts);
  }
  return parts;
}

}  // namespace

std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string turn_json(const char* role, std::string_view content) {
  return fmt::format(R"(, {{"role": "{}", "content": {}}})", role, json_text(content));
}

std::string request_rest(const ExternalRequest& request) {
  std::string messages(request.messages_json);
  messages.insert(messages.size() - 1, request.turns_json);
  return fmt::format(
      R"("episode": "{}", "split": "{}", "turn": {}, "data_source": {}, "ground_truth": {}, "prompt": {}, )"
      R"("messages": {}, "response": {}, "tokens_left": {}, "state": {}, "row": {}}})",
      request.episode, request.split == Split::kTrain ? "train" : "val", request.turn,
      json_text(request.data_source), request.ground_truth_json, json_text(request.prompt),
      messages, json_text(request.response), request.tokens_left, request.state_json,
      request.row_json);
}

ExternalAnswer read_answer(const std::vector<JsonMember>& answer) {
  std::set<std::string_view> keys;
  for (const JsonMember& member : answer) {
    if (!keys.insert(member.key).second) fail("has two members of one name");
  }
  const JsonMember* reward = find_member(answer, "reward");
  const JsonMember* observation = find_member(answer, "observation");
  if (reward == nullptr && observation == nullptr)
    fail("has neither \"reward\" nor \"observation\"");
  if (reward != nullptr && observation != nullptr) {
    fail("has both \"reward\", which ends the episode, and \"observation\", which goes on with it");
  }
  ExternalAnswer read;
  if (const JsonMember* state = find_member(answer, "state")) read.state_json = state->value;
  if (reward != nullptr) {
    read.result.reward = reward_of(reward->value);
    read.result.extra = parts_of(answer);
    return read;
  }
  read.result.done = false;
  if (!observation->value.starts_with('"'))
    fail("has an observation that is {}, not text", kind_of(observation->value));
  read.result.observation = nlohmann::json::parse(observation->value).get<std::string>();
  return read;
}

}  // namespace orrery::actors
