#include "core/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace orrery {

void write_fully(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  constexpr size_t kMaxWrite = size_t{1} << 28;  // Linux writes at most 2 GiB per call
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system("cannot write {}: {}", path.string(), std::strerror(errno));
    bytes = bytes.subspan(n);
  }
}

DurableFile::DurableFile(const std::filesystem::path& path) : path_(path), temporary_(path) {
  temporary_ += ".tmp";
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_system("cannot create {}: {}", temporary_.string(), std::strerror(errno));
}

DurableFile::~DurableFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void DurableFile::append(std::span<const std::byte> bytes) { write_fully(fd_, bytes, path_); }

void DurableFile::commit() {
  ORRERY_CHECK(fd_ >= 0, "{} was committed before", path_.string());
  if (::fsync(fd_) != 0)
    fail_system("cannot sync {}: {}", temporary_.string(), std::strerror(errno));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail_system("cannot rename {} to {}: {}", temporary_.string(), path_.string(),
                std::strerror(errno));
  }
  ::close(fd_);
  fd_ = -1;
  const std::filesystem::path folder = path_.parent_path();
  sync_path(folder.empty() ? std::filesystem::path(".") : folder);
}

}  // namespace orrery
