// Keeps all but one thread out of the HDF5 library. A build of the library need not be
// thread-safe, and one thread writes a checkpoint while the main thread writes
// rollouts. Code that calls HDF5 holds an Hdf5Lock while it has a file open. Our disk
// writes happen outside the lock, since the files are laid out in memory.
#pragma once

#include <mutex>

namespace orrery::storage {

/// Holds the process's HDF5 lock. A thread may hold it more than once, for example
/// while it reads one file and writes another.
class Hdf5Lock {
 public:
  Hdf5Lock();

 private:
  std::unique_lock<std::recursive_mutex> lock_;
};

}  // namespace orrery::storage
