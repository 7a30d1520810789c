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
void act(actors::LeaseSource& leases, uint64_t step, uint64_t finish) {
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

/// One batch on all ranks; whether it was completed. Ranks below `learners` do not act
/// where there are others.
bool batch(uint64_t step, int learners, uint64_t finish, const experiments::StopAsked& asked) {
  comm::Communicator& comm = world();
  const bool split = learners > 0 && comm.size() > learners;
  const bool acts = !split || comm.rank() >= learners;
  const int remote_actors = split ? comm.size() - learners : comm.size() - 1;
  if (comm.rank() != 0) {
    experiments::RemoteLeases leases(comm, step, 2, asked);
    if (acts) act(leases, step, finish);
    return leases.await_end();
  }
  experiments::LeaseBook book(comm, step, 0, kPrompts, remote_actors, asked);
  if (acts) act(book, step, finish);
  const auto groups = book.collect();
  if (groups) {
    EXPECT_EQ(groups->size(), kPrompts);
    for (uint64_t i = 0; i < groups->size(); ++i) EXPECT_EQ((*groups)[i].prompt_index, i);
  }
  return groups.has_value();
}

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
    for (uint64_t step = 0; step < 5; ++step) EXPECT_TRUE(batch(step, learners, kPrompts, kNever));
    expect_nothing_unread();
  }
}

TEST(Leases, WhicheverRankIsAskedAllStop) {
  comm::Communicator& comm = world();
  for (const int learners : {0, 1, 2}) {
    for (int asked_rank = 0; asked_rank < comm.size(); ++asked_rank) {
      for (const int milliseconds : {0, 5, 20}) {
        // Nobody finishes all: without the stop this would never end.
        const auto begin = std::chrono::steady_clock::now();
        const experiments::StopAsked asked = [&] {
          return comm.rank() == asked_rank && std::chrono::steady_clock::now() - begin >=
                                                  std::chrono::milliseconds(milliseconds);
        };
        EXPECT_FALSE(batch(7, learners, /*finish=*/1, asked));
        expect_nothing_unread();
      }
    }
    EXPECT_TRUE(batch(8, learners, kPrompts, kNever));
    expect_nothing_unread();
  }
}

TEST(Leases, AllRanksMayBeAskedAtOnce) {
  EXPECT_FALSE(batch(7, 0, 1, [] { return true; }));
  expect_nothing_unread();
}

TEST(Leases, AStopAsTheBatchEndsIsOneOrTheOtherOnAllRanks) {
  comm::Communicator& comm = world();
  for (int turn = 0; turn < 50; ++turn) {
    const auto begin = std::chrono::steady_clock::now();
    const int asked_rank = turn % comm.size();
    const experiments::StopAsked asked = [&] {
      return comm.rank() == asked_rank &&
             std::chrono::steady_clock::now() - begin >= std::chrono::microseconds(100 * turn);
    };
    double flags[2] = {0, 0};
    flags[batch(static_cast<uint64_t>(turn), 0, kPrompts, asked) ? 0 : 1] = 1;
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
