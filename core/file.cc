#include "core/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/fault.h"

namespace orrery {
namespace {

/// A file descriptor closed on scope exit.
struct Fd {
  int fd;
  explicit Fd(int f) : fd(f) {}
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
};

size_t regular_file_size(int fd, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    fail_system("cannot stat {}: {}", path.string(), std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail("{} is not a regular file", path.string());
  return info.st_size;
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  // O_NONBLOCK, because opening a FIFO would wait for a writer. It is refused below.
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) fail_system("cannot open {}: {}", path.string(), std::strerror(errno));
  std::string contents(regular_file_size(file.fd, path), '\0');
  size_t done = 0;
  while (done < contents.size()) {
    const ssize_t n = ::read(file.fd, contents.data() + done, contents.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system("cannot read {}: {}", path.string(), std::strerror(errno));
    if (n == 0) fail_system("{} became shorter while it was read", path.string());
    done += n;
  }
  return contents;
}

void sync_path(const std::filesystem::path& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0 || ::fsync(file.fd) != 0)
    fail_system("cannot sync {}: {}", path.string(), std::strerror(errno));
}

void write_file_atomic(const std::filesystem::path& path, std::string_view contents,
                       Durability durability) {
  const bool durable = durability == Durability::kDurable;
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  // Fault points count their visits, so only writes that a run makes at known moments,
  // and keeps, may be visits.
  const FaultAction fault = durable ? fault_point(FaultPoint::kFileWrite) : FaultAction::kNone;
  {
    const Fd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.fd < 0) fail_system("cannot create {}: {}", temporary.string(), std::strerror(errno));
    const size_t size = fault == FaultAction::kTorn ? contents.size() / 2 : contents.size();
    size_t done = 0;
    while (done < size) {
      if (fault == FaultAction::kNoSpace) errno = ENOSPC;
      const ssize_t n = fault == FaultAction::kNoSpace
                            ? -1
                            : ::write(file.fd, contents.data() + done, size - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const int reason = errno;
        ::unlink(temporary.c_str());
        fail_system("cannot write {}: {}", path.string(), std::strerror(reason));
      }
      done += n;
    }
    if (fault == FaultAction::kTorn) fault_crash();
    if (durable && ::fsync(file.fd) != 0)
      fail_system("cannot sync {}: {}", temporary.string(), std::strerror(errno));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    fail_system("cannot rename {} to {}: {}", temporary.string(), path.string(),
                std::strerror(errno));
  }
  if (!durable) return;
  const std::filesystem::path folder = path.parent_path();
  sync_path(folder.empty() ? std::filesystem::path(".") : folder);
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) fail_system("cannot open {}: {}", path.string(), std::strerror(errno));
  size_ = regular_file_size(file.fd, path);
  if (size_ == 0) return;
  data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    fail_system("cannot map {}: {}", path.string(), std::strerror(errno));
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileLock::FileLock(const std::filesystem::path& path, std::chrono::milliseconds patience) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_system("cannot create {}: {}", path.string(), std::strerror(errno));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      ::close(fd_);
      fail_system("another run is using {}; wait for it, or choose another folder",
                  path.parent_path().string());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace orrery
