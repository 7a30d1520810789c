#include "experiments/leases.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"
#include "core/flight_recorder.h"

namespace orrery {
namespace {

constexpr auto kPollSleep = std::chrono::microseconds(200);

}  // namespace

LeaseBook::LeaseBook(Communicator& comm, uint64_t step, uint64_t begin, uint64_t end, int remote_actors)
    : mailbox_(comm),
      step_(step),
      next_(begin),
      end_(end),
      expected_(static_cast<size_t>(end - begin)),
      remote_actors_(remote_actors) {}

std::optional<uint64_t> LeaseBook::try_lease() {
  if (next_ == end_) return std::nullopt;
  return next_++;
}

void LeaseBook::deliver(Group group) { groups_.push_back(std::move(group)); }

void LeaseBook::poll() {
  if (remote_actors_ == 0) return;
  int from = 0;
  while (const auto request = mailbox_.try_receive<proto::LeaseRequest>(Communicator::kAnySource, &from)) {
    proto::Lease lease;
    lease.set_step(step_);
    for (uint32_t i = 0; i < request->groups() && next_ < end_; ++i) lease.add_prompt_index(next_++);
    lease.set_done(lease.prompt_index_size() == 0);
    if (lease.done()) {
      ++dismissed_;
    } else {
      record_event("prompts {}..{} leased to rank {}", *lease.prompt_index().begin(),
                   *lease.prompt_index().rbegin(), from);
    }
    mailbox_.send(from, lease);
  }
  while (const auto delivery = mailbox_.try_receive<proto::GroupsMessage>()) {
    for (const proto::Group& group : delivery->groups()) {
      deliver(group_from_proto(group));
      if (groups_.back().step != step_) {
        fail("an actor delivered prompt {} of batch {} during batch {}", group.prompt_index(), group.step(),
             step_);
      }
    }
  }
}

std::vector<Group> LeaseBook::collect() {
  while (groups_.size() < expected_ || dismissed_ < remote_actors_) {
    poll();
    if (groups_.size() < expected_ || dismissed_ < remote_actors_) std::this_thread::sleep_for(kPollSleep);
  }
  std::sort(groups_.begin(), groups_.end(),
            [](const Group& a, const Group& b) { return a.prompt_index < b.prompt_index; });
  for (size_t i = 1; i < groups_.size(); ++i) {
    ORRERY_CHECK(groups_[i - 1].prompt_index != groups_[i].prompt_index, "prompt {} was delivered twice",
                 groups_[i].prompt_index);
  }
  return std::move(groups_);
}

WatchedLeases::WatchedLeases(LeaseSource& leases, const Job& job, std::string label)
    : leases_(leases), job_(job), label_(std::move(label)) {
  job_.phase(label_);
}

std::optional<uint64_t> WatchedLeases::try_lease() {
  const std::optional<uint64_t> prompt = leases_.try_lease();
  if (prompt) {
    in_hand_.insert(*prompt);
    tell();
  }
  return prompt;
}

void WatchedLeases::deliver(Group group) {
  in_hand_.erase(group.prompt_index);
  tell();
  leases_.deliver(std::move(group));
}

void WatchedLeases::poll() {
  // Waiting for a lease is no progress: an answer that never comes must be noticed.
  if (!in_hand_.empty()) job_.progress();
  leases_.poll();
}

void WatchedLeases::tell() {
  if (job_.watchdog == nullptr) return;
  if (in_hand_.empty()) {
    job_.watchdog->phase(label_);
    return;
  }
  const uint64_t first = *in_hand_.begin(), last = *in_hand_.rbegin();
  const char* gaps = last - first + 1 == in_hand_.size() ? "" : " in part";
  job_.watchdog->phase(first == last ? fmt::format("{}, prompt {}", label_, first)
                                     : fmt::format("{}, prompts {}..{}{}", label_, first, last, gaps));
}

RemoteLeases::RemoteLeases(Communicator& comm, uint64_t step, uint32_t appetite)
    : mailbox_(comm), rank_(comm.rank()), step_(step), appetite_(std::max<uint32_t>(appetite, 1)) {}

std::optional<uint64_t> RemoteLeases::try_lease() {
  if (queue_.empty() && !done_) {
    if (!asked_) {
      proto::LeaseRequest request;
      request.set_rank(rank_);
      request.set_groups(appetite_);
      mailbox_.send(0, request);
      asked_ = true;
    }
    if (const auto lease = mailbox_.try_receive<proto::Lease>(0)) {
      asked_ = false;
      if (lease->step() != step_)
        fail("rank {} was leased batch {} during batch {}", rank_, lease->step(), step_);
      done_ = lease->done();
      if (lease->prompt_index_size() > 0) {
        record_event("lease of prompts {}..{}", *lease->prompt_index().begin(),
                     *lease->prompt_index().rbegin());
      }
      queue_.insert(queue_.end(), lease->prompt_index().begin(), lease->prompt_index().end());
    }
  }
  if (queue_.empty()) return std::nullopt;
  const uint64_t next = queue_.front();
  queue_.pop_front();
  return next;
}

void RemoteLeases::deliver(Group group) {
  proto::GroupsMessage message;
  *message.add_groups() = group_to_proto(group);
  mailbox_.send(0, message);
}

}  // namespace orrery
