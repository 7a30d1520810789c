// The communicator's all-to-all beside other work, over MPI: point-to-point transfers
// in pieces, with a window of receives posted, which are moved on whenever poll() is
// called (MPI does little outside its calls; where the network card fetches data by
// itself, it does so meanwhile).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comm/mpi_support.h"

namespace orrery::comm::mpi {

class MpiAllToAll final : public Communicator::AllToAll {
 public:
  MpiAllToAll(MPI_Comm comm, int rank, int size, std::shared_ptr<WaitState> waiting,
              const Communicator::AllToAllBuffers& buffers);
  void add(std::span<const int64_t> offsets) override;
  std::optional<Communicator::Piece> poll() override;
  std::optional<Communicator::Piece> wait() override;

 private:
  /// A piece of what this rank owns, from every rank.
  struct Round {
    Extent extent;
    size_t slot = 0;  ///< of the scratch memory
    Transfers receives;
  };
  /// Posts receives for the next pieces while at most `most` are under way.
  void post(size_t most);
  /// Lends the oldest piece to the caller, if it is there.
  std::optional<Communicator::Piece> take();
  /// Takes a lent piece back.
  void release();
  float* place(size_t slot, int from) const {
    return buffers_.scratch.data() + (static_cast<int64_t>(slot) * size_ + from) * buffers_.piece;
  }

  MPI_Comm comm_;
  int rank_, size_;
  std::shared_ptr<WaitState> waiting_;
  Communicator::AllToAllBuffers buffers_;
  Transfers sends_;
  std::deque<Extent> expected_;  // not yet posted
  std::deque<Round> posted_;
  bool lent_ = false;                // the first of them, to the caller
  std::vector<const float*> parts_;  // of the lent piece
  // The last one used is the first one used again: the cache holds it.
  std::vector<size_t> free_slots_;
};

}  // namespace orrery::comm::mpi
