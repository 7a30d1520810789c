#include "comm/mpi_support.h"

#include <climits>
#include <string>

#include "core/error.h"
#include "core/fault.h"
#include "core/flight_recorder.h"

namespace orrery::comm::mpi {
namespace {

/// Often the first sign of a peer's death is a call that fails here. The launcher is
/// then about to end this rank too. Waiting a moment leaves the message to the rank
/// that failed.
constexpr auto kGraceForTheFirstError = std::chrono::milliseconds(1500);

}  // namespace

int mpi_count(int64_t count) {
  ORRERY_CHECK(count >= 0 && count <= INT_MAX, "a count of {} in one MPI call", count);
  return static_cast<int>(count);
}

void check(int code, const char* operation, int rank, int peer) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  const std::string reason =
      length > 0 ? std::string(text, text + length) : fmt::format("code {}", code);
  std::this_thread::sleep_for(kGraceForTheFirstError);
  if (peer == kNoPeer)
    fail("{} failed on rank {}: {}; see the other ranks' messages above", operation, rank, reason);
  fail("{} failed on rank {} with rank {}: {}; see whether rank {} still runs", operation, rank,
       peer, reason, peer);
}

WaitState::Scope RankGroup::arrive(const char* operation) const {
  await_all(operation);
  fault_point(FaultPoint::kCollectiveMove);
  return WaitState::Scope(*waiting, operation);
}

void RankGroup::await_all(const char* operation) const {
  record_event("{} of {} ranks", operation, size);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Ibarrier(comm, &request), operation, rank);
  wait_until(*waiting, operation, [&] {
    int done = 0;
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), operation, rank);
    return done != 0;
  });
}

void Transfers::add(MPI_Request request, int peer) {
  requests_.push_back(request);
  peers_.push_back(peer);
}

void Transfers::receive(int peer, Span<std::byte> into, const char* operation) {
  for_chunks(into.size(), [&](int64_t begin, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Irecv(into.data() + begin, count, MPI_BYTE, peer, kTag, comm_, &request), operation,
          rank_, peer);
    add(request, peer);
  });
}

void Transfers::send(int peer, Span<const std::byte> data, const char* operation) {
  for_chunks(data.size(), [&](int64_t begin, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(data.data() + begin, count, MPI_BYTE, peer, kTag, comm_, &request), operation,
          rank_, peer);
    add(request, peer);
  });
}

void Transfers::check_all(int code, const std::vector<MPI_Status>& statuses,
                          const char* operation) const {
  if (code == MPI_ERR_IN_STATUS) {
    for (size_t i = 0; i < statuses.size(); ++i) {
      if (statuses[i].MPI_ERROR != MPI_ERR_PENDING)
        check(statuses[i].MPI_ERROR, operation, rank_, peers_[i]);
    }
  }
  check(code, operation, rank_);
}

bool Transfers::test(const char* operation) {
  if (requests_.empty()) return true;
  std::vector<MPI_Status> statuses(requests_.size());
  int done = 0;
  const int code =
      MPI_Testall(mpi_count(requests_.size()), requests_.data(), &done, statuses.data());
  check_all(code, statuses, operation);
  if (done == 0) return false;
  requests_.clear();
  peers_.clear();
  return true;
}

void Transfers::finish(const char* operation) {
  std::vector<MPI_Status> statuses(requests_.size());
  check_all(MPI_Waitall(mpi_count(requests_.size()), requests_.data(), statuses.data()), statuses,
            operation);
  requests_.clear();
  peers_.clear();
}

}  // namespace orrery::comm::mpi
