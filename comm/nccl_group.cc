#include "comm/nccl_group.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>

#include "comm/waiting.h"
#include "core/error.h"
#include "core/flight_recorder.h"
#include "core/process.h"

namespace orrery::comm::nccl {
namespace {

/// Often the first sign of a peer's death is an error here. The launcher is then about
/// to end this rank too. Waiting a moment leaves the message to the rank that failed.
constexpr auto kGraceForTheFirstError = std::chrono::milliseconds(1500);

/// How long the end of a group waits for the other ranks' before it goes on alone.
constexpr double kMostSecondsToEnd = 10;

/// Other ranks that an error names, at most.
constexpr int kMostRanksNamed = 8;

bool is_over(Clock::time_point begin, double seconds) {
  return seconds > 0 && std::chrono::duration<double>(Clock::now() - begin).count() > seconds;
}

/// What NCCL takes for a stream. Streams of the CPU have no handle.
CudaStream handle_of(const Stream& stream) {
  return stream.device().type == DeviceType::kCuda ? stream.handle() : nullptr;
}

bool has_failed(Result result) {
  return result != Result::kSuccess && result != Result::kInProgress;
}

// A rank's part of the exchange: its place, a newline, and from rank 0 a letter that
// says what follows.
constexpr char kHasId = 'i', kHasError = 'e';

}  // namespace

Group::Group(Communicator& comm, Device device, std::shared_ptr<const Api> api,
             double timeout_seconds)
    : control_(comm),
      rank_(comm.rank()),
      size_(comm.size()),
      device_(device),
      api_(std::move(api)),
      timeout_seconds_(timeout_seconds) {
  record_event("NCCL starts for {} ranks", size_);
  UniqueId id;
  places_ = exchange_id(id);
  handle_of(device_stream(device));  // makes the device this thread's, which NCCL takes
  Config config;
  config.blocking = 0;
  check(api_->comm_init_rank_config(&comm_, size_, id, rank_, &config));
  await(operation_, [&] { return is_queued(); });
}

std::vector<std::string> Group::exchange_id(UniqueId& id) {
  std::string mine = fmt::format("{}, {}\n", host_name(), device_name(device_));
  if (rank_ == 0) {
    const Result result = api_->get_unique_id(&id);
    if (result == Result::kSuccess) {
      mine += kHasId + std::string(id.bytes.data(), id.bytes.size());
    } else {
      mine += kHasError + std::string(api_->get_error_string(result));
    }
  }
  std::vector<std::string> all = control_.all_gather_bytes(mine);
  const std::string said = all.front().substr(all.front().find('\n') + 1);
  for (std::string& text : all) text.resize(text.find('\n'));
  if (said.starts_with(kHasError)) {
    fail("NCCL gives rank 0 ({}) no id for a group of {} ranks: {}; NCCL_DEBUG=WARN says more",
         all.front(), size_, said.substr(1));
  }
  ORRERY_CHECK(said.starts_with(kHasId) && said.size() == 1 + id.bytes.size(),
               "rank 0 sent {} bytes as NCCL's id", said.size());
  std::memcpy(id.bytes.data(), said.data() + 1, id.bytes.size());
  return all;
}

Group::~Group() {
  if (comm_ == nullptr) return;
  if (std::uncaught_exceptions() > 0) {
    abort();
    return;
  }
  // The control plane may be gone by now, so this waits by itself.
  Result state = api_->comm_finalize(comm_);
  const auto begin = Clock::now();
  const double most =
      timeout_seconds_ > 0 ? std::min(timeout_seconds_, kMostSecondsToEnd) : kMostSecondsToEnd;
  for (Backoff backoff; !has_failed(state) && !is_over(begin, most); backoff.pause()) {
    const Result asked = api_->comm_get_async_error(comm_, &state);
    if (has_failed(asked)) state = asked;
    if (state == Result::kSuccess) break;
  }
  if (state == Result::kSuccess) {
    api_->comm_destroy(comm_);
    return;
  }
  spdlog::warn("NCCL: rank {} of {} ends its group alone: {}", rank_, size_,
               api_->get_error_string(state));
  abort();
}

void Group::abort() noexcept {
  if (comm_ == nullptr) return;
  api_->comm_abort(comm_);
  comm_ = nullptr;
}

void Group::begin(const char* operation, const Stream& stream) {
  ORRERY_CHECK(comm_ != nullptr, "{} with a NCCL group that was aborted in {}", operation,
               operation_);
  operation_ = operation;
  stream_ = handle_of(stream);
  first_failure_ = api_->group_start();
}

void Group::send(int peer, Vec<const std::byte> data) {
  if (has_failed(first_failure_)) return;
  first_failure_ = api_->send(data.data, data.size, DataType::kUint8, peer, comm_, stream_);
}

void Group::receive(int peer, Vec<std::byte> into) {
  if (has_failed(first_failure_)) return;
  first_failure_ = api_->receive(into.data, into.size, DataType::kUint8, peer, comm_, stream_);
}

void Group::broadcast(Vec<std::byte> data, int root) {
  if (has_failed(first_failure_)) return;
  first_failure_ =
      api_->broadcast(data.data, data.data, data.size, DataType::kUint8, root, comm_, stream_);
}

void Group::all_reduce_sum(Vec<float> data) {
  if (has_failed(first_failure_)) return;
  first_failure_ = api_->all_reduce(data.data, data.data, data.size, DataType::kFloat32,
                                    RedOp::kSum, comm_, stream_);
}

void Group::end() {
  const Result ended = api_->group_end();  // also after a failure: begin() opened it
  check(first_failure_);
  check(ended);
}

bool Group::is_queued() {
  ORRERY_CHECK(comm_ != nullptr, "a NCCL group that was aborted in {}", operation_);
  Result state = Result::kSuccess;
  check(api_->comm_get_async_error(comm_, &state));
  check(state);
  return state == Result::kSuccess;
}

void Group::await(const char* operation, const std::function<bool()>& done) {
  operation_ = operation;
  const auto begin = Clock::now();
  control_.wait(operation, [&] {
    if (done()) return true;
    is_queued();
    if (is_over(begin, timeout_seconds_)) fail_late();
    return false;
  });
}

void Group::await_calls(Stream& stream) {
  std::optional<Event> end;
  await(operation_, [&] {
    if (!end && is_queued()) end = stream.record();
    return end && stream.is_done(*end);
  });
}

void Group::check(Result result) {
  if (has_failed(result)) fail_with(result);
}

std::string Group::ranks_text() const {
  std::string text;
  int named = 0;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) continue;
    if (++named > kMostRanksNamed) {
      text += fmt::format(" and {} more", size_ - 1 - kMostRanksNamed);
      break;
    }
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", rank, places_[rank]);
  }
  return text.empty() ? "none" : text;
}

void Group::fail_with(Result result) {
  std::string said = api_->get_error_string(result);
  const char* last = api_->get_last_error(comm_);
  if (last != nullptr && *last != '\0') said += fmt::format(" ({})", last);
  std::ranges::replace(said, '\n', ' ');
  abort();
  if (result == Result::kRemoteError) {
    std::this_thread::sleep_for(kGraceForTheFirstError);
    fail(
        "{} failed on rank {} of {} ({}): NCCL says: {}; a peer has gone, or the network to it: "
        "see the other ranks' messages; they are {}",
        operation_, rank_, size_, places_[rank_], said, ranks_text());
  }
  fail("{} failed on rank {} of {} ({}): NCCL says: {}; NCCL_DEBUG=WARN says more; other ranks: {}",
       operation_, rank_, size_, places_[rank_], said, ranks_text());
}

void Group::fail_late() {
  abort();
  fail(
      "{} on rank {} of {} ({}) did not end within {:g} s (cluster.hang_timeout_s): NCCL reports no "
      "error, so a peer hangs, or has not come to it; other ranks: {}",
      operation_, rank_, size_, places_[rank_], timeout_seconds_, ranks_text());
}

}  // namespace orrery::comm::nccl
