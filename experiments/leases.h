// The prompts of a batch shared out among actors. Rank 0 keeps the book: it hands
// prompts to whoever asks and collects the finished groups. Work is pulled, so a slow
// actor delays nobody, and which actor serves a prompt changes no sample. Both sides
// are made once and used for one batch after the other.
//
// A batch ends on all ranks alike, by one word of rank 0 to each: all groups are here,
// or the job stops. Any rank may be the one that was asked to stop: it tells rank 0,
// whether it is at work or waiting. Between two polls, which is one step of an engine,
// nobody waits for anything that was asked to stop. No message of a batch is left
// unread, except the word of a rank that was asked to stop just as rank 0 ended the
// batch: it is as true in the next one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
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

/// The prompts [begin, end) of the data order, sampled in step `step`.
struct LeaseBatch {
  uint64_t step = 0, begin = 0, end = 0;
};

/// A rank's side. All ranks begin the same batches and end each of them.
class Leases : public actors::LeaseClient {
 public:
  /// `max_prompts`: prompts that this rank's actor can take at a time.
  virtual void begin_batch(const LeaseBatch& batch, int64_t max_prompts) = 0;
  /// Waits until the batch has ended on all ranks. On rank 0 the groups by prompt
  /// index, elsewhere none. Nothing, on all ranks, when any was asked to stop.
  virtual std::optional<std::vector<rollout::Group>> end_batch() = 0;
};

/// Rank 0's side. As a LeaseClient it also feeds the actor on rank 0 itself (placement:
/// colocated).
class LeaseBook final : public Leases {
 public:
  /// `remote_actors`: ranks other than this one that ask until they are told that all
  /// is given out. Every other rank of `comm` has RemoteLeases.
  LeaseBook(comm::Communicator& comm, int remote_actors, StopAsked asked = launch::stop_requested);

  void begin_batch(const LeaseBatch& batch, int64_t max_prompts) override;
  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return batch_.begin == batch_.end; }
  void deliver(rollout::Group group) override;
  /// Answers waiting requests and takes in delivered groups.
  void poll() override;
  bool stopping() override;
  std::optional<std::vector<rollout::Group>> end_batch() override;

 private:
  bool complete() const { return groups_.size() == expected_ && actors_told_ == remote_actors_; }
  void answer(const proto::LeaseRequest& request, int from);
  void take_deliveries();
  void tell_the_end();

  comm::Communicator& comm_;
  comm::Mailbox mailbox_;
  const int remote_actors_;
  const StopAsked asked_to_stop_;
  LeaseBatch batch_;     // from `begin` on prompts are not given out yet
  size_t expected_ = 0;  // groups of the batch
  int actors_told_ = 0;  // remote actors that were told that all is given out
  std::vector<rollout::Group> groups_;
  bool stopping_ = false;
  std::set<int> silent_;  // ranks that send nothing more, as they stop
};

/// Any other rank's side, also of one that does not generate: it only awaits the end.
class RemoteLeases final : public Leases {
 public:
  explicit RemoteLeases(comm::Communicator& comm, StopAsked asked = launch::stop_requested);

  void begin_batch(const LeaseBatch& batch, int64_t max_prompts) override;
  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return (now_.done || now_.ended) && queue_.empty(); }
  void deliver(rollout::Group group) override;
  void poll() override;
  bool stopping() override { return now_.silent || now_.stopped; }
  std::optional<std::vector<rollout::Group>> end_batch() override;

 private:
  void read_messages();
  void announce_stop();

  /// Of the batch under way.
  struct State {
    uint64_t step = 0;
    bool asked = false;    // for prompts; the answer is on its way
    bool done = false;     // all prompts are given out
    bool ended = false;    // rank 0 has ended the batch
    bool stopped = false;  // because the job stops
    bool silent = false;   // rank 0 was told that this rank stops
  };

  comm::Mailbox mailbox_;
  const int rank_;
  const StopAsked asked_to_stop_;
  uint32_t max_prompts_ = 1;
  State now_;
  std::deque<uint64_t> queue_;
};

/// The side of this rank of `comm`.
std::unique_ptr<Leases> make_leases(comm::Communicator& comm, int remote_actors, StopAsked asked);

/// Passes everything on and tells the watchdog which prompts this rank has in hand:
/// "`label`, prompts 8..15".
class WatchedLeases final : public actors::LeaseClient {
 public:
  /// Begins the phase `label`. `leases` and `job` must outlive it.
  WatchedLeases(actors::LeaseClient& leases, const Job& job, std::string label);

  std::optional<uint64_t> try_lease() override;
  bool exhausted() override { return leases_.exhausted(); }
  void deliver(rollout::Group group) override;
  void poll() override;
  bool stopping() override { return leases_.stopping(); }

 private:
  void tell_in_hand();

  actors::LeaseClient& leases_;
  const Job& job_;
  std::string label_;
  std::set<uint64_t> in_hand_;
};

}  // namespace orrery::experiments
