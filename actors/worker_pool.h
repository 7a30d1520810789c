// Worker processes that answer requests, and what is done when they do not: one that is
// late, dies or answers nonsense is killed with all that it has started, another takes
// its place, and its request is sent again, as often as is allowed, and then dropped.
// Nothing here waits but where it says so.
//
// A request is one line, {"id": N, ...}, and so is its answer, which repeats the id:
// what a worker says beyond its one answer can never be taken for that of the next
// request.
//
// Not thread-safe: of one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/json_members.h"
#include "actors/worker.h"

namespace orrery::actors {

struct WorkerPoolConfig {
  std::string command;
  int64_t workers = 4;
  double timeout_s = 30;
  double start_timeout_s = 60;  ///< more for the first answer of a process
  int64_t retries = 1;          ///< of a request whose worker failed
};

class WorkerPool {
 public:
  enum class State : uint8_t { kInWork, kAnswered, kDropped };
  /// Takes an answer of the right id. An Error that it throws says what is wrong with
  /// it: then it is nonsense.
  using Accept = std::function<void(const std::vector<JsonMember>& answer)>;

  struct Request {
    uint64_t id = 0;
    std::string rest;   ///< the request without its first member: "\"turn\": 0}"
    std::string about;  ///< what it is for, for messages: "train.jsonl:7"; may be empty
    Accept accept;
    State state = State::kInWork;
    int64_t failures = 0;
    std::string why;  ///< of a dropped one
  };

  explicit WorkerPool(WorkerPoolConfig config);
  /// Ends the workers' input and gives them a moment to end by themselves; the busy
  /// ones, or all while an exception unwinds, are killed at once.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Starts a first worker when there is none, so that it is ready, or known not to
  /// run, early.
  void warm_up();

  /// Queues a request: its state changes in poll().
  std::shared_ptr<const Request> submit(std::string rest, Accept accept, std::string about = "");

  /// Moves everything on; when nothing has happened, waits up to `timeout` for it. True
  /// when a request has been answered or dropped. Usage Error when the command cannot
  /// be run, or when none of its processes has ever answered and several have failed;
  /// Error when very many requests in a row have been dropped. While requests fail, a
  /// warning says so now and then.
  bool poll(std::chrono::milliseconds timeout);

  /// Forgets all requests, and kills the workers that are at one.
  void cancel();

  /// How many requests failed and were sent again or dropped since the last call, and
  /// why the last: for a warning. Empty: none.
  std::string take_trouble();

 private:
  using Clock = std::chrono::steady_clock;

  struct Slot {
    std::unique_ptr<Worker> worker;  // null until it is needed
    std::shared_ptr<Request> request;
    Clock::time_point deadline;
    uint64_t answered = 0;         // by this process
    Clock::time_point not_before;  // of the next process
    int64_t failures = 0;          // of processes in a row that answered nothing
  };

  int wait_time(std::chrono::milliseconds timeout) const;
  void look_for_events(std::chrono::milliseconds timeout);
  void start(Slot& slot);
  void give_out();
  void read_from(Slot& slot);
  void take_answer(Slot& slot, const std::string& line);
  void check_deadline(Slot& slot);
  void worker_ended(Slot& slot, const std::string& what);
  /// Kills the worker, notes and tells why, and what becomes of its request.
  void failed(Slot& slot, const std::string& what, bool not_found = false);
  void give_up_if_hopeless(const std::string& last, bool not_found);
  void tell_now_and_then();

  WorkerPoolConfig config_;
  std::vector<Slot> slots_;
  std::deque<std::shared_ptr<Request>> queue_;
  uint64_t next_id_ = 1;
  bool changed_ = false;                // a request, since poll() said so last
  bool ever_answered_ = false;          // any process
  int64_t early_failures_ = 0;          // of processes before that
  int64_t told_ = 0;                    // warnings of failures
  int64_t failures_ = 0, dropped_ = 0;  // since take_trouble()
  int64_t dropped_in_a_row_ = 0;
  Clock::time_point told_at_ = Clock::now();
  std::string last_failure_;
  Clock::time_point looked_;  // at whether processes have ended
};

}  // namespace orrery::actors
