#include "rollout/trajectory.h"

#include <cmath>
#include <string_view>

#include "core/error.h"

namespace orrery::rollout {
namespace {

/// "group of prompt 7, sample 2" for messages.
std::string where(const proto::Group& group, const proto::Trajectory& sample) {
  return fmt::format("trajectory of prompt {} sample {}", group.prompt_index(),
                     sample.sample_index());
}

FinishReason finish_reason_from_name(std::string_view name, const std::string& place) {
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kAbort}) {
    if (name == finish_reason_name(reason)) return reason;
  }
  fail("{}: finish_reason is \"{}\": it must be \"stop\", \"length\" or \"abort\"", place, name);
}

Fingerprint fingerprint_from(const std::string& text, const std::string& place) {
  if (const auto fingerprint = fingerprint_from_text(text)) return *fingerprint;
  fail("{}: fingerprint is \"{}\": it must be class/version, with class {}", place, text,
       numerics_class_names());
}

proto::Trajectory trajectory_to_proto(const Trajectory& sample) {
  proto::Trajectory message;
  message.set_step(sample.step);
  message.set_prompt_index(sample.prompt_index);
  message.set_sample_index(sample.sample_index);
  message.mutable_prompt_tokens()->Add(sample.prompt_tokens.begin(), sample.prompt_tokens.end());
  message.mutable_tokens()->Add(sample.tokens.begin(), sample.tokens.end());
  message.mutable_logprobs()->Add(sample.logprobs.begin(), sample.logprobs.end());
  message.mutable_entropies()->Add(sample.entropies.begin(), sample.entropies.end());
  message.mutable_loss_mask()->Add(sample.loss_mask.begin(), sample.loss_mask.end());
  message.mutable_weight_versions()->Add(sample.weight_versions.begin(),
                                         sample.weight_versions.end());
  message.set_reward(sample.reward);
  message.set_finish_reason(finish_reason_name(sample.finish_reason));
  message.set_data_source(sample.data_source);
  message.set_fingerprint(fingerprint_text(sample.fingerprint));
  message.set_device(sample.device);
  for (const auto& [name, value] : sample.reward_extra)
    (*message.mutable_reward_extra())[name] = value;
  message.set_response_text(sample.response_text);
  message.set_truth(sample.truth);
  message.set_data_file(sample.data_file);
  message.set_data_row(sample.data_row);
  return message;
}

void check_tokens(const google::protobuf::RepeatedField<int32_t>& tokens, const char* field,
                  const std::string& place) {
  for (int i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0)
      fail("{}: {}[{}] is {}: a token id is not negative", place, field, i, tokens[i]);
  }
}

void check_values(const google::protobuf::RepeatedField<float>& values, const char* field,
                  const std::string& place) {
  for (int i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]))
      fail("{}: {}[{}] is {}: it must be finite", place, field, i, values[i]);
  }
}

void check(const proto::Trajectory& message, const std::string& place) {
  const auto same_length = [&](int size, const char* field) {
    if (size != message.tokens_size()) {
      fail("{}: {} has {} entries and tokens has {}: one a token is needed", place, field, size,
           message.tokens_size());
    }
  };
  same_length(message.logprobs_size(), "logprobs");
  same_length(message.entropies_size(), "entropies");
  same_length(message.loss_mask_size(), "loss_mask");
  same_length(message.weight_versions_size(), "weight_versions");
  if (message.prompt_tokens_size() == 0) fail("{}: prompt_tokens is empty", place);
  check_tokens(message.prompt_tokens(), "prompt_tokens", place);
  check_tokens(message.tokens(), "tokens", place);
  check_values(message.logprobs(), "logprobs", place);
  check_values(message.entropies(), "entropies", place);
  if (!std::isfinite(message.reward()))
    fail("{}: reward is {}: it must be finite", place, message.reward());
  for (const auto& [name, value] : message.reward_extra()) {
    if (!std::isfinite(value))
      fail("{}: reward_extra.{} is {}: it must be finite", place, name, value);
  }
}

Trajectory trajectory_from_proto(const proto::Trajectory& message, const std::string& place) {
  check(message, place);
  Trajectory sample;
  sample.step = message.step();
  sample.prompt_index = message.prompt_index();
  sample.sample_index = message.sample_index();
  sample.prompt_tokens.assign(message.prompt_tokens().begin(), message.prompt_tokens().end());
  sample.tokens.assign(message.tokens().begin(), message.tokens().end());
  sample.logprobs.assign(message.logprobs().begin(), message.logprobs().end());
  sample.entropies.assign(message.entropies().begin(), message.entropies().end());
  sample.loss_mask.assign(message.loss_mask().begin(), message.loss_mask().end());
  sample.weight_versions.assign(message.weight_versions().begin(), message.weight_versions().end());
  sample.reward = message.reward();
  sample.finish_reason = finish_reason_from_name(message.finish_reason(), place);
  sample.data_source = message.data_source();
  sample.fingerprint = fingerprint_from(message.fingerprint(), place);
  sample.device = message.device();
  for (const auto& [name, value] : message.reward_extra()) sample.reward_extra[name] = value;
  sample.response_text = message.response_text();
  sample.truth = message.truth();
  sample.data_file = message.data_file();
  sample.data_row = message.data_row();
  return sample;
}

}  // namespace

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
  }
  return "?";
}

proto::Group group_to_proto(const Group& group) {
  proto::Group message;
  message.set_step(group.step);
  message.set_prompt_index(group.prompt_index);
  message.set_dropped(group.dropped);
  for (const Trajectory& sample : group.samples)
    *message.add_samples() = trajectory_to_proto(sample);
  return message;
}

Group group_from_proto(const proto::Group& message) {
  Group group;
  group.step = message.step();
  group.prompt_index = message.prompt_index();
  group.dropped = message.dropped();
  group.samples.reserve(message.samples_size());
  for (const proto::Trajectory& sample : message.samples()) {
    const std::string place = where(message, sample);
    if (sample.prompt_index() != message.prompt_index()) {
      fail("{}: prompt_index is {} in the sample", place, sample.prompt_index());
    }
    if (!group.samples.empty() && sample.sample_index() <= group.samples.back().sample_index) {
      fail("{}: sample_index comes after {}: they must rise", place,
           group.samples.back().sample_index);
    }
    group.samples.push_back(trajectory_from_proto(sample, place));
  }
  return group;
}

}  // namespace orrery::rollout
