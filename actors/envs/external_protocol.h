// The lines that are exchanged with a reward program (docs/formats.md, "Rewards from a
// program").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "actors/environment.h"
#include "actors/json_members.h"

namespace orrery::actors {

/// What a request says. Members named _json are JSON texts, passed on as they are.
struct ExternalRequest {
  std::string episode;  ///< "train/12/96/3"
  Split split = Split::kTrain;
  int turn = 0;
  std::string_view row_json, ground_truth_json;
  std::string data_source, prompt;
  std::string_view messages_json;  ///< the row's, a list that is not empty
  std::string_view turns_json;     ///< messages since, each ", {...}"
  std::string_view response;
  int64_t tokens_left = 0;
  std::string_view state_json;
};

/// One line without its end, and without the member "id" that comes first.
std::string request_rest(const ExternalRequest& request);

struct ExternalAnswer {
  StepResult result;
  std::string state_json = "null";
};

/// Error that says what is wrong with it, to follow "an answer that".
ExternalAnswer read_answer(const std::vector<JsonMember>& answer);

/// A text as JSON; what is no UTF-8 is replaced.
std::string json_text(std::string_view text);

/// ", {"role": ..., "content": ...}"
std::string turn_json(const char* role, std::string_view content);

}  // namespace orrery::actors
