#include "core/low_priority_worker.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <stdexcept>

namespace orrery {
namespace {

using std::chrono::milliseconds;

struct Seen {
  std::thread::id thread;
  int policy = -1;
};

Seen look(LowPriorityWorker& worker) {
  Seen seen;
  worker.run([&] { seen = {std::this_thread::get_id(), sched_getscheduler(0)}; });
  return seen;
}

TEST(LowPriorityWorker, PiecesGiveWay) {
  LowPriorityWorker worker;
  const Seen first = look(worker);
  EXPECT_NE(first.thread, std::this_thread::get_id());
  EXPECT_EQ(first.policy, SCHED_IDLE);
  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER) << "the caller's own priority stays";
}

TEST(LowPriorityWorker, ThoseThatSomebodyWaitsForDoNot) {
  LowPriorityWorker worker;
  worker.set_urgent(true);
  const Seen urgent = look(worker);
  EXPECT_EQ(urgent.thread, std::this_thread::get_id());
  EXPECT_EQ(urgent.policy, SCHED_OTHER);
  worker.set_urgent(false);
  EXPECT_EQ(look(worker).policy, SCHED_IDLE);
}

TEST(LowPriorityWorker, WorkEndsThoughOthersLeaveNothing) {
  LowPriorityWorker worker;
  worker.run(
      [] { std::this_thread::sleep_for(milliseconds(160)); });  // as one that is never given a CPU
  // A sixteenth of the time is the caller's own.
  EXPECT_EQ(look(worker).thread, std::this_thread::get_id());
  worker.run([] { std::this_thread::sleep_for(milliseconds(20)); });
  EXPECT_EQ(look(worker).policy, SCHED_IDLE);
}

TEST(LowPriorityWorker, ASmallWorkIsDoneAtOnce) {
  LowPriorityWorker worker;
  worker.begin();
  EXPECT_EQ(look(worker).thread, std::this_thread::get_id());
  worker.run([] { std::this_thread::sleep_for(milliseconds(100)); });
  EXPECT_EQ(look(worker).policy, SCHED_IDLE);
}

TEST(LowPriorityWorker, ErrorsAreTheCallers) {
  LowPriorityWorker worker;
  for (const bool urgent : {false, true, false}) {
    worker.set_urgent(urgent);
    EXPECT_THROW(worker.run([] { throw std::runtime_error("no"); }), std::runtime_error);
    int done = 0;
    worker.run([&] { ++done; });
    EXPECT_EQ(done, 1);
  }
}

TEST(LowPriorityWorker, SomebodyMayBeginToWaitWhileAPieceIsDone) {
  LowPriorityWorker worker;
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(5));
    worker.set_urgent(true);
  });
  int done = 0;
  for (int i = 0; i < 1000; ++i) worker.run([&] { ++done; });
  other.join();
  EXPECT_EQ(done, 1000);
}

}  // namespace
}  // namespace orrery
