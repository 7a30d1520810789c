// Leases on one rank, which sends messages to itself: what a book gives out and takes
// in, and what a rank that asks makes of the answers. That several ranks end alike:
// tests/mpi/leases_test.cc.
#include "experiments/leases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/rollout/make_group.h"
#include "tests/support/scratch.h"

namespace orrery::experiments {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::error_of;
using testing_support::make_group;

class LeasesTest : public testing::Test {
 protected:
  /// All that can be had just now.
  static std::vector<uint64_t> take_all(Leases& leases) {
    std::vector<uint64_t> prompts;
    while (const auto prompt = leases.try_lease()) prompts.push_back(*prompt);
    return prompts;
  }
  static std::vector<uint64_t> prompts_of(
      const std::optional<std::vector<rollout::Group>>& groups) {
    std::vector<uint64_t> prompts;
    for (const rollout::Group& group : groups.value()) prompts.push_back(group.prompt_index);
    return prompts;
  }
  /// Rank 0's word to a rank that waits for the end of a batch.
  void end_remotely(uint64_t step, bool stop) {
    proto::Lease last;
    last.set_step(step);
    last.set_done(true);
    last.set_stop(stop);
    last.set_end(true);
    mailbox_.send(0, last);
  }
  std::optional<proto::LeaseRequest> request() {
    return mailbox_.try_receive<proto::LeaseRequest>();
  }

  std::unique_ptr<comm::Communicator> comm_ = comm::make_local_communicator();
  comm::Mailbox mailbox_{*comm_};
  bool asked_ = false;
  const StopAsked stop_asked_ = [this] { return asked_; };
};

TEST_F(LeasesTest, ABookGivesEachPromptOnceAndReturnsGroupsInTheirOrder) {
  LeaseBook book(*comm_, 0, stop_asked_);
  book.begin_batch({7, 5, 9}, 1);
  EXPECT_FALSE(book.exhausted());
  EXPECT_THAT(take_all(book), ElementsAre(5, 6, 7, 8));
  EXPECT_TRUE(book.exhausted());
  for (const uint64_t prompt : {8, 5, 7, 6}) book.deliver(make_group(7, prompt, 2));
  EXPECT_THAT(prompts_of(book.end_batch()), ElementsAre(5, 6, 7, 8));
}

TEST_F(LeasesTest, AStoppedBatchLeavesNothingToTheNext) {
  LeaseBook book(*comm_, 0, stop_asked_);
  book.begin_batch({1, 0, 3}, 1);
  book.try_lease();
  book.deliver(make_group(1, 0, 2));
  EXPECT_FALSE(book.stopping());
  asked_ = true;
  EXPECT_TRUE(book.stopping());
  EXPECT_FALSE(book.end_batch().has_value());
  asked_ = false;
  book.begin_batch({2, 3, 5}, 1);
  EXPECT_FALSE(book.stopping());
  EXPECT_THAT(take_all(book), ElementsAre(3, 4));
  for (const uint64_t prompt : {3, 4}) book.deliver(make_group(2, prompt, 2));
  EXPECT_THAT(prompts_of(book.end_batch()), ElementsAre(3, 4));
}

TEST_F(LeasesTest, AGroupThatComesTwiceIsAnError) {
  LeaseBook book(*comm_, 0, stop_asked_);
  book.begin_batch({1, 0, 2}, 1);
  for (int i = 0; i < 2; ++i) book.deliver(make_group(1, 0, 2));
  EXPECT_THAT(error_of([&] { book.end_batch(); }), HasSubstr("prompt 0 was delivered twice"));
}

TEST_F(LeasesTest, ARankThatAsksIsServedUntilNothingIsLeft) {
  LeaseBook book(*comm_, /*remote_actors=*/1, stop_asked_);
  RemoteLeases remote(*comm_, stop_asked_);
  for (uint64_t step = 1; step <= 2; ++step) {
    const uint64_t first = 10 * step;
    book.begin_batch({step, first, first + 5}, 1);
    remote.begin_batch({step, first, first + 5}, /*max_prompts=*/2);
    std::vector<uint64_t> got;
    for (int turn = 0; !remote.exhausted(); ++turn) {
      ASSERT_LT(turn, 10);
      for (const uint64_t prompt : take_all(remote)) {
        got.push_back(prompt);
        remote.deliver(make_group(step, prompt, 2));
      }
      book.poll();
    }
    EXPECT_THAT(got, ElementsAre(first, first + 1, first + 2, first + 3, first + 4));
    EXPECT_THAT(prompts_of(book.end_batch()), testing::ElementsAreArray(got));
    end_remotely(step, /*stop=*/false);
    const auto rest = remote.end_batch();
    ASSERT_TRUE(rest.has_value());
    EXPECT_TRUE(rest->empty()) << "rank 0 has the groups";
  }
}

TEST_F(LeasesTest, ARankAsksOnceForAsManyAsItCanTake) {
  RemoteLeases remote(*comm_, stop_asked_);
  remote.begin_batch({4, 0, 9}, /*max_prompts=*/3);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(remote.try_lease().has_value());
  const auto asked = request();
  ASSERT_TRUE(asked.has_value());
  EXPECT_EQ(asked->groups(), 3u);
  EXPECT_FALSE(asked->stop());
  EXPECT_FALSE(request().has_value());
  proto::Lease lease;
  lease.set_step(4);
  lease.add_prompt_index(8);
  mailbox_.send(0, lease);
  EXPECT_THAT(take_all(remote), ElementsAre(8));
  EXPECT_TRUE(request().has_value()) << "it asks again when it has none";
}

TEST_F(LeasesTest, ARankThatIsAskedToStopSaysSoOnceAndFallsSilent) {
  LeaseBook book(*comm_, /*remote_actors=*/1, [] { return false; });
  RemoteLeases remote(*comm_, stop_asked_);
  book.begin_batch({1, 0, 5}, 1);
  remote.begin_batch({1, 0, 5}, 2);
  remote.try_lease();
  book.poll();
  EXPECT_THAT(take_all(remote), ElementsAre(0, 1));
  asked_ = true;
  remote.poll();
  remote.poll();
  EXPECT_TRUE(remote.stopping());
  remote.deliver(make_group(1, 0, 2));
  EXPECT_FALSE(remote.try_lease().has_value());
  EXPECT_FALSE(mailbox_.try_receive<proto::GroupsMessage>().has_value())
      << "nothing more is delivered";
  EXPECT_FALSE(book.stopping());
  // The request that take_all() sent last, and one word of the stop.
  book.poll();
  EXPECT_TRUE(book.stopping());
  EXPECT_FALSE(request().has_value());
  EXPECT_FALSE(book.end_batch().has_value());
  end_remotely(1, /*stop=*/true);
  EXPECT_FALSE(remote.end_batch().has_value());
  asked_ = false;
  remote.begin_batch({2, 5, 6}, 2);
  EXPECT_FALSE(remote.stopping());
  EXPECT_FALSE(remote.exhausted());
}

TEST_F(LeasesTest, ARankThatOnlyHearsOfAStopAnswersIt) {
  RemoteLeases remote(*comm_, stop_asked_);
  remote.begin_batch({1, 0, 5}, 2);
  end_remotely(1, /*stop=*/true);
  remote.poll();
  EXPECT_TRUE(remote.stopping());
  EXPECT_FALSE(request().has_value());
  EXPECT_FALSE(remote.end_batch().has_value());
  const auto answer = request();
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->stop()) << "rank 0 reads on until it knows that nothing more comes";
}

TEST_F(LeasesTest, MessagesOfAnotherBatchAreErrors) {
  RemoteLeases remote(*comm_, stop_asked_);
  remote.begin_batch({2, 0, 5}, 2);
  end_remotely(1, false);
  EXPECT_THAT(error_of([&] { remote.poll(); }), HasSubstr("was leased batch 1 during batch 2"));
  LeaseBook book(*comm_, /*remote_actors=*/1, stop_asked_);
  book.begin_batch({2, 0, 5}, 1);
  remote.deliver(make_group(1, 3, 2));
  EXPECT_THAT(error_of([&] { book.poll(); }),
              HasSubstr("delivered prompt 3 of batch 1 during batch 2"));
}

TEST_F(LeasesTest, ABatchWithoutPromptsIsCompleteAtOnce) {
  const std::unique_ptr<Leases> leases = make_leases(*comm_, 0, stop_asked_);
  leases->begin_batch({1, 4, 4}, 1);
  EXPECT_TRUE(leases->exhausted());
  EXPECT_THAT(prompts_of(leases->end_batch()), ElementsAre());
}

}  // namespace
}  // namespace orrery::experiments
