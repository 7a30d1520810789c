// Work in the background that gives way: pieces of it run on a thread of the lowest
// priority, which gets only what others leave of the CPUs, so that a team of threads
// that computes beside it does not wait for one of its members. A process without
// privileges cannot take such a thread back to normal priority; so whoever has the work
// to do hands it over piece by piece, and does the pieces itself when somebody waits
// for the end (hurry()), or when others leave nothing: 1/16 of its time it then works
// at its own priority, so that the work does end.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace orrery {

/// Runs a piece of work and returns when it is done, passing on what it throws.
using PieceRunner = std::function<void(const std::function<void()>& piece)>;

/// Here and now.
void run_at_once(const std::function<void()>& piece);

/// From now on the calling thread gets only what others leave of the CPUs. Where the
/// system refuses, nothing changes.
void lower_thread_priority();

class QuietWorker {
 public:
  QuietWorker() = default;
  ~QuietWorker();
  QuietWorker(const QuietWorker&) = delete;
  QuietWorker& operator=(const QuietWorker&) = delete;

  /// A new work begins; not beside run(). Its first tenth of a second is done at
  /// run()'s own priority: so little disturbs nobody, and a small work is done as soon
  /// as ever.
  void begin();

  /// A PieceRunner, for one thread at a time. Pieces should be short (a millisecond):
  /// one that was handed over must be waited for. The thread is started by the first.
  void run(const std::function<void()>& piece);

  /// Whether somebody waits for the work. Thread-safe.
  void hurry(bool waits) { hurry_ = waits; }

 private:
  void serve();

  std::atomic<bool> hurry_ = false;
  std::chrono::steady_clock::duration credit_{0};  // of run()'s own thread
  std::mutex mutex_;                               // guards the rest
  std::condition_variable wake_, finished_;
  const std::function<void()>* piece_ = nullptr;
  std::exception_ptr error_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace orrery
