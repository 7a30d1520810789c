// One batch's prompts shared out among actors. Rank 0 keeps the book: it hands prompts to whoever asks and
// collects the finished groups. Work is pulled, so a slow actor delays nobody, and which actor serves a
// prompt changes no sample.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/actor.h"
#include "comm/mailbox.h"
#include "experiments/job.h"

namespace orrery {

/// Rank 0's side. As a LeaseSource it also feeds the actor on rank 0 itself (placement: colocated).
class LeaseBook : public LeaseSource {
 public:
  /// Prompts [begin, end) of batch `step`. `remote_actors`: ranks other than this one that will ask until
  /// told that all is given out.
  LeaseBook(Communicator& comm, uint64_t step, uint64_t begin, uint64_t end, int remote_actors);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return next_ == end_; }
  void deliver(Group group) override;
  /// Answers waiting requests and takes in delivered groups.
  void poll() override;

  /// Serves until every group is here and every remote actor has been told; groups by prompt index.
  std::vector<Group> collect();

 private:
  Mailbox mailbox_;
  uint64_t step_, next_, end_;
  size_t expected_;
  int dismissed_ = 0, remote_actors_;
  std::vector<Group> groups_;
};

/// Any other rank's side.
class RemoteLeases : public LeaseSource {
 public:
  /// `step`: as LeaseBook's batch. `appetite`: prompts asked for at a time.
  RemoteLeases(Communicator& comm, uint64_t step, uint32_t appetite);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return done_ && queue_.empty(); }
  void deliver(Group group) override;

 private:
  Mailbox mailbox_;
  int rank_;
  uint64_t step_;
  uint32_t appetite_;
  bool asked_ = false, done_ = false;
  std::deque<uint64_t> queue_;
};

/// Passes everything on and tells the watchdog which prompts this rank has in hand: "`label`, prompts 8..15".
class WatchedLeases : public LeaseSource {
 public:
  /// `leases` and `job` must outlive it.
  WatchedLeases(LeaseSource& leases, const Job& job, std::string label);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return leases_.exhausted(); }
  void deliver(Group group) override;
  void poll() override;

 private:
  void tell();

  LeaseSource& leases_;
  const Job& job_;
  std::string label_;
  std::set<uint64_t> in_hand_;
};

}  // namespace orrery
