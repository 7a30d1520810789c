// Writes and reads the lines that are exchanged with a reward program (docs/formats.md,
// "Rewards from a program").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "actors/environment.h"
#include "actors/json_members.h"

namespace orrery::actors {

/// What a request says. Members whose names end in _json are JSON texts, which are
/// passed on as they are.
struct ExternalRequest {
  std::string episode;  ///< "train/12/96/3"
  Split split = Split::kTrain;
  int turn = 0;
  std::string_view row_json, ground_truth_json;
  std::string data_source, prompt;
  std::string_view messages_json;  ///< the row's messages, a list that is not empty
  std::string_view turns_json;     ///< the messages since then, each as ", {...}"
  std::string_view response;
  int64_t tokens_left = 0;
  std::string_view state_json;
};

/// Returns the request's line without its end of line, and without the member "id",
/// which comes first.
std::string request_rest(const ExternalRequest& request);

struct ExternalAnswer {
  StepResult result;
  std::string state_json = "null";
};

/// Reads an answer. Throws an Error whose text continues "an answer that".
ExternalAnswer read_answer(const std::vector<JsonMember>& answer);

/// Returns a text as JSON; bytes that are not UTF-8 are replaced.
std::string json_text(std::string_view text);

/// Returns a message as it follows another in a list: `, {"role": ..., "content":
/// ...}`.
std::string turn_json(const char* role, std::string_view content);

}  // namespace orrery::actors
