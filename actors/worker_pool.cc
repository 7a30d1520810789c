#include "actors/worker_pool.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/error_report.h"
#include "core/log.h"

namespace orrery::actors {
namespace {

using std::chrono::milliseconds;

/// How many failures get a warning of their own; all are counted.
constexpr int64_t kWarnedFailures = 5;
/// When this many processes have failed and none has ever answered, the command is
/// wrong.
constexpr int64_t kHopeless = 3;
/// When this many requests in a row have been dropped, the program is taken for dead.
constexpr int64_t kDead = 200;
constexpr std::chrono::seconds kWarnEvery{30};
constexpr milliseconds kFirstPause{50}, kLongestPause{1000};
/// How often to look for processes that have ended while others hold their pipes open.
constexpr milliseconds kLookEvery{20};
/// How soon the system reports the end of a process that has closed its pipes.
constexpr milliseconds kSoon{5};
/// How long workers may take to end when their input does.
constexpr milliseconds kGrace{2000};
constexpr size_t kShownLine = 120;

std::chrono::nanoseconds seconds(double count) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(count));
}

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r") == std::string::npos;
}

/// Says why the answer is not one to request `id`; empty when it is.
std::string wrong_id(const std::vector<JsonMember>& answer, uint64_t id) {
  const JsonMember* found = find_member(answer, "id");
  if (found == nullptr)
    return fmt::format("has no \"id\", which is to be {}, as in the request", id);
  if (found->value == std::to_string(id)) return "";
  return fmt::format("has the id {} and not {}: each request has one answer, with its id",
                     printable(found->value, kShownLine), id);
}

}  // namespace

WorkerPool::WorkerPool(WorkerPoolConfig config)
    : config_(std::move(config)), slots_(config_.workers) {}

WorkerPool::~WorkerPool() {
  const bool patient = std::uncaught_exceptions() == 0;
  for (Slot& slot : slots_) {
    if (slot.request || !patient) slot.worker.reset();
    if (slot.worker) slot.worker->send_end();
  }
  const auto end = Clock::now() + kGrace;
  for (Slot& slot : slots_) {
    while (slot.worker && slot.worker->problem().empty() && Clock::now() < end) {
      slot.worker->pump();
      while (slot.worker->take_line()) {
      }
      std::this_thread::sleep_for(milliseconds(1));
    }
    slot.worker.reset();
  }
}

void WorkerPool::warm_up() {
  const bool any = std::any_of(slots_.begin(), slots_.end(),
                               [](const Slot& slot) { return slot.worker != nullptr; });
  if (!any && slots_.front().not_before <= Clock::now()) start(slots_.front());
}

std::shared_ptr<const WorkerPool::Request> WorkerPool::submit(std::string rest, Accept accept,
                                                              std::string about) {
  auto request = std::make_shared<Request>();
  request->id = next_id_++;
  request->rest = std::move(rest);
  request->accept = std::move(accept);
  request->about = std::move(about);
  queue_.push_back(request);
  assign_requests();
  return request;
}

void WorkerPool::start(Slot& slot) {
  slot.answered = 0;
  try {
    slot.worker = std::make_unique<Worker>(config_.command);
  } catch (const Error& error) {
    const auto alive = std::count_if(slots_.begin(), slots_.end(),
                                     [](const Slot& other) { return other.worker != nullptr; });
    if (alive == 0) throw;
    spdlog::warn(
        "{}; {} processes of data.external.command do the work, and not data.external.workers = {}",
        error.what(), alive, config_.workers);
    for (Slot& other : slots_) {
      if (!other.worker) other.not_before = Clock::time_point::max();
    }
  }
}

void WorkerPool::assign_requests() {
  // Running workers come first: another process is started only when all are busy.
  for (const bool running : {true, false}) {
    for (Slot& slot : slots_) {
      if (queue_.empty()) return;
      if (slot.request || (slot.worker != nullptr) != running) continue;
      if (running) {
        read_from(slot);  // it may have ended meanwhile
        if (!slot.worker) continue;
      } else {
        if (slot.not_before > Clock::now()) continue;
        start(slot);
        if (!slot.worker) return;
      }
      slot.request = std::move(queue_.front());
      queue_.pop_front();
      slot.deadline = Clock::now() + seconds(config_.timeout_s) +
                      (slot.answered == 0 ? seconds(config_.start_timeout_s) : seconds(0));
      slot.worker->send(fmt::format("{{\"id\": {}, {}\n", slot.request->id, slot.request->rest));
    }
  }
}

bool WorkerPool::poll(milliseconds timeout) {
  warn_periodically();
  wait_for_events(milliseconds(0));
  assign_requests();
  if (!changed_ && timeout.count() > 0) {
    wait_for_events(timeout);
    assign_requests();
  }
  return std::exchange(changed_, false);
}

int WorkerPool::wait_time(milliseconds timeout) const {
  auto until = Clock::now() + timeout;
  for (const Slot& slot : slots_) {
    if (slot.request) until = std::min(until, slot.deadline);
    if (slot.worker && slot.worker->is_closing()) until = std::min(until, Clock::now() + kSoon);
    if (!slot.worker && !queue_.empty()) until = std::min(until, slot.not_before);
  }
  const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
  return static_cast<int>(std::clamp(left, milliseconds(0), timeout).count());
}

void WorkerPool::wait_for_events(milliseconds timeout) {
  std::vector<pollfd> fds;
  Array<int64_t> slot_of;  // of each of fds
  for (int64_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].worker) slots_[i].worker->add_to(fds);
    slot_of.resize(std::ssize(fds), i);
  }
  ::poll(fds.data(), fds.size(), timeout.count() > 0 ? wait_time(timeout) : 0);
  const bool look = Clock::now() - looked_ >= kLookEvery;
  if (look) looked_ = Clock::now();
  Array<uint8_t> touched(slots_.size(), look);
  for (int64_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].worker && slots_[i].worker->is_closing()) touched[i] = true;
  }
  for (int64_t i = 0; i < slot_of.size(); ++i) {
    if (fds[i].revents != 0) touched[slot_of[i]] = true;
  }
  for (int64_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].worker && touched[i] != 0) read_from(slots_[i]);
    if (slots_[i].request) check_deadline(slots_[i]);
  }
}

void WorkerPool::read_from(Slot& slot) {
  slot.worker->pump();
  std::string problem = slot.worker->problem();
  while (slot.worker) {
    const std::optional<std::string> line = slot.worker->take_line();
    if (!line) break;
    if (!is_blank(*line)) take_answer(slot, *line);
  }
  if (!slot.worker) return;
  // Taking lines may have found one that is too long.
  if (problem.empty()) problem = slot.worker->problem();
  if (!problem.empty()) worker_ended(slot, problem);
}

void WorkerPool::take_answer(Slot& slot, const std::string& line) {
  const auto nonsense = [&](const std::string& what) {
    failed(slot, fmt::format("{}: '{}'", what, printable(line, kShownLine)));
  };
  if (!slot.request) {
    nonsense(
        "wrote a line that no request asked for (stdout is for answers, one a request: "
        "print to stderr)");
    return;
  }
  try {
    std::vector<JsonMember> answer;
    try {
      answer = json_members(line);
    } catch (const Error& error) {
      const bool number =
          line.find("NaN") != std::string::npos || line.find("Infinity") != std::string::npos;
      fail("{}{}", error.what(),
           number ? ", which has no NaN and no Infinity"
                  : " (stdout is for answers: print to stderr)");
    }
    const std::string wrong = wrong_id(answer, slot.request->id);
    if (!wrong.empty()) fail("{}", wrong);
    slot.request->accept(answer);
  } catch (const Error& error) {
    nonsense(fmt::format("gave an answer that {}", error.what()));
    return;
  }
  slot.request->state = State::kAnswered;
  slot.request.reset();
  ++slot.answered;
  slot.failures = 0;
  dropped_in_a_row_ = 0;
  ever_answered_ = changed_ = true;
}

void WorkerPool::check_deadline(Slot& slot) {
  if (Clock::now() < slot.deadline) return;
  const double limit = config_.timeout_s + (slot.answered == 0 ? config_.start_timeout_s : 0);
  failed(slot, slot.answered == 0
                   ? fmt::format(
                         "did not answer within {:g} s (data.external.timeout_s + start_timeout_s; "
                         "each answer must be flushed)",
                         limit)
                   : fmt::format("did not answer within {:g} s (data.external.timeout_s)", limit));
}

void WorkerPool::worker_ended(Slot& slot, const std::string& what) {
  // A program that has answered may end between requests, and may not have seen a
  // request that came at that moment, so the request is not counted as failed. Each
  // such end follows an answer, so this cannot go on for ever without one.
  if (slot.answered > 0 && slot.worker->ended_well()) {
    slot.worker.reset();
    if (slot.request) queue_.push_front(std::move(slot.request));
    slot.request.reset();
    return;
  }
  failed(slot, what, slot.worker->was_not_found());
}

void WorkerPool::failed(Slot& slot, const std::string& what, bool not_found) {
  slot.worker->pump();  // what it wrote last
  const std::string last_stderr = slot.worker->last_stderr();
  const std::string text = fmt::format(
      "a process of data.external.command '{}' {}{}; {}", printable(config_.command, kShownLine),
      what, slot.request && !slot.request->about.empty() ? ", at " + slot.request->about : "",
      last_stderr.empty() ? "it wrote nothing to stderr" : "its stderr: " + last_stderr);
  slot.worker->kill();
  slot.worker.reset();
  if (slot.answered == 0) {
    const auto pause = kFirstPause * (int64_t{1} << std::min<int64_t>(slot.failures++, 10));
    slot.not_before = Clock::now() + std::min<milliseconds>(pause, kLongestPause);
  }
  last_failure_ = text;
  if (slot.request) {
    ++failures_;
    if (++slot.request->failures > config_.retries) {
      ++dropped_;
      ++dropped_in_a_row_;
      slot.request->state = State::kDropped;
      slot.request->why = text;
      changed_ = true;
    } else {
      queue_.push_front(std::move(slot.request));
    }
    slot.request.reset();
  }
  give_up_if_hopeless(text, not_found);
  if (warned_ < kWarnedFailures) {
    ++warned_;
    spdlog::warn("{}{}", text,
                 warned_ == kWarnedFailures ? " (further failures are only counted)" : "");
  }
}

void WorkerPool::warn_periodically() {
  if (failures_ == 0 || Clock::now() - warned_at_ < kWarnEvery) return;
  warned_at_ = Clock::now();
  spdlog::warn(
      "{} request(s) to data.external.command failed so far, {} of them for good; {} wait: {}",
      failures_, dropped_, queue_.size(), last_failure_);
}

void WorkerPool::give_up_if_hopeless(const std::string& last, bool not_found) {
  if (dropped_in_a_row_ >= kDead) {
    fail_user_error(
        "{} requests in a row had no answer, the last: {}; "
        "mend the program, or what it relies on, and start again",
        dropped_in_a_row_, last);
  }
  if (ever_answered_) return;
  ++early_failures_;
  if (not_found) fail_usage("{}; the command cannot be run: mend data.external.command", last);
  if (early_failures_ >= kHopeless) {
    fail_usage(
        "{} processes have failed and none has ever answered, the last: {}; "
        "mend the program (docs/formats.md, Rewards from a program)",
        early_failures_, last);
  }
}

void WorkerPool::cancel() {
  queue_.clear();
  for (Slot& slot : slots_) {
    if (!slot.request) continue;
    slot.worker->kill();
    slot.worker.reset();
    slot.request.reset();
  }
}

std::string WorkerPool::take_failure_text() {
  ever_answered_ = true;
  if (failures_ == 0) return "";
  const std::string text =
      fmt::format("{} request(s) failed, {} of them for good, the last because {}", failures_,
                  dropped_, last_failure_);
  failures_ = dropped_ = 0;
  return text;
}

}  // namespace orrery::actors
