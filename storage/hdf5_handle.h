// Scopes of the HDF5 library: an identifier that is closed, and its own messages kept
// quiet. For the files that call HDF5 alone. Code that uses them holds an Hdf5Lock.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

#include "core/error.h"

namespace orrery::storage {

/// Owns an HDF5 identifier and closes it with its close function. Negative: none.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);

  /// `id` may say that HDF5 failed, so the caller looks.
  Hdf5Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  /// Throws Error, "HDF5 cannot <what>", when `id` says that HDF5 failed.
  Hdf5Handle(hid_t id, Close closer, const std::string& what) : Hdf5Handle(id, closer) {
    if (id_ < 0) fail("HDF5 cannot {}", what);
  }
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  operator hid_t() const { return id_; }

  /// Closes now and tells whether that worked (for a file: whether its bytes were
  /// written).
  bool close() { return close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  Close close_;
};

/// Keeps HDF5 from printing its error stack to stderr: our errors are one line each and
/// say what matters.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace orrery::storage
