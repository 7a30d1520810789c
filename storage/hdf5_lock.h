// One thread at a time in the HDF5 library: a build of it need not be thread-safe, and
// a checkpoint is written by a thread of its own beside the main one that writes
// rollouts. Whoever calls HDF5 holds an Hdf5Lock while it has a file open; disk writes
// of ours happen outside (the files are laid out in memory).
#pragma once

#include <mutex>

namespace orrery::storage {

/// Holds the process's HDF5 lock. The same thread may hold it more than once (a file
/// open for reading while another is written).
class Hdf5Lock {
 public:
  Hdf5Lock();

 private:
  std::unique_lock<std::recursive_mutex> lock_;
};

}  // namespace orrery::storage
