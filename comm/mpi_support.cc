#include "comm/mpi_support.h"

#include <string>

#include "core/error.h"

namespace orrery::comm::mpi {
namespace {

/// A peer that dies often reaches us first as a failed call. The launcher is then about
/// to end this rank too; waiting a moment lets the rank that failed be the only one
/// that speaks.
constexpr auto kGraceForTheFirstError = std::chrono::milliseconds(1500);

template <class Bytes, class Body>
void for_chunks(Bytes data, Body&& body) {
  for (size_t done = 0; done < data.size();) {
    const size_t part = std::min(data.size() - done, kChunkBytes);
    body(data.data() + done, static_cast<int>(part));
    done += part;
  }
}

}  // namespace

void check(int code, const char* operation, int rank, int peer) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  const std::string reason =
      length > 0 ? std::string(text, static_cast<size_t>(length)) : fmt::format("code {}", code);
  std::this_thread::sleep_for(kGraceForTheFirstError);
  if (peer == kNoPeer)
    fail("{} failed on rank {}: {}; see the other ranks' messages above", operation, rank, reason);
  fail("{} failed on rank {} with rank {}: {}; see whether rank {} still runs", operation, rank,
       peer, reason, peer);
}

void Transfers::add(MPI_Request request, int peer) {
  requests_.push_back(request);
  peers_.push_back(peer);
}

void Transfers::receive(int peer, std::span<std::byte> into, const char* operation) {
  for_chunks(into, [&](std::byte* part, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Irecv(part, count, MPI_BYTE, peer, kTag, comm_, &request), operation, rank_, peer);
    add(request, peer);
  });
}

void Transfers::send(int peer, std::span<const std::byte> data, const char* operation) {
  for_chunks(data, [&](const std::byte* part, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(part, count, MPI_BYTE, peer, kTag, comm_, &request), operation, rank_, peer);
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
      MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses.data());
  check_all(code, statuses, operation);
  if (done == 0) return false;
  requests_.clear();
  peers_.clear();
  return true;
}

void Transfers::finish(const char* operation) {
  std::vector<MPI_Status> statuses(requests_.size());
  check_all(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses.data()),
            statuses, operation);
  requests_.clear();
  peers_.clear();
}

}  // namespace orrery::comm::mpi
