// Ranks that were not started alike (another config on one host, another copy of the
// data) would run to the end and mix two experiments. So they compare what each of them
// has before they begin: one collective over a digest, and a second one only to say
// what differs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "proto/config.pb.h"
#include "storage/manifest.h"

namespace orrery::experiments {

/// Something that must be the same on all ranks.
struct Fact {
  std::string name;   ///< "seed", "data.train_files[0]"
  std::string value;  ///< what is compared
  /// What the message shows in place of a value that says nothing to people; empty to
  /// show the value.
  std::string shown;
};

/// Collective. When the ranks' facts are not all the same, throws an AgreedError with
/// exit code 2 on every rank. It names the ranks that differ from the largest group of
/// equal ones (of several as large, from the one with the lowest rank), their hosts,
/// their facts and both values.
void agree(comm::Communicator& world, const std::vector<Fact>& facts);

/// agree() on what `command` was called with: the resolved config, except for paths of
/// files, which are compared by their contents, and cluster.threads, which may differ
/// from host to host.
void agree_on_config(comm::Communicator& world, const std::string& command,
                     const proto::Config& config);

/// agree() on the contents of files and weights.
void agree_on_inputs(comm::Communicator& world, std::span<const storage::InputDigest> inputs);

/// agree() on a checkpoint that every rank opens by the same path: it must be the same
/// one everywhere.
void agree_on_checkpoint(comm::Communicator& world, const std::filesystem::path& checkpoint);

/// What one rank has, as the message needs it.
struct RankFacts {
  std::string host;
  std::vector<Fact> facts;
};

/// Returns the message when the ranks are not all alike; empty when they are.
std::string describe_disagreement(std::span<const RankFacts> ranks);

}  // namespace orrery::experiments
