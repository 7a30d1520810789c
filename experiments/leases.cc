#include "experiments/leases.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"
#include "core/flight_recorder.h"

namespace orrery::experiments {
namespace {

constexpr auto kPollSleep = std::chrono::microseconds(200);

}  // namespace

LeaseBook::LeaseBook(comm::Communicator& comm, uint64_t step, uint64_t begin, uint64_t end,
                     int remote_actors, StopAsked asked)
    : comm_(comm),
      mailbox_(comm),
      step_(step),
      next_(begin),
      end_(end),
      expected_(static_cast<size_t>(end - begin)),
      remote_actors_(remote_actors),
      asked_to_stop_(std::move(asked)) {}

std::optional<uint64_t> LeaseBook::try_lease() {
  if (next_ == end_) return std::nullopt;
  return next_++;
}

void LeaseBook::deliver(rollout::Group group) { groups_.push_back(std::move(group)); }

void LeaseBook::poll() {
  if (comm_.size() == 1) return;
  int from = 0;
  while (const auto request =
             mailbox_.try_receive<proto::LeaseRequest>(comm::Communicator::kAnySource, &from)) {
    if (request->stop()) {
      stopping_ = true;
      silent_.insert(from);
      continue;
    }
    if (stopping_) continue;  // the end of the batch is its answer
    proto::Lease lease;
    lease.set_step(step_);
    for (uint32_t i = 0; i < request->groups() && next_ < end_; ++i)
      lease.add_prompt_index(next_++);
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
      deliver(rollout::group_from_proto(group));
      if (groups_.back().step != step_) {
        fail("an actor delivered prompt {} of batch {} during batch {}", group.prompt_index(),
             group.step(), step_);
      }
    }
  }
}

bool LeaseBook::stopping() {
  stopping_ = stopping_ || asked_to_stop_();
  return stopping_;
}

void LeaseBook::end_batch() {
  proto::Lease last;
  last.set_step(step_);
  last.set_done(true);
  last.set_stop(stopping_);
  last.set_end(true);
  for (int rank = 0; rank < comm_.size(); ++rank) {
    if (rank != comm_.rank()) mailbox_.send(rank, last);
  }
  // What others still send must be read: a message that is too large to be on its way
  // without a reader would keep its sender from leaving.
  while (stopping_ && static_cast<int>(silent_.size()) < comm_.size() - 1) {
    poll();
    std::this_thread::sleep_for(kPollSleep);
  }
}

std::optional<std::vector<rollout::Group>> LeaseBook::collect() {
  while (!stopping() && !complete()) {
    poll();
    if (!stopping() && !complete()) std::this_thread::sleep_for(kPollSleep);
  }
  end_batch();
  if (stopping_) return std::nullopt;
  std::sort(groups_.begin(), groups_.end(), [](const rollout::Group& a, const rollout::Group& b) {
    return a.prompt_index < b.prompt_index;
  });
  for (size_t i = 1; i < groups_.size(); ++i) {
    ORRERY_CHECK(groups_[i - 1].prompt_index != groups_[i].prompt_index,
                 "prompt {} was delivered twice", groups_[i].prompt_index);
  }
  return std::move(groups_);
}

WatchedLeases::WatchedLeases(actors::LeaseSource& leases, const Job& job, std::string label)
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

void WatchedLeases::deliver(rollout::Group group) {
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
  job_.watchdog->phase(first == last
                           ? fmt::format("{}, prompt {}", label_, first)
                           : fmt::format("{}, prompts {}..{}{}", label_, first, last, gaps));
}

RemoteLeases::RemoteLeases(comm::Communicator& comm, uint64_t step, uint32_t appetite,
                           StopAsked asked)
    : mailbox_(comm),
      rank_(comm.rank()),
      step_(step),
      appetite_(std::max<uint32_t>(appetite, 1)),
      asked_to_stop_(std::move(asked)) {}

void RemoteLeases::hear() {
  while (!ended_) {
    const auto lease = mailbox_.try_receive<proto::Lease>(0);
    if (!lease) return;
    if (lease->step() != step_)
      fail("rank {} was leased batch {} during batch {}", rank_, lease->step(), step_);
    ended_ = lease->end();
    stopped_ = lease->stop();
    done_ = lease->done();
    asked_ = false;
    if (lease->prompt_index_size() > 0) {
      record_event("lease of prompts {}..{}", *lease->prompt_index().begin(),
                   *lease->prompt_index().rbegin());
    }
    queue_.insert(queue_.end(), lease->prompt_index().begin(), lease->prompt_index().end());
  }
}

void RemoteLeases::fall_silent() {
  proto::LeaseRequest request;
  request.set_rank(rank_);
  request.set_stop(true);
  mailbox_.send(0, request);
  silent_ = true;
}

void RemoteLeases::poll() {
  hear();
  if (!ended_ && !silent_ && asked_to_stop_()) fall_silent();
}

bool RemoteLeases::await_end() {
  for (poll(); !ended_; poll()) std::this_thread::sleep_for(kPollSleep);
  if (stopped_ && !silent_) fall_silent();
  return !stopped_;
}

std::optional<uint64_t> RemoteLeases::try_lease() {
  if (queue_.empty() && !exhausted() && !stopping()) {
    if (!asked_) {
      proto::LeaseRequest request;
      request.set_rank(rank_);
      request.set_groups(appetite_);
      mailbox_.send(0, request);
      asked_ = true;
    }
    hear();
  }
  if (queue_.empty()) return std::nullopt;
  const uint64_t next = queue_.front();
  queue_.pop_front();
  return next;
}

void RemoteLeases::deliver(rollout::Group group) {
  if (silent_) return;
  proto::GroupsMessage message;
  *message.add_groups() = rollout::group_to_proto(group);
  mailbox_.send(0, message);
}

}  // namespace orrery::experiments
