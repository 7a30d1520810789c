// What training does about responses that are long (data.overlong_buffer) or were cut
// off (actor.mask_truncated_completions): DAPO's soft overlong punishment and overlong
// filter (Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
// 2025, section 3.4). Pure functions. Rollouts and their files keep the rewards as the
// environment gave them.
#pragma once

#include <span>
#include <vector>

#include "learners/advantages/group_rewards.h"
#include "proto/config.pb.h"
#include "rollout/trajectory.h"

namespace orrery::experiments {

/// What is added to the reward of a response of so many tokens, 0 or less (equation 13,
/// with verl's factor): with `room` the tokens up to the buffer,
///   penalty_factor * min(0, (room - tokens) / len),  room = max_response_length - len
/// 0 where data.overlong_buffer.len is 0.
float overlong_penalty(int64_t tokens, const proto::DataSection& data);

/// Whether a sample leaves the loss, as it was cut off.
bool leaves_loss(const rollout::Trajectory& sample, const proto::ActorSection& actor);

/// Adds the penalties to the rewards of the groups' samples, and sets the loss tokens
/// of those that leave the loss to 0. REQUIRES: `rewards` are these groups'.
void shape_rewards(std::span<learners::GroupRewards> rewards,
                   std::span<const rollout::Group> groups, const proto::Config& config);

}  // namespace orrery::experiments
