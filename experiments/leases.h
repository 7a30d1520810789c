// One batch's prompts shared out among actors. Rank 0 keeps the book: it hands prompts
// to whoever asks and collects the finished groups. Work is pulled, so a slow actor
// delays nobody, and which actor serves a prompt changes no sample.
//
// A batch ends on all ranks alike, by one word of rank 0 to each: all groups are here,
// or the job stops. Any rank may be the one that was asked to: it tells rank 0, be it
// at work or waiting. Between two polls, which is one step of an engine, nobody waits
// for anything that was asked to stop. No message of a batch is left unread, but for
// the word of a rank that was asked to stop just as rank 0 ended the batch: it is as
// true in the next one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/actor.h"
#include "comm/mailbox.h"
#include "experiments/job.h"
#include "launch/stop_signal.h"

namespace orrery::experiments {

/// Whether this rank was asked to stop; other than stop_requested in tests.
using StopAsked = std::function<bool()>;

/// Rank 0's side. As a LeaseSource it also feeds the actor on rank 0 itself (placement:
/// colocated).
class LeaseBook : public actors::LeaseSource {
 public:
  /// Prompts [begin, end) of batch `step`. `remote_actors`: ranks other than this one
  /// that will ask until told that all is given out. Every other rank of `comm` has a
  /// RemoteLeases.
  LeaseBook(comm::Communicator& comm, uint64_t step, uint64_t begin, uint64_t end,
            int remote_actors, StopAsked asked = launch::stop_requested);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return next_ == end_; }
  void deliver(rollout::Group group) override;
  /// Answers waiting requests and takes in delivered groups.
  void poll() override;
  bool stopping() override;

  /// Serves until every group is here and every remote actor has been told, and ends
  /// the batch on all ranks; groups by prompt index. Nothing when any rank was asked to
  /// stop.
  std::optional<std::vector<rollout::Group>> collect();

 private:
  bool complete() const { return groups_.size() == expected_ && dismissed_ == remote_actors_; }
  void end_batch();

  comm::Communicator& comm_;
  comm::Mailbox mailbox_;
  uint64_t step_, next_, end_;
  size_t expected_;
  int dismissed_ = 0, remote_actors_;
  std::vector<rollout::Group> groups_;
  StopAsked asked_to_stop_;
  bool stopping_ = false;
  std::set<int> silent_;  // ranks that send nothing more, as they stop
};

/// Any other rank's side, also of one that does not generate: it only awaits the end.
class RemoteLeases : public actors::LeaseSource {
 public:
  /// `step`: as LeaseBook's batch. `appetite`: prompts asked for at a time.
  RemoteLeases(comm::Communicator& comm, uint64_t step, uint32_t appetite,
               StopAsked asked = launch::stop_requested);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return (done_ || ended_) && queue_.empty(); }
  void deliver(rollout::Group group) override;
  void poll() override;
  bool stopping() override { return silent_ || stopped_; }

  /// Waits until rank 0 has ended the batch; false when the job stops.
  bool await_end();

 private:
  void hear();
  void fall_silent();

  comm::Mailbox mailbox_;
  int rank_;
  uint64_t step_;
  uint32_t appetite_;
  StopAsked asked_to_stop_;
  bool asked_ = false, done_ = false, ended_ = false, stopped_ = false;
  bool silent_ = false;  // rank 0 was told that this rank stops
  std::deque<uint64_t> queue_;
};

/// Passes everything on and tells the watchdog which prompts this rank has in hand:
/// "`label`, prompts 8..15".
class WatchedLeases : public actors::LeaseSource {
 public:
  /// `leases` and `job` must outlive it.
  WatchedLeases(actors::LeaseSource& leases, const Job& job, std::string label);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return leases_.exhausted(); }
  void deliver(rollout::Group group) override;
  void poll() override;
  bool stopping() override { return leases_.stopping(); }

 private:
  void tell();

  actors::LeaseSource& leases_;
  const Job& job_;
  std::string label_;
  std::set<uint64_t> in_hand_;
};

}  // namespace orrery::experiments
