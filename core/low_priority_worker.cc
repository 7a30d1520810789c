#include "core/low_priority_worker.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace orrery {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kShare = 16;  // run() works itself for 1 / kShare of its time
constexpr auto kMaxCredit = std::chrono::milliseconds(100);

}  // namespace

void run_inline(const std::function<void()>& piece) { piece(); }

void lower_thread_priority() {
  const sched_param none{};
  if (sched_setscheduler(0, SCHED_IDLE, &none) == 0) return;  // 0: the calling thread
  [[maybe_unused]] const int refused = setpriority(PRIO_PROCESS, gettid(), 19);
}

LowPriorityWorker::~LowPriorityWorker() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LowPriorityWorker::begin() {
  urgent_ = false;
  credit_ = kMaxCredit;
}

void LowPriorityWorker::run(const std::function<void()>& piece) {
  const Clock::time_point begin = Clock::now();
  if (urgent_ || credit_ > Clock::duration::zero()) {
    piece();
    credit_ = std::max(credit_ - (Clock::now() - begin), Clock::duration::zero());
    return;
  }
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread([this] { serve(); });
    } catch (const std::system_error&) {  // no more threads to be had
      lock.unlock();
      piece();
      return;
    }
  }
  piece_ = &piece;
  wake_.notify_one();
  finished_.wait(lock, [this] { return piece_ == nullptr; });
  const std::exception_ptr error = std::exchange(error_, nullptr);
  lock.unlock();
  credit_ = std::min<Clock::duration>(credit_ + (Clock::now() - begin) / kShare, kMaxCredit);
  if (error) std::rethrow_exception(error);
}

void LowPriorityWorker::serve() {
  lower_thread_priority();
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return end_ || piece_ != nullptr; });
    if (piece_ == nullptr) return;
    const std::function<void()>& piece = *piece_;
    lock.unlock();
    std::exception_ptr error;
    try {
      piece();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    error_ = error;
    piece_ = nullptr;
    finished_.notify_one();
  }
}

}  // namespace orrery
