#include "storage/hdf5_lock.h"

namespace orrery::storage {
namespace {

std::recursive_mutex& hdf5_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

}  // namespace

Hdf5Lock::Hdf5Lock() : lock_(hdf5_mutex()) {}

}  // namespace orrery::storage
