// Files: whole reads, atomic durable writes, read-only mappings. Errors name the path
// and the reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace orrery {

/// The system refused a request (a disk's error, a file system that is gone for a
/// moment), which may not happen again. What is wrong with a file's contents is a plain
/// Error. Thrown by everything here that reads a file.
class SystemError : public Error {
 public:
  using Error::Error;
};

/// Throws a SystemError with a formatted message.
template <class... Args>
[[noreturn]] void fail_system(fmt::format_string<Args...> format, Args&&... args) {
  throw SystemError(fmt::format(format, std::forward<Args>(args)...));
}

/// The whole file. Throws SystemError naming the path when it cannot be read.
std::string read_file(const std::filesystem::path& path);

enum class Durability {
  kDurable,  ///< fsync of the file, then of its folder: the contents outlive a power cut
  kVisible   ///< only for readers on a running system; costs no disk writes
};

/// Writes path.tmp and renames it over `path`: readers see the old bytes or the new
/// ones, never a part. A full disk throws and leaves the old file.
void write_file_atomic(const std::filesystem::path& path, std::string_view contents,
                       Durability durability = Durability::kDurable);

/// fsync of a file or folder by path.
void sync_path(const std::filesystem::path& path);

/// A read-only private mapping of a whole file. Move-only; an empty file maps to an
/// empty span. SystemError when it cannot be mapped.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

/// Holds an exclusive lock on a file (which is made when absent) until destruction or
/// until the process ends, however it ends. Error when another process still holds the
/// lock after `patience`. On file systems without locks it holds nothing.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path, std::chrono::milliseconds patience);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace orrery
