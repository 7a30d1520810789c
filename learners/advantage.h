// Advantages of a step's samples: pure functions of rewards and of how many tokens they
// weigh on, one file for each estimator in learners/advantages/. Sums run in sample
// order in double precision.
//
// One rule for what is not finite: a batch with such a reward, or with finite rewards
// so large that an advantage is no float, is refused as a whole, whatever the estimator
// and wherever the value stands.
#pragma once

#include <span>
#include <vector>

#include "learners/advantages/group_rewards.h"
#include "proto/config.pb.h"

namespace orrery::learners {

/// Whether the estimator compares the samples of a prompt with each other, so that one
/// alone teaches nothing.
bool compares_samples(proto::AlgorithmSection::AdvEstimator estimator);

/// One advantage per sample, by algorithm.adv_estimator: that of all its loss tokens.
/// Error naming the first prompt and sample, in order, whose reward or advantage is not
/// finite, and how many; or whose reward the estimator cannot use (maxrl: a negative
/// one; gdpo: one without a part of algorithm.gdpo_reward_keys).
std::vector<std::vector<float>> compute_advantages(std::span<const GroupRewards> groups,
                                                   const proto::AlgorithmSection& algorithm);

}  // namespace orrery::learners
