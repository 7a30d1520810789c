// The ranks of a NCCL communicator, as one of them sees them. NCCL's calls never block
// here: they are polled, with a deadline, and a group that fails is aborted, so that a
// rank whose peer has gone ends with an Error instead of waiting for ever.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/nccl_api.h"
#include "core/stream.h"

namespace orrery::comm::nccl {

/// Errors name the operation, this rank, the others with their hosts and devices, and
/// what NCCL says. After one the group is aborted and of no more use. Used by one
/// thread at a time.
class Group {
 public:
  /// Collective over `comm`, which must outlive the group's use (not its end). Rank 0
  /// asks the library for an id and gives it to the others through `comm`.
  /// `timeout_seconds`: how long a rank waits for others in one operation; 0: for ever.
  Group(Communicator& comm, Device device, std::shared_ptr<const Api> api, double timeout_seconds);
  /// Ends the group together with the other ranks. Aborts it where an Error unwinds.
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  Device device() const { return device_; }

  /// Begins a set of calls that the library takes as one, so that none of its sends
  /// waits for a receive of its own. Between begin() and end() come the calls below,
  /// all of them in order with the stream.
  void begin(const char* operation, const Stream& stream);
  void send(int peer, Vec<const std::byte> data);
  void receive(int peer, Vec<std::byte> into);
  void broadcast(Vec<std::byte> data, int root);
  void all_reduce_sum(Vec<float> data);
  /// Gives the calls to the library, which puts them on the stream as soon as it can
  /// (the first time that ranks meet, they have to connect).
  void end();
  /// Whether all that was given to the library is on its stream. Never waits. Until
  /// then nothing else may be begun.
  bool is_queued();

  /// Waits until done() says so, looking for errors of the group meanwhile. Counts as
  /// waiting in `operation`.
  void await(const char* operation, const std::function<bool()>& done);
  /// Waits until the calls, and what was on the stream before them, have been done.
  void await_calls(Stream& stream);

  /// Ends the group at once, here alone. The other ranks see that a peer has gone.
  void abort() noexcept;

 private:
  std::vector<std::string> exchange_id(UniqueId& id);
  void check(Result result);
  [[noreturn]] void fail_with(Result result);
  [[noreturn]] void fail_late();
  std::string ranks_text() const;

  Communicator& control_;
  const int rank_, size_;
  const Device device_;
  const std::shared_ptr<const Api> api_;
  const double timeout_seconds_;
  std::vector<std::string> places_;  // of each rank: "host, cuda:1"
  Comm comm_ = nullptr;
  const char* operation_ = "start of NCCL";  // the last that was begun
  CudaStream stream_ = nullptr;              // of the calls since begin()
  Result first_failure_ = Result::kSuccess;
};

}  // namespace orrery::comm::nccl
