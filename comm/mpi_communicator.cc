// Communicator over MPI, and CommWorld. The only file that includes mpi.h.
#define OMPI_SKIP_MPICXX 1  // the C interface only
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "comm/communicator.h"
#include "core/error.h"
#include "core/flight_recorder.h"

namespace orrery {
namespace {

using Clock = std::chrono::steady_clock;

/// Bytes of one MPI call. MPI's counts are 32-bit, so larger data goes in pieces; and pieces keep a library's
/// temporary buffers small.
constexpr size_t kChunkBytes = size_t{64} << 20;

/// A peer that dies often reaches us first as a failed call. The launcher is then about to end this rank too;
/// waiting a moment lets the rank that failed be the only one that speaks.
constexpr auto kGraceForTheFirstError = std::chrono::milliseconds(1500);

constexpr int kNoPeer = -1;

/// An error that every rank meets (a bad config) is printed by the lowest rank, which then ends the others.
constexpr auto kAbortStagger = std::chrono::milliseconds(150);

constexpr unsigned kAbortSeconds = 15;

void check(int code, const char* operation, int rank, int peer = kNoPeer) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  const std::string reason =
      length > 0 ? std::string(text, static_cast<size_t>(length)) : fmt::format("code {}", code);
  std::this_thread::sleep_for(kGraceForTheFirstError);
  if (peer == kNoPeer)
    fail("{} failed on rank {}: {}; see the other ranks' messages above", operation, rank, reason);
  fail("{} failed on rank {} with rank {}: {}; see whether rank {} still runs", operation, rank, peer, reason,
       peer);
}

/// Pauses of a polling loop: yields for as long as a peer in step would take, then sleeps that grow to a
/// millisecond, so that a rank that waits leaves its core to those that work.
class Backoff {
 public:
  void pause() {
    if (!sleeping_) {
      sched_yield();
      sleeping_ = Clock::now() - begin_ > std::chrono::microseconds(200);
      return;
    }
    std::this_thread::sleep_for(sleep_);
    sleep_ = std::min(sleep_ * 5 / 4, std::chrono::nanoseconds(std::chrono::milliseconds(1)));
  }

 private:
  Clock::time_point begin_ = Clock::now();
  bool sleeping_ = false;
  std::chrono::nanoseconds sleep_ = std::chrono::microseconds(10);
};

/// Operation that a rank waits in, and since when: written by the thread that waits, read by a watchdog's.
/// Shared by a communicator and those split from it, for a rank waits in one of them at a time.
class WaitState {
 public:
  class Scope {
   public:
    Scope(WaitState& state, const char* operation) : state_(state) {
      state_.since_ = Clock::now().time_since_epoch().count();
      state_.operation_ = operation;
    }
    ~Scope() { state_.operation_ = nullptr; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WaitState& state_;
  };
  Communicator::Waiting get() const {
    const char* operation = operation_;
    if (operation == nullptr) return {};
    const Clock::duration waited = Clock::now().time_since_epoch() - Clock::duration(since_.load());
    return {operation, std::chrono::duration<double>(waited).count()};
  }

 private:
  std::atomic<const char*> operation_ = nullptr;
  std::atomic<Clock::rep> since_ = 0;
};

/// A message on the wire: this header, then the bytes; the parts after the first kChunkBytes follow as
/// messages of the same tag.
struct WireHeader {
  uint64_t total_bytes;
};

struct Transfer {
  int peer;
  std::byte* data;
  size_t bytes;
};

class MpiCommunicator final : public Communicator {
 public:
  /// Collective over `comm`, which it then owns.
  MpiCommunicator(MPI_Comm comm, std::shared_ptr<WaitState> waiting)
      : comm_(comm), waiting_(std::move(waiting)) {
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0);
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", 0);
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", rank_);
    check(MPI_Comm_dup(comm_, &message_comm_), "MPI_Comm_dup", rank_);
    check(MPI_Comm_set_errhandler(message_comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", rank_);
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
      check(MPI_Comm_free(&message_comm_), "MPI_Comm_free", rank_);
      check(MPI_Comm_free(&comm_), "MPI_Comm_free", rank_);
    } catch (const std::exception& e) {
      spdlog::warn("closing a communicator: {}", e.what());
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Waiting waiting() const override { return waiting_->get(); }

  void barrier() override { arrive("barrier"); }

  void broadcast(std::span<std::byte> data, int root) override {
    ORRERY_CHECK(root >= 0 && root < size_, "broadcast: rank {} of {}", root, size_);
    arrive("broadcast");
    for_chunks(data, [&](std::byte* part, int count) {
      check(MPI_Bcast(part, count, MPI_BYTE, root, comm_), "MPI_Bcast", rank_, root);
    });
  }

  void all_reduce_sum(std::span<float> data) override { all_reduce(data, MPI_FLOAT, MPI_SUM); }
  void all_reduce_sum(std::span<double> data) override { all_reduce(data, MPI_DOUBLE, MPI_SUM); }
  void all_reduce_max(std::span<double> data) override { all_reduce(data, MPI_DOUBLE, MPI_MAX); }

  void all_gather(std::span<float> all, std::span<const int64_t> offsets,
                  std::span<const float> mine) override {
    check_offsets(offsets, all.size(), "all_gather");
    const std::span<float> own = slice(all, offsets, rank_);
    ORRERY_CHECK(own.size() == mine.size(), "all_gather: rank {} gives {} elements for a slice of {}", rank_,
                 mine.size(), own.size());
    std::vector<Transfer> sends, receives;
    // MPI's send buffers are const; Transfer serves both directions.
    auto* bytes = reinterpret_cast<std::byte*>(const_cast<float*>(mine.data()));
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_, from = (rank_ - step + size_) % size_;
      sends.push_back({to, bytes, mine.size_bytes()});
      receives.push_back(transfer(from, slice(all, offsets, from)));
    }
    exchange(sends, receives, "all_gather");
    if (own.data() != mine.data()) std::copy(mine.begin(), mine.end(), own.begin());
  }

  void all_to_all_pieces(std::span<const float> send, std::span<const int64_t> offsets, int64_t piece,
                         std::span<float> scratch, const PieceSink& sink) override {
    check_offsets(offsets, send.size(), "all_to_all");
    ORRERY_CHECK(piece > 0 && static_cast<size_t>(2 * size_ * piece) <= scratch.size(),
                 "all_to_all: {} elements of scratch for pieces of {}", scratch.size(), piece);
    arrive("all_to_all");
    const std::span<float> out(const_cast<float*>(send.data()), send.size());
    int64_t longest = 0;
    for (int p = 0; p < size_; ++p)
      longest = std::max(longest, static_cast<int64_t>(slice(out, offsets, p).size()));
    const int64_t rounds = (longest + piece - 1) / piece;
    // The elements of round i within a slice; empty after its end.
    const auto part = [piece](std::span<float> whole, int64_t round) {
      const auto begin = std::min(static_cast<size_t>(round * piece), whole.size());
      return whole.subspan(begin, std::min(static_cast<size_t>(piece), whole.size() - begin));
    };
    const std::span<float> own = slice(out, offsets, rank_);
    const auto place = [&](int64_t round, int from) {
      return scratch.data() + ((round % 2) * size_ + from) * piece;
    };
    PostedTransfers sends, receives[2];  // receives of even and odd rounds
    const auto start = [&](int64_t round) {
      for (int step = 1; step < size_; ++step) {
        const int from = (rank_ - step + size_) % size_;
        const std::span<float> into(place(round, from), part(own, round).size());
        post_receive(receives[round % 2], transfer(from, into), "all_to_all");
      }
    };
    if (rounds > 0) start(0);
    // All sends at once: a peer that can fetch a piece by itself need not wait until this rank runs again.
    for (int64_t round = 0; round < rounds; ++round) {
      for (int step = 1; step < size_; ++step) {
        const int to = (rank_ + step) % size_;
        post_send(sends, transfer(to, part(slice(out, offsets, to), round)), "all_to_all");
      }
    }
    std::vector<const float*> parts(static_cast<size_t>(size_));
    for (int64_t round = 0; round < rounds; ++round) {
      if (round + 1 < rounds) start(round + 1);
      finish(receives[round % 2], "all_to_all");
      const std::span<float> mine = part(own, round);
      if (mine.empty()) continue;
      for (int p = 0; p < size_; ++p)
        parts[static_cast<size_t>(p)] = p == rank_ ? mine.data() : place(round, p);
      sink(round * piece, static_cast<int64_t>(mine.size()), parts);
    }
    finish(sends, "all_to_all");
  }

  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    arrive("all_gather_bytes");
    std::vector<uint64_t> sizes(static_cast<size_t>(size_));
    const uint64_t own_size = mine.size();
    check(MPI_Allgather(&own_size, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, comm_), "MPI_Allgather",
          rank_);
    std::vector<std::string> all(static_cast<size_t>(size_));
    std::vector<Transfer> sends, receives;
    auto* bytes = reinterpret_cast<std::byte*>(const_cast<char*>(mine.data()));
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_, from = (rank_ - step + size_) % size_;
      std::string& text = all[static_cast<size_t>(from)];
      text.resize(sizes[static_cast<size_t>(from)]);
      sends.push_back({to, bytes, mine.size()});
      receives.push_back({from, reinterpret_cast<std::byte*>(text.data()), text.size()});
    }
    exchange(sends, receives, "all_gather_bytes");
    all[static_cast<size_t>(rank_)] = mine;
    return all;
  }

  void send(int destination, int tag, const std::string& bytes) override {
    check_peer(destination, "send");
    check_tag(tag, "send");
    const std::lock_guard lock(message_mutex_);
    PendingSend pending;
    const size_t wire_bytes = sizeof(WireHeader) + bytes.size();
    pending.bytes = std::make_unique_for_overwrite<char[]>(wire_bytes);
    const WireHeader header{bytes.size()};
    std::memcpy(pending.bytes.get(), &header, sizeof header);
    std::memcpy(pending.bytes.get() + sizeof header, bytes.data(), bytes.size());
    for (size_t done = 0; done < wire_bytes;) {
      const size_t part = std::min(wire_bytes - done, kChunkBytes);
      MPI_Request request = MPI_REQUEST_NULL;
      check(MPI_Isend(pending.bytes.get() + done, static_cast<int>(part), MPI_BYTE, destination, tag,
                      message_comm_, &request),
            "MPI_Isend", rank_, destination);
      pending.requests.push_back(request);
      done += part;
    }
    pending.destination = destination;
    pending_.push_back(std::move(pending));
    // MPI moves data only inside its calls. A large message needs a few of them; a receiver that is already
    // waiting takes it within this time, and a busy one finds the rest moved by our next call.
    const auto deadline = Clock::now() + std::chrono::milliseconds(2);
    for (Backoff backoff; !reap_sends() && Clock::now() < deadline; backoff.pause()) {
    }
  }

  Message receive(int source, int tag) override {
    if (auto message = try_receive(source, tag)) return std::move(*message);
    const WaitState::Scope scope(*waiting_, "receive");
    for (Backoff backoff;; backoff.pause()) {
      if (auto message = try_receive(source, tag)) return std::move(*message);
    }
  }

  std::optional<Message> try_receive(int source, int tag) override {
    if (source != kAnySource) check_peer(source, "receive");
    if (tag != kAnyTag) check_tag(tag, "receive");
    const std::lock_guard lock(message_mutex_);
    reap_sends();
    int found = 0;
    MPI_Message matched = MPI_MESSAGE_NULL;
    MPI_Status status;
    check(MPI_Improbe(source == kAnySource ? MPI_ANY_SOURCE : source, tag == kAnyTag ? MPI_ANY_TAG : tag,
                      message_comm_, &found, &matched, &status),
          "MPI_Improbe", rank_, source == kAnySource ? kNoPeer : source);
    if (found == 0) return std::nullopt;
    return read_message(matched, status);
  }

  std::unique_ptr<Communicator> split(int color) override {
    arrive("split");
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, rank_, &part), "MPI_Comm_split", rank_);
    if (part == MPI_COMM_NULL) return nullptr;
    return std::make_unique<MpiCommunicator>(part, waiting_);
  }

  std::unique_ptr<Communicator> duplicate() override {
    arrive("duplicate");
    MPI_Comm twin = MPI_COMM_NULL;
    check(MPI_Comm_dup(comm_, &twin), "MPI_Comm_dup", rank_);
    return std::make_unique<MpiCommunicator>(twin, std::make_shared<WaitState>());
  }

 private:
  struct PendingSend {
    std::unique_ptr<char[]> bytes;
    std::vector<MPI_Request> requests;
    int destination = 0;
  };

  /// Waits for every rank, leaving the core to others. MPI's blocking calls spin, and nearly all of their
  /// waiting is for ranks that come late; after this they only move data.
  void arrive(const char* operation) {
    const WaitState::Scope scope(*waiting_, operation);
    record_event("{} of {} ranks", operation, size_);
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ibarrier(comm_, &request), operation, rank_);
    for (Backoff backoff;; backoff.pause()) {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), operation, rank_);
      if (done != 0) return;
    }
  }

  template <class Body>
  static void for_chunks(std::span<std::byte> data, Body&& body) {
    for (size_t done = 0; done < data.size();) {
      const size_t part = std::min(data.size() - done, kChunkBytes);
      body(data.data() + done, static_cast<int>(part));
      done += part;
    }
  }

  template <class T>
  void all_reduce(std::span<T> data, MPI_Datatype type, MPI_Op op) {
    arrive("all_reduce");
    for_chunks(std::as_writable_bytes(data), [&](std::byte* part, int bytes) {
      check(MPI_Allreduce(MPI_IN_PLACE, part, bytes / static_cast<int>(sizeof(T)), type, op, comm_),
            "MPI_Allreduce", rank_);
    });
  }

  void check_offsets(std::span<const int64_t> offsets, size_t elements, const char* operation) const {
    ORRERY_CHECK(offsets.size() == static_cast<size_t>(size_) + 1, "{}: {} offsets for {} ranks", operation,
                 offsets.size(), size_);
    ORRERY_CHECK(offsets.front() >= 0 && std::is_sorted(offsets.begin(), offsets.end()) &&
                     static_cast<size_t>(offsets.back()) <= elements,
                 "{}: offsets leave the buffer of {} elements", operation, elements);
  }
  void check_peer(int peer, const char* operation) const {
    ORRERY_CHECK(peer >= 0 && peer < size_, "{}: rank {} of {}", operation, peer, size_);
  }
  static void check_tag(int tag, const char* operation) {
    ORRERY_CHECK(tag >= 0 && tag <= 32767, "{}: tag {} is outside what every MPI allows", operation, tag);
  }

  static std::span<float> slice(std::span<float> all, std::span<const int64_t> offsets, int rank) {
    const auto begin = static_cast<size_t>(offsets[static_cast<size_t>(rank)]);
    return all.subspan(begin, static_cast<size_t>(offsets[static_cast<size_t>(rank) + 1]) - begin);
  }
  static Transfer transfer(int peer, std::span<float> data) {
    return {peer, reinterpret_cast<std::byte*>(data.data()), data.size_bytes()};
  }

  struct PostedTransfers {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
  };

  template <class Call>
  void post(PostedTransfers& posted, const Transfer& t, const char* operation, Call&& call) {
    for_chunks({t.data, t.bytes}, [&](std::byte* part, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      check(call(part, count, t.peer, &request), operation, rank_, t.peer);
      posted.requests.push_back(request);
      posted.peers.push_back(t.peer);
    });
  }
  void post_receive(PostedTransfers& posted, const Transfer& transfer, const char* operation) {
    post(posted, transfer, operation, [&](std::byte* part, int count, int peer, MPI_Request* request) {
      return MPI_Irecv(part, count, MPI_BYTE, peer, kExchangeTag, comm_, request);
    });
  }
  void post_send(PostedTransfers& posted, const Transfer& transfer, const char* operation) {
    post(posted, transfer, operation, [&](std::byte* part, int count, int peer, MPI_Request* request) {
      return MPI_Isend(part, count, MPI_BYTE, peer, kExchangeTag, comm_, request);
    });
  }

  /// Waits for what was posted, and forgets it.
  void finish(PostedTransfers& posted, const char* operation) {
    std::vector<MPI_Status> statuses(posted.requests.size());
    const int code =
        MPI_Waitall(static_cast<int>(posted.requests.size()), posted.requests.data(), statuses.data());
    if (code == MPI_ERR_IN_STATUS) {
      for (size_t i = 0; i < statuses.size(); ++i) {
        if (statuses[i].MPI_ERROR != MPI_ERR_PENDING)
          check(statuses[i].MPI_ERROR, operation, rank_, posted.peers[i]);
      }
    }
    check(code, operation, rank_);
    posted.requests.clear();
    posted.peers.clear();
  }

  /// Collective. Runs all transfers, in chunks.
  void exchange(std::span<const Transfer> sends, std::span<const Transfer> receives, const char* operation) {
    arrive(operation);
    PostedTransfers posted;
    for (const Transfer& t : receives) post_receive(posted, t, operation);
    for (const Transfer& t : sends) post_send(posted, t, operation);
    finish(posted, operation);
  }

  Message read_message(MPI_Message matched, const MPI_Status& status) {
    const int source = status.MPI_SOURCE, tag = status.MPI_TAG;
    int count = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count", rank_, source);
    if (count < static_cast<int>(sizeof(WireHeader))) {
      fail("rank {} got a message of {} bytes with tag {} from rank {}: too short to be one of ours", rank_,
           count, tag, source);
    }
    const auto first = std::make_unique_for_overwrite<char[]>(static_cast<size_t>(count));
    check(MPI_Mrecv(first.get(), count, MPI_BYTE, &matched, MPI_STATUS_IGNORE), "MPI_Mrecv", rank_, source);
    WireHeader header{};
    std::memcpy(&header, first.get(), sizeof header);
    size_t done = static_cast<size_t>(count) - sizeof header;
    // All parts but the last are full, so a size that lies is seen before memory is taken for it.
    if (header.total_bytes < done ||
        (header.total_bytes > done && static_cast<size_t>(count) != kChunkBytes)) {
      fail("rank {} got a damaged message with tag {} from rank {}: {} bytes came, its header says {}", rank_,
           tag, source, done, header.total_bytes);
    }
    Message message{source, tag, {}};
    message.bytes.resize(header.total_bytes);
    std::memcpy(message.bytes.data(), first.get() + sizeof header, done);
    while (done < message.bytes.size()) {
      const size_t part = std::min(message.bytes.size() - done, kChunkBytes);
      check(MPI_Recv(message.bytes.data() + done, static_cast<int>(part), MPI_BYTE, source, tag,
                     message_comm_, MPI_STATUS_IGNORE),
            "MPI_Recv", rank_, source);
      done += part;
    }
    return message;
  }

  /// Frees sends that are done; true when none is left. message_mutex_ is held.
  bool reap_sends() {
    for (auto it = pending_.begin(); it != pending_.end();) {
      int done = 0;
      check(
          MPI_Testall(static_cast<int>(it->requests.size()), it->requests.data(), &done, MPI_STATUSES_IGNORE),
          "sending a message", rank_, it->destination);
      it = done != 0 ? pending_.erase(it) : std::next(it);
    }
    return pending_.empty();
  }

  static constexpr int kExchangeTag = 0;

  MPI_Comm comm_;
  MPI_Comm message_comm_ = MPI_COMM_NULL;  // so that receiving any tag never takes a collective's data
  int rank_ = 0, size_ = 1;
  std::shared_ptr<WaitState> waiting_;
  std::mutex message_mutex_;  // parts of one message must stay together
  std::deque<PendingSend> pending_;
};

/// Whether a launcher that speaks MPI's start-up protocol started this process.
bool started_by_mpi() {
  // Open MPI's mpirun; MPICH's and Intel's, srun --mpi=pmi2; srun --mpi=pmix.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  // Without a start-up protocol every task would take itself for the whole job and they would share one run
  // folder.
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (tasks != nullptr && std::atoi(tasks) > 1) {
    fail_usage(
        "srun started {} tasks without MPI's start-up: use srun --mpi=pmix, or mpirun inside the allocation",
        tasks);
  }
  return false;
}

}  // namespace

CommWorld::CommWorld() {
  if (!started_by_mpi()) {
    world_ = make_local_communicator();
    return;
  }
  // Read by Open MPI when it starts; what the user set wins. Ranks often share cores, so waiting must yield;
  // reward workers are forked before they touch anything of MPI's, so its warning about fork is noise.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  setenv("OMPI_MCA_mpi_warn_on_fork", "0", 0);
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) {
    fail(
        "MPI could not start; run the same command with mpirun -n 1 hostname to see whether MPI works on "
        "this host");
  }
  mpi_ = true;
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0);
  check(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0);
  int rank = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank", 0);
  if (provided < MPI_THREAD_MULTIPLE) {
    fail(
        "this MPI gives thread level {} but MPI_THREAD_MULTIPLE ({}) is needed: use an MPI built with thread "
        "support",
        provided, MPI_THREAD_MULTIPLE);
  }
  MPI_Comm ours = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &ours), "MPI_Comm_dup", rank);
  world_ = std::make_unique<MpiCommunicator>(ours, std::make_shared<WaitState>());
  MPI_Comm host = MPI_COMM_NULL;
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type", rank);
  check(MPI_Comm_size(host, &local_ranks_), "MPI_Comm_size", rank);
  check(MPI_Comm_free(&host), "MPI_Comm_free", rank);
}

CommWorld::~CommWorld() {
  if (mpi_ && std::uncaught_exceptions() > 0) {
    // MPI_Finalize would wait for ranks that wait for us.
    std::fputs("orrery: error: a rank leaves the job because of an error; ending all ranks\n", stderr);
    abort(kExitFailure);
  }
  world_.reset();
  if (mpi_) MPI_Finalize();
}

void CommWorld::abort(int exit_code, const std::string& line) {
  // The other ranks' end reaches this one as SIGTERM: it must not be caught and answered with a second
  // message.
  std::signal(SIGTERM, SIG_DFL);
  std::this_thread::sleep_for(kAbortStagger * std::min(world_->rank(), 8));
  std::fprintf(stderr, "%s\n", line.c_str());
  abort(exit_code);
}

void CommWorld::abort(int exit_code) {
  if (mpi_) alarm(kAbortSeconds);  // ends this rank, and so the job, should output or MPI itself be stuck
  spdlog::default_logger()->flush();
  std::fflush(nullptr);
  if (mpi_) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace orrery
