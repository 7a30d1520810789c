// Ranks that were not started alike (another config on one host, another copy of the
// data) would run through and mix two experiments. They compare what each has before
// they begin: one collective over a digest, and a second one only to say what differs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "proto/config.pb.h"
#include "storage/manifest.h"

namespace orrery::experiments {

/// Something that all ranks must have alike.
struct Fact {
  std::string name;   ///< "seed", "data.train_files[0]"
  std::string value;  ///< compared
  std::string
      shown;  ///< in the message, instead of a value that says nothing to people; empty: the value
};

/// Collective. When the ranks' facts are not all the same, an AgreedError on every rank
/// with exit code 2: it names rank, host and fact of the ranks that differ from most
/// (of as many: from rank 0), and both values.
void agree(comm::Communicator& world, const std::vector<Fact>& facts);

/// As agree(), of what `command` was called with: the resolved config, but for paths of
/// files, which are compared by what they hold, and cluster.threads, which a host may
/// need otherwise.
void agree_on_config(comm::Communicator& world, const std::string& command,
                     const proto::Config& config);

/// As agree(), of the content of files and weights.
void agree_on_inputs(comm::Communicator& world, std::span<const storage::InputDigest> inputs);

/// As agree(), of a checkpoint that every rank opens by the same path: it must be the
/// same one everywhere.
void agree_on_checkpoint(comm::Communicator& world, const std::filesystem::path& checkpoint);

/// One rank's part, as the message needs it.
struct RankFacts {
  std::string host;
  std::vector<Fact> facts;
};

/// The message when they are not all alike; empty when they are.
std::string disagreement(std::span<const RankFacts> ranks);

}  // namespace orrery::experiments
