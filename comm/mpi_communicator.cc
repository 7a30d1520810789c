// The control plane over MPI.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "comm/checks.h"
#include "comm/mpi_support.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/flight_recorder.h"

namespace orrery::comm::mpi {
namespace {

/// A message on the wire is this header, then the bytes. What does not fit into the
/// first kMaxCallBytes follows in messages of the same tag.
struct WireHeader {
  uint64_t total_bytes;
};

class MpiCommunicator final : public Communicator {
 public:
  /// Collective over `comm`, which it then owns.
  MpiCommunicator(MPI_Comm comm, std::shared_ptr<WaitState> waiting)
      : group_{comm, 0, 1, std::move(waiting)} {
    check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0);
    check(MPI_Comm_rank(comm, &group_.rank), "MPI_Comm_rank", 0);
    check(MPI_Comm_size(comm, &group_.size), "MPI_Comm_size", group_.rank);
    check(MPI_Comm_dup(comm, &message_comm_), "MPI_Comm_dup", group_.rank);
    check(MPI_Comm_set_errhandler(message_comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler",
          group_.rank);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    // While an Error unwinds, peers may never answer: the job is about to be aborted.
    if (finalized != 0 || std::uncaught_exceptions() > 0) {
      for (PendingSend& send : pending_) (void)send.bytes.release();  // MPI may still read them
      return;
    }
    try {
      const std::lock_guard lock(message_mutex_);
      for (Backoff backoff; !reap_sends(); backoff.pause()) {
      }
      check(MPI_Comm_free(&message_comm_), "MPI_Comm_free", group_.rank);
      check(MPI_Comm_free(&group_.comm), "MPI_Comm_free", group_.rank);
    } catch (const std::exception& e) {
      spdlog::warn("closing a communicator: {}", e.what());
    }
  }

  int rank() const override { return group_.rank; }
  int size() const override { return group_.size; }

  Waiting waiting() const override { return group_.waiting->get(); }
  void wait(const char* operation, const std::function<bool()>& done) override {
    wait_until(*group_.waiting, operation, done);
  }

  void barrier() override { group_.await_all("barrier"); }

  void broadcast(std::span<std::byte> data, int root) override {
    ORRERY_CHECK(root >= 0 && root < size(), "broadcast: rank {} of {}", root, size());
    const WaitState::Scope moving = group_.arrive("broadcast");
    for_chunks(std::ssize(data), [&](int64_t begin, int count) {
      check(MPI_Bcast(data.data() + begin, count, MPI_BYTE, root, group_.comm), "MPI_Bcast",
            group_.rank, root);
    });
  }

  void all_reduce_sum(std::span<double> data) override { all_reduce(data, MPI_SUM); }
  void all_reduce_max(std::span<double> data) override { all_reduce(data, MPI_MAX); }

  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    const WaitState::Scope moving = group_.arrive("all_gather_bytes");
    Array<uint64_t> sizes(size());
    const uint64_t own_size = mine.size();
    check(MPI_Allgather(&own_size, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, group_.comm),
          "MPI_Allgather", group_.rank);
    Array<std::string> all(size());
    Transfers transfers(group_.comm, group_.rank);
    for (int step = 1; step < size(); ++step) {
      const int from = (group_.rank - step + size()) % size();
      std::string& text = all[from];
      text.resize(sizes[from]);
      transfers.receive(from, std::as_writable_bytes(std::span(text)), "all_gather_bytes");
    }
    for (int step = 1; step < size(); ++step)
      transfers.send((group_.rank + step) % size(), std::as_bytes(std::span(mine)),
                     "all_gather_bytes");
    transfers.finish("all_gather_bytes");
    all[rank()] = mine;
    return std::move(all.vector());
  }

  void send(int destination, int tag, const std::string& bytes) override {
    check_peer(destination, "send");
    check_tag(tag, "send");
    const std::lock_guard lock(message_mutex_);
    PendingSend pending;
    const int64_t wire_bytes = sizeof(WireHeader) + bytes.size();
    pending.bytes = std::make_unique_for_overwrite<char[]>(wire_bytes);
    const WireHeader header{bytes.size()};
    std::memcpy(pending.bytes.get(), &header, sizeof header);
    std::memcpy(pending.bytes.get() + sizeof header, bytes.data(), bytes.size());
    for_chunks(wire_bytes, [&](int64_t begin, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      check(MPI_Isend(pending.bytes.get() + begin, count, MPI_BYTE, destination, tag, message_comm_,
                      &request),
            "MPI_Isend", group_.rank, destination);
      pending.requests.push_back(request);
    });
    pending.destination = destination;
    pending_.push_back(std::move(pending));
    // MPI moves data only inside its calls, and a large message needs a few of them. A
    // receiver that is already waiting takes the message within this time; for a busy
    // one our next call moves the rest.
    const auto deadline = Clock::now() + std::chrono::milliseconds(2);
    for (Backoff backoff; !reap_sends() && Clock::now() < deadline; backoff.pause()) {
    }
  }

  Message receive(int source, int tag) override {
    if (auto message = try_receive(source, tag)) return std::move(*message);
    std::optional<Message> message;
    wait("receive", [&] { return (message = try_receive(source, tag)).has_value(); });
    return std::move(*message);
  }

  std::optional<Message> try_receive(int source, int tag) override {
    if (source != kAnySource) check_peer(source, "receive");
    if (tag != kAnyTag) check_tag(tag, "receive");
    const std::lock_guard lock(message_mutex_);
    reap_sends();
    int found = 0;
    MPI_Message matched = MPI_MESSAGE_NULL;
    MPI_Status status;
    check(MPI_Improbe(source == kAnySource ? MPI_ANY_SOURCE : source,
                      tag == kAnyTag ? MPI_ANY_TAG : tag, message_comm_, &found, &matched, &status),
          "MPI_Improbe", group_.rank, source == kAnySource ? kNoPeer : source);
    if (found == 0) return std::nullopt;
    return read_message(matched, status);
  }

  std::unique_ptr<Communicator> split(int color) override {
    const WaitState::Scope moving = group_.arrive("split");
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(group_.comm, color < 0 ? MPI_UNDEFINED : color, group_.rank, &part),
          "MPI_Comm_split", group_.rank);
    if (part == MPI_COMM_NULL) return nullptr;
    return as_offspring(std::make_unique<MpiCommunicator>(part, group_.waiting));
  }

  std::unique_ptr<Communicator> duplicate() override {
    const WaitState::Scope moving = group_.arrive("duplicate");
    MPI_Comm twin = MPI_COMM_NULL;
    check(MPI_Comm_dup(group_.comm, &twin), "MPI_Comm_dup", group_.rank);
    return as_offspring(std::make_unique<MpiCommunicator>(twin, std::make_shared<WaitState>()));
  }

 private:
  struct PendingSend {
    std::unique_ptr<char[]> bytes;
    std::vector<MPI_Request> requests;
    int destination = 0;
  };

  void all_reduce(Span<double> data, MPI_Op op) {
    const WaitState::Scope moving = group_.arrive("all_reduce");
    std::byte* bytes = as_writable_bytes(data).data();
    for_chunks(data.size_bytes(), [&](int64_t begin, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, bytes + begin, count / int{sizeof(double)}, MPI_DOUBLE, op,
                          group_.comm),
            "MPI_Allreduce", group_.rank);
    });
  }

  void check_peer(int peer, const char* operation) const {
    ORRERY_CHECK(peer >= 0 && peer < size(), "{}: rank {} of {}", operation, peer, size());
  }
  static void check_tag(int tag, const char* operation) {
    ORRERY_CHECK(tag >= 0 && tag <= 32767, "{}: tag {} is outside what every MPI allows", operation,
                 tag);
  }

  Message read_message(MPI_Message matched, const MPI_Status& status) {
    const WaitState::Scope moving(*group_.waiting, "receive");  // a long one comes in parts
    const int source = status.MPI_SOURCE, tag = status.MPI_TAG;
    int count = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count", group_.rank, source);
    if (count < int{sizeof(WireHeader)}) {
      fail(
          "rank {} got a message of {} bytes with tag {} from rank {}: too short to be one of ours",
          group_.rank, count, tag, source);
    }
    const auto first = std::make_unique_for_overwrite<char[]>(count);
    check(MPI_Mrecv(first.get(), count, MPI_BYTE, &matched, MPI_STATUS_IGNORE), "MPI_Mrecv", rank(),
          source);
    WireHeader header{};
    std::memcpy(&header, first.get(), sizeof header);
    const size_t done = count - sizeof header;
    // Every message but the last is full, so a wrong size is seen before memory is
    // taken for it.
    if (header.total_bytes < done || (header.total_bytes > done && count != kMaxCallBytes)) {
      fail(
          "rank {} got a damaged message with tag {} from rank {}: "
          "{} bytes came, its header says {}",
          group_.rank, tag, source, done, header.total_bytes);
    }
    Message message{source, tag, {}};
    message.bytes.resize(header.total_bytes);
    std::memcpy(message.bytes.data(), first.get() + sizeof header, done);
    char* rest = message.bytes.data() + done;
    for_chunks(message.bytes.size() - done, [&](int64_t begin, int chunk) {
      check(MPI_Recv(rest + begin, chunk, MPI_BYTE, source, tag, message_comm_, MPI_STATUS_IGNORE),
            "MPI_Recv", group_.rank, source);
    });
    return message;
  }

  /// Frees sends that are done; true when none is left. The caller holds
  /// message_mutex_.
  bool reap_sends() {
    for (auto it = pending_.begin(); it != pending_.end();) {
      int done = 0;
      check(MPI_Testall(mpi_count(it->requests.size()), it->requests.data(), &done,
                        MPI_STATUSES_IGNORE),
            "sending a message", group_.rank, it->destination);
      it = done != 0 ? pending_.erase(it) : std::next(it);
    }
    return pending_.empty();
  }

  std::unique_ptr<DataPlane> make_data_plane(Device /*device*/) override {
    return mpi::make_data_plane(group_);
  }

  RankGroup group_;
  // Messages have a communicator of their own, so that receiving any tag never takes a
  // collective's data.
  MPI_Comm message_comm_ = MPI_COMM_NULL;
  std::mutex message_mutex_;  // parts of one message must stay together
  std::deque<PendingSend> pending_;
};

}  // namespace

std::unique_ptr<Communicator> make_communicator(MPI_Comm comm) {
  return std::make_unique<MpiCommunicator>(comm, std::make_shared<WaitState>());
}

}  // namespace orrery::comm::mpi
