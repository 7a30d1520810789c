// Writing a rank's file: its structure as HDF5 laid it out, then the numbers.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "core/durable_file.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/sha256.h"
#include "core/span.h"
#include "storage/checkpoint_file.h"
#include "storage/checkpoint_layout.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

/// An open file.
struct Descriptor {
  int fd = -1;
  explicit Descriptor(int f) : fd(f) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

/// Takes the space before the first byte is written, where the file system can do that,
/// so that a full disk shows at once.
void reserve(int fd, const fs::path& path, int64_t bytes) {
  rlimit limit{};
  const rlim_t needed = bytes;
  int reason = ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < needed ? EFBIG : 0;
  if (reason == 0 && ::fallocate(fd, 0, 0, bytes) != 0) reason = errno;
  if (reason == ENOSPC || reason == EDQUOT || reason == EFBIG) {
    fail("cannot write {}, {} bytes: {}", path.string(), bytes, std::strerror(reason));
  }
}

constexpr int64_t kWriteBlock = int64_t{8} << 20;

/// Writes and hashes a file from its start, in blocks and pieces that do not depend on
/// how small the tensors are.
class HashedWriter {
 public:
  HashedWriter(int fd, const fs::path& path, const PieceRunner& run_piece)
      : fd_(fd), path_(path), run_piece_(run_piece) {}
  /// Appends bytes, which must stay until finish().
  void append(Span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto part = bytes.first(std::min(kWriteBlock - block_bytes_, bytes.size()));
      block_.push_back(part);
      block_bytes_ += part.size();
      if (block_bytes_ == kWriteBlock) finish();
      bytes = bytes.subspan(part.size());
    }
  }
  /// Appends the image's bytes up to position `end` (zeros beyond the image).
  void append_structure(Span<const std::byte> image, int64_t end) {
    const int64_t at = at_ + block_bytes_;
    if (at == end) return;
    finish();
    std::vector<std::byte> buffer(end - at);
    if (at < image.size())
      std::memcpy(buffer.data(), image.data() + at, std::min(end, image.size()) - at);
    append(buffer);
    finish();
  }
  /// Writes what has been appended.
  void finish() {
    if (block_bytes_ == 0) return;
    write_block();
    at_ += block_bytes_;
    block_.clear();
    block_bytes_ = 0;
    flush();
  }
  std::string hex() { return sha_.hex(); }

 private:
  void write_block() {
    const FaultAction fault = fault_point(FaultPoint::kCheckpointWrite);
    if (fault == FaultAction::kNoSpace)
      fail("cannot write {}: {}", path_.string(), std::strerror(ENOSPC));
    if (fault == FaultAction::kTorn || fault == FaultAction::kCorrupt) {
      std::vector<std::byte> whole;
      for (const auto& part : block_) whole.insert(whole.end(), part.begin(), part.end());
      sha_.update(whole);
      const size_t middle = whole.size() / 2;
      if (fault == FaultAction::kTorn) {
        whole.resize(middle);
        write_fully(fd_, whole, path_);
        fault_crash();
      }
      whole[middle] ^= std::byte{1};
      write_fully(fd_, whole, path_);
      return;
    }
    constexpr int64_t kPiece = int64_t{1} << 19;  // a millisecond's work, read once from memory
    for (auto next = block_.begin(); next != block_.end();) {
      run_piece_([&] {
        for (int64_t left = kPiece; left > 0 && next != block_.end();) {
          const auto part = next->first(std::min(left, next->size()));
          sha_.update(part);
          write_fully(fd_, part, path_);
          left -= part.size();
          *next = next->subspan(part.size());
          if (next->empty()) ++next;
        }
      });
    }
  }

  /// Sends to the disk what was written, and waits for what was sent some blocks ago.
  /// Otherwise unwritten pages would pile up, and the writes of others and the sync at
  /// the end would wait for them. Where this cannot be done, the sync does it all.
  void flush() {
    constexpr int64_t kBehind = 4 * kWriteBlock;
    if (at_ < sent_ + kWriteBlock) return;
    sent_ = at_;
    const int64_t settled = std::max<int64_t>(at_ - kBehind, 0) / 4096 * 4096;
    send(settled, at_, SYNC_FILE_RANGE_WRITE);
    if (settled > settled_) {
      send(settled_, settled,
           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
      settled_ = settled;
    }
  }
  void send(int64_t begin, int64_t end, unsigned flags) const {
    // The system reports a failure only once, so the sync at the end would not see it.
    if (::sync_file_range(fd_, begin, end - begin, flags) != 0 &&
        (errno == EIO || errno == ENOSPC || errno == EDQUOT))
      fail("cannot write {}: {}", path_.string(), std::strerror(errno));
  }

  int fd_;
  const fs::path& path_;
  const PieceRunner& run_piece_;
  Sha256 sha_;
  std::vector<Span<const std::byte>> block_;  // appended and not yet written
  int64_t block_bytes_ = 0;
  int64_t at_ = 0, sent_ = 0, settled_ = 0;
};

/// What a part has of one tensor.
struct HeldTensor {
  int64_t tensor = 0;
  std::vector<Extent> slices;
  std::vector<int64_t> places;  // of each slice in the arrays
};

/// The tensors of which the part has something, in the module's order.
std::vector<HeldTensor> held_tensors(const ModulePart& part) {
  std::vector<models::HeldSlice> sorted = part.slices;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.tensor < b.tensor; });
  std::vector<HeldTensor> held;
  for (const models::HeldSlice& slice : sorted) {
    if (slice.elements.size() == 0) continue;
    if (held.empty() || held.back().tensor != slice.tensor) held.push_back({slice.tensor, {}, {}});
    held.back().slices.push_back(slice.elements);
    held.back().places.push_back(slice.at);
  }
  return held;
}

std::array<std::span<const float>, 3> arrays_of(const ModulePart& part) {
  return {part.weights, part.adam_m, part.adam_v};
}

void check_part(const ModulePart& part) {
  const StoredModule& module = part.module;
  const int64_t size = std::ssize(part.weights);
  for (int64_t kind = 1; kind < std::ssize(kKinds); ++kind) {
    ORRERY_CHECK(std::ssize(arrays_of(part)[kind]) == (module.trainable ? size : 0),
                 "{} values of {} beside {} weights of {}", arrays_of(part)[kind].size(),
                 kKinds[kind], size, module.name);
  }
  for (const models::HeldSlice& s : part.slices) {
    ORRERY_CHECK(0 <= s.tensor && s.tensor < std::ssize(module.tensors), "tensor {} of {}",
                 s.tensor, module.name);
    const int64_t all = module.tensors[s.tensor].size, count = s.elements.size();
    ORRERY_CHECK(0 <= s.elements.begin && count >= 0 && s.elements.end <= all && 0 <= s.at &&
                     s.at + count <= size,
                 "slice [{}, {}) of {} elements at {} of {}", s.elements.begin, s.elements.end, all,
                 s.at, size);
  }
}

RankFile write_file(const fs::path& path, std::span<const ModulePart> parts,
                    const PieceRunner& run_piece) {
  std::vector<std::vector<HeldTensor>> held;  // of each part
  for (const ModulePart& part : parts) held.push_back(held_tensors(part));
  std::vector<PlannedDataset> datasets;
  std::vector<std::pair<const HeldTensor*, const float*>> numbers;  // of each dataset
  for (size_t i = 0; i < parts.size(); ++i) {
    const StoredModule& module = parts[i].module;
    for (int64_t kind = 0; kind < module.kinds(); ++kind) {
      for (const HeldTensor& h : held[i]) {
        datasets.push_back({&module, kind, &module.tensors[h.tensor], h.slices});
        numbers.emplace_back(&h, arrays_of(parts[i])[kind].data());
      }
    }
  }
  const FileLayout layout(path, datasets);

  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.fd < 0) fail("cannot create {}: {}", path.string(), std::strerror(errno));
  reserve(file.fd, path, layout.bytes());
  if (::ftruncate(file.fd, layout.bytes()) != 0)
    fail("cannot resize {}: {}", path.string(), std::strerror(errno));
  HashedWriter writer(file.fd, path, run_piece);
  for (size_t i = 0; i < datasets.size(); ++i) {
    if (i > 0 && datasets[i].kind != datasets[i - 1].kind) writer.finish();
    writer.append_structure(layout.image(), layout.offsets()[i]);
    const auto& [tensor, array] = numbers[i];
    for (size_t s = 0; s < tensor->slices.size(); ++s) {
      writer.append(as_bytes(Span(array + tensor->places[s], tensor->slices[s].size())));
    }
  }
  writer.append_structure(layout.image(), layout.bytes());
  writer.finish();
  if (::fsync(file.fd) != 0) fail("cannot sync {}: {}", path.string(), std::strerror(errno));
  return {layout.bytes(), writer.hex()};
}

}  // namespace

HeldModules held_modules(std::span<const ModulePart> parts) {
  HeldModules held;
  for (const ModulePart& part : parts) {
    for (const HeldTensor& h : held_tensors(part))
      held[part.module.name][part.module.tensors[h.tensor].name] = h.slices;
  }
  return held;
}

RankFile write_rank_file(const fs::path& path, std::span<const ModulePart> parts,
                         const PieceRunner& run_piece) {
  for (const ModulePart& part : parts) check_part(part);
  try {
    return write_file(path, parts, run_piece);
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(path, ignored);
    throw;
  }
}

}  // namespace orrery::storage
