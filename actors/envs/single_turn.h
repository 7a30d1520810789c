// An episode of one question and one answer, as most verifiable rewards have it.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "actors/environment.h"

namespace orrery::actors {

class SingleTurnEpisode final : public Episode {
 public:
  /// Rewards a response. Its result always has `done` set.
  using Score = std::function<StepResult(const std::string& response)>;

  SingleTurnEpisode(std::string prompt, std::string data_source, Score score,
                    std::string truth = "")
      : SingleTurnEpisode({{"user", prompt}}, prompt, std::move(data_source), std::move(score), {},
                          std::move(truth)) {}
  SingleTurnEpisode(std::vector<text::ChatMessage> messages, std::string prompt,
                    std::string data_source, Score score, text::OrderedJson tools = {},
                    std::string truth = "")
      : messages_(std::move(messages)),
        prompt_(std::move(prompt)),
        data_source_(std::move(data_source)),
        score_(std::move(score)),
        tools_(std::move(tools)),
        truth_(std::move(truth)) {}

  const std::vector<text::ChatMessage>& messages() const override { return messages_; }
  const text::OrderedJson& tools() const override { return tools_; }
  const std::string& prompt() const override { return prompt_; }
  const std::string& data_source() const override { return data_source_; }
  std::string truth() const override { return truth_; }
  StepResult step(const std::string& response) override { return score_(response); }

 private:
  std::vector<text::ChatMessage> messages_;
  std::string prompt_, data_source_;
  Score score_;
  text::OrderedJson tools_;
  std::string truth_;
};

}  // namespace orrery::actors
