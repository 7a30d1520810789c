// The small part of HDF5 that rollout files need: one-dimensional (and one
// two-dimensional) arrays of numbers, strings and attributes, all in the root group.
// Errors name the file and the object. A writer or reader belongs to one thread and
// holds the process's HDF5 lock (storage/hdf5_lock.h) as long as it lives.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "storage/hdf5_lock.h"

namespace orrery::storage {

/// Builds a file in memory; publish() then writes it whole, atomically. Equal contents
/// give equal bytes.
class Hdf5Writer {
 public:
  explicit Hdf5Writer(std::filesystem::path path);
  ~Hdf5Writer();
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  /// T is int8_t, uint8_t, int32_t, uint32_t, int64_t, uint64_t, float or double. An
  /// empty shape means one dimension.
  template <class T>
  void write(const char* name, const std::vector<T>& values, std::vector<int64_t> shape = {});
  void write(const char* name, const std::vector<std::string>& texts);

  /// Writes a scalar. T is uint32_t or uint64_t.
  template <class T>
  void attribute(const char* name, T value);
  /// Stores one text as a scalar, several as an array. The attribute belongs to the
  /// file when `dataset` is empty.
  void attribute(const char* name, const std::vector<std::string>& texts,
                 const std::string& dataset = "");

  void publish();

 private:
  Hdf5Lock lock_;
  std::filesystem::path path_;
  int64_t file_ = -1;
};

/// A file opened for reading. Whatever the file claims, nothing larger than the file
/// itself is allocated for the numbers or the texts of a dataset.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::filesystem::path& path);
  ~Hdf5Reader();
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  const std::string& path() const { return path_; }

  /// Reads all elements, whatever the shape. Error when the type in the file differs in
  /// class, size or sign.
  template <class T>
  void read(const char* name, std::vector<T>& values) const;
  void read(const char* name, std::vector<std::string>& texts) const;

  bool has_dataset(const char* name) const;
  bool has_attribute(const char* name) const;
  uint64_t integer_attribute(const char* name) const;
  std::vector<std::string> string_attribute(const char* name) const;

 private:
  Hdf5Lock lock_;
  std::string path_;
  uint64_t bytes_ = 0;
  int64_t file_ = -1;
};

}  // namespace orrery::storage
