// A file that is written piece by piece and published at the end: the bytes go to
// path.tmp, then commit() makes them durable and renames the file. Until then readers
// see the old file, or none. Meant for files too large for write_file_atomic's buffer.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace orrery {

/// Not thread-safe. Every failure (a full disk too) throws an Error naming the path;
/// without commit() the destructor removes the temporary.
class DurableFile {
 public:
  explicit DurableFile(const std::filesystem::path& path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void append(std::span<const std::byte> bytes);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

/// Writes all of `bytes` at the descriptor's position, retrying short writes. `path` is
/// for the error.
void write_fully(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path);

}  // namespace orrery
