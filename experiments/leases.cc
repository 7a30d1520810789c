#include "experiments/leases.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/flight_recorder.h"

namespace orrery::experiments {
namespace {

constexpr auto kPollSleep = std::chrono::microseconds(200);

}  // namespace

LeaseBook::LeaseBook(comm::Communicator& comm, int remote_actors, StopAsked asked)
    : comm_(comm),
      mailbox_(comm),
      remote_actors_(remote_actors),
      asked_to_stop_(std::move(asked)) {}

void LeaseBook::begin_batch(const LeaseBatch& batch, int64_t /*max_prompts*/) {
  batch_ = batch;
  expected_ = batch.end - batch.begin;
  actors_told_ = 0;
  groups_.clear();
  stopping_ = false;
  silent_.clear();
}

std::optional<uint64_t> LeaseBook::try_lease() {
  if (exhausted()) return std::nullopt;
  return batch_.begin++;
}

void LeaseBook::deliver(rollout::Group group) { groups_.push_back(std::move(group)); }

void LeaseBook::poll() {
  if (comm_.size() == 1 && remote_actors_ == 0) return;
  int from = 0;
  while (const auto request =
             mailbox_.try_receive<proto::LeaseRequest>(comm::Communicator::kAnySource, &from)) {
    if (request->stop()) {
      stopping_ = true;
      silent_.insert(from);
    } else if (!stopping_) {  // else the end of the batch is its answer
      answer(*request, from);
    }
  }
  take_deliveries();
}

void LeaseBook::answer(const proto::LeaseRequest& request, int from) {
  proto::Lease lease;
  lease.set_step(batch_.step);
  for (uint32_t i = 0; i < request.groups() && !exhausted(); ++i)
    lease.add_prompt_index(batch_.begin++);
  lease.set_done(lease.prompt_index_size() == 0);
  if (lease.done()) {
    ++actors_told_;
  } else {
    record_event("prompts {}..{} leased to rank {}", *lease.prompt_index().begin(),
                 *lease.prompt_index().rbegin(), from);
  }
  mailbox_.send(from, lease);
}

void LeaseBook::take_deliveries() {
  while (const auto delivery = mailbox_.try_receive<proto::GroupsMessage>()) {
    for (const proto::Group& group : delivery->groups()) {
      deliver(rollout::group_from_proto(group));
      if (groups_.back().step != batch_.step) {
        fail("an actor delivered prompt {} of batch {} during batch {}", group.prompt_index(),
             group.step(), batch_.step);
      }
    }
  }
}

bool LeaseBook::stopping() {
  stopping_ = stopping_ || asked_to_stop_();
  return stopping_;
}

void LeaseBook::tell_the_end() {
  proto::Lease last;
  last.set_step(batch_.step);
  last.set_done(true);
  last.set_stop(stopping_);
  last.set_end(true);
  for (int rank = 0; rank < comm_.size(); ++rank) {
    if (rank != comm_.rank()) mailbox_.send(rank, last);
  }
  // What others still send must be read: a message that is too large to be on its way
  // without a reader would keep its sender from leaving.
  while (stopping_ && std::ssize(silent_) < comm_.size() - 1) {
    poll();
    std::this_thread::sleep_for(kPollSleep);
  }
}

std::optional<std::vector<rollout::Group>> LeaseBook::end_batch() {
  while (!stopping() && !complete()) {
    poll();
    if (!stopping() && !complete()) std::this_thread::sleep_for(kPollSleep);
  }
  tell_the_end();
  if (stopping_) return std::nullopt;
  std::ranges::sort(groups_, {}, &rollout::Group::prompt_index);
  const auto twice = std::ranges::adjacent_find(groups_, {}, &rollout::Group::prompt_index);
  ORRERY_CHECK(twice == groups_.end(), "prompt {} was delivered twice", twice->prompt_index);
  return std::exchange(groups_, {});
}

RemoteLeases::RemoteLeases(comm::Communicator& comm, StopAsked asked)
    : mailbox_(comm), rank_(comm.rank()), asked_to_stop_(std::move(asked)) {}

void RemoteLeases::begin_batch(const LeaseBatch& batch, int64_t max_prompts) {
  max_prompts_ = std::max<int64_t>(max_prompts, 1);
  now_ = {.step = batch.step};
  queue_.clear();
}

void RemoteLeases::read_messages() {
  while (!now_.ended) {
    const auto lease = mailbox_.try_receive<proto::Lease>(0);
    if (!lease) return;
    if (lease->step() != now_.step)
      fail("rank {} was leased batch {} during batch {}", rank_, lease->step(), now_.step);
    now_.ended = lease->end();
    now_.stopped = lease->stop();
    now_.done = lease->done();
    now_.asked = false;
    if (lease->prompt_index_size() > 0) {
      record_event("lease of prompts {}..{}", *lease->prompt_index().begin(),
                   *lease->prompt_index().rbegin());
    }
    queue_.insert(queue_.end(), lease->prompt_index().begin(), lease->prompt_index().end());
  }
}

void RemoteLeases::announce_stop() {
  proto::LeaseRequest request;
  request.set_rank(rank_);
  request.set_stop(true);
  mailbox_.send(0, request);
  now_.silent = true;
}

void RemoteLeases::poll() {
  read_messages();
  if (!now_.ended && !now_.silent && asked_to_stop_()) announce_stop();
}

std::optional<std::vector<rollout::Group>> RemoteLeases::end_batch() {
  for (poll(); !now_.ended; poll()) std::this_thread::sleep_for(kPollSleep);
  if (now_.stopped && !now_.silent) announce_stop();
  if (now_.stopped) return std::nullopt;
  return std::vector<rollout::Group>();
}

std::optional<uint64_t> RemoteLeases::try_lease() {
  if (queue_.empty() && !exhausted() && !stopping()) {
    if (!now_.asked) {
      proto::LeaseRequest request;
      request.set_rank(rank_);
      request.set_groups(max_prompts_);
      mailbox_.send(0, request);
      now_.asked = true;
    }
    read_messages();
  }
  if (queue_.empty()) return std::nullopt;
  const uint64_t next = queue_.front();
  queue_.pop_front();
  return next;
}

void RemoteLeases::deliver(rollout::Group group) {
  if (now_.silent) return;
  proto::GroupsMessage message;
  *message.add_groups() = group_to_proto(group);
  mailbox_.send(0, message);
}

std::unique_ptr<Leases> make_leases(comm::Communicator& comm, int remote_actors, StopAsked asked) {
  if (comm.rank() == 0) return std::make_unique<LeaseBook>(comm, remote_actors, std::move(asked));
  return std::make_unique<RemoteLeases>(comm, std::move(asked));
}

WatchedLeases::WatchedLeases(actors::LeaseClient& leases, const Job& job, std::string label)
    : leases_(leases), job_(job), label_(std::move(label)) {
  job_.begin_phase(label_);
}

std::optional<uint64_t> WatchedLeases::try_lease() {
  const std::optional<uint64_t> prompt = leases_.try_lease();
  if (prompt) {
    in_hand_.insert(*prompt);
    tell_in_hand();
  }
  return prompt;
}

void WatchedLeases::deliver(rollout::Group group) {
  in_hand_.erase(group.prompt_index);
  tell_in_hand();
  leases_.deliver(std::move(group));
}

void WatchedLeases::poll() {
  // Waiting for a lease is no progress: an answer that never comes must be noticed.
  if (!in_hand_.empty()) job_.note_progress();
  leases_.poll();
}

void WatchedLeases::tell_in_hand() {
  if (job_.watchdog == nullptr) return;
  if (in_hand_.empty()) {
    job_.watchdog->begin_phase(label_);
    return;
  }
  const uint64_t first = *in_hand_.begin(), last = *in_hand_.rbegin();
  const char* gaps = last - first + 1 == in_hand_.size() ? "" : " in part";
  job_.watchdog->begin_phase(first == last
                                 ? fmt::format("{}, prompt {}", label_, first)
                                 : fmt::format("{}, prompts {}..{}{}", label_, first, last, gaps));
}

}  // namespace orrery::experiments
