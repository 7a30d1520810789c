// A batch ends on all ranks alike, whoever was asked to stop and whatever it was doing.
#include "experiments/leases.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/mpi/world.h"
#include "tests/rollout/make_group.h"

namespace orrery {
namespace {

using testing_support::world;

constexpr uint64_t kPrompts = 12;

/// As an actor: takes prompts and delivers them, `finish` times; then holds what it
/// takes for ever.
void act(actors::LeaseClient& leases, uint64_t step, uint64_t finish) {
  std::deque<uint64_t> in_hand;
  while (true) {
    leases.poll();
    if (leases.stopping()) return;
    while (in_hand.size() < 2) {
      const auto prompt = leases.try_lease();
      if (!prompt) break;
      in_hand.push_back(*prompt);
    }
    if (in_hand.empty() && leases.exhausted()) return;
    for (; finish > 0 && !in_hand.empty(); --finish, in_hand.pop_front())
      leases.deliver(testing_support::make_group(step, in_hand.front(), 1));
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

/// A rank's leases, for one batch after the other. Ranks below `learners` do not act
/// where there are others.
class Side {
 public:
  explicit Side(int learners) {
    const int size = world().size();
    const bool split = learners > 0 && size > learners;
    acts_ = !split || world().rank() >= learners;
    leases_ = experiments::make_leases(world(), split ? size - learners : size - 1,
                                       [this] { return asked_(); });
  }

  /// One batch on all ranks; whether it was completed.
  bool batch(uint64_t step, uint64_t finish, const experiments::StopAsked& asked) {
    asked_ = asked;
    leases_->begin_batch({step, 0, kPrompts}, 2);
    if (acts_) act(*leases_, step, finish);
    const auto groups = leases_->end_batch();
    if (!groups) return false;
    EXPECT_EQ(groups->size(), world().rank() == 0 ? kPrompts : 0);
    for (uint64_t i = 0; i < groups->size(); ++i) EXPECT_EQ((*groups)[i].prompt_index, i);
    return true;
  }

 private:
  bool acts_ = true;
  experiments::StopAsked asked_;
  std::unique_ptr<experiments::Leases> leases_;
};

void expect_nothing_unread() {
  comm::Communicator& comm = world();
  comm.barrier();
  EXPECT_FALSE(
      comm.try_receive(comm::Communicator::kAnySource, comm::Communicator::kAnyTag).has_value());
  comm.barrier();
}

const experiments::StopAsked kNever = [] { return false; };

TEST(Leases, EveryRankHearsThatABatchIsComplete) {
  for (const int learners : {0, 1, 2}) {
    Side side(learners);
    for (uint64_t step = 0; step < 5; ++step) EXPECT_TRUE(side.batch(step, kPrompts, kNever));
    expect_nothing_unread();
  }
}

TEST(Leases, WhicheverRankIsAskedAllStop) {
  comm::Communicator& comm = world();
  for (const int learners : {0, 1, 2}) {
    Side side(learners);
    for (int asked_rank = 0; asked_rank < comm.size(); ++asked_rank) {
      for (const int milliseconds : {0, 5, 20}) {
        // Nobody finishes all: without the stop this would never end.
        const auto begin = std::chrono::steady_clock::now();
        const experiments::StopAsked asked = [&] {
          return comm.rank() == asked_rank && std::chrono::steady_clock::now() - begin >=
                                                  std::chrono::milliseconds(milliseconds);
        };
        EXPECT_FALSE(side.batch(7, /*finish=*/1, asked));
        expect_nothing_unread();
      }
    }
    EXPECT_TRUE(side.batch(8, kPrompts, kNever));
    expect_nothing_unread();
  }
}

TEST(Leases, AllRanksMayBeAskedAtOnce) {
  EXPECT_FALSE(Side(0).batch(7, 1, [] { return true; }));
  expect_nothing_unread();
}

TEST(Leases, AStopAsTheBatchEndsIsOneOrTheOtherOnAllRanks) {
  comm::Communicator& comm = world();
  Side side(0);
  for (int turn = 0; turn < 50; ++turn) {
    const auto begin = std::chrono::steady_clock::now();
    const int asked_rank = turn % comm.size();
    const experiments::StopAsked asked = [&] {
      return comm.rank() == asked_rank &&
             std::chrono::steady_clock::now() - begin >= std::chrono::microseconds(100 * turn);
    };
    double flags[2] = {0, 0};
    flags[side.batch(turn, kPrompts, asked) ? 0 : 1] = 1;
    comm.all_reduce_max(flags);
    EXPECT_EQ(flags[0] + flags[1], 1) << turn;
    comm.barrier();
    // The word of a rank that was asked just as the batch ended.
    while (comm.try_receive(comm::Communicator::kAnySource, comm::Communicator::kAnyTag)) {
    }
    comm.barrier();
  }
}

}  // namespace
}  // namespace orrery
