#include "storage/checkpoint_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <vector>

#include "core/durable_file.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/sha256.h"
#include "core/span.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_lock.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 3> kDatasets = {"weights", "adam_m", "adam_v"};
constexpr const char* kExtents = "extents";
static_assert(sizeof(Extent) == 2 * sizeof(int64_t));  // as HDF5 takes a list of them
constexpr hsize_t kAlignment = 4096;
constexpr size_t kStructureBytes = 32 << 10;  // more than HDF5 needs beside the numbers

void check(bool ok, const fs::path& path, const char* what) {
  if (!ok) fail("{}: HDF5 cannot {}", path.string(), what);
}

void write_attribute(hid_t file, const fs::path& path, const char* name, int64_t value) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose, "create a dataspace");
  const Hdf5Handle attribute(H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose, "create an attribute");
  check(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0, path, "write an attribute");
}

void check_attribute(hid_t file, const fs::path& path, const char* name, int64_t expected) {
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose,
                             fmt::format("open {} of {}", name, path.string()));
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose, "read a dataspace");
  int64_t value = -1;
  check(
      H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, H5T_NATIVE_INT64, &value) >= 0,
      path, "read an attribute");
  if (value != expected)
    fail("{}: {} is {}, the manifest says {}", path.string(), name, value, expected);
}

void write_extents(hid_t file, const fs::path& path, std::span<const Extent> extents) {
  const std::array<hsize_t, 2> shape = {extents.size(), 2};
  const Hdf5Handle space(H5Screate_simple(2, shape.data(), nullptr), H5Sclose,
                         "create a dataspace");
  const Hdf5Handle attribute(
      H5Acreate2(file, kExtents, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
      "create an attribute");
  check(extents.empty() || H5Awrite(attribute, H5T_NATIVE_INT64, extents.data()) >= 0, path,
        "write an attribute");
}

void check_extents(hid_t file, const fs::path& path, std::span<const Extent> expected) {
  const Hdf5Handle attribute(H5Aopen(file, kExtents, H5P_DEFAULT), H5Aclose,
                             fmt::format("open {} of {}", kExtents, path.string()));
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose, "read a dataspace");
  std::vector<Extent> found(expected.size());
  const bool same = H5Sget_simple_extent_npoints(space) == 2 * std::ssize(expected) &&
                    (expected.empty() || H5Aread(attribute, H5T_NATIVE_INT64, found.data()) >= 0) &&
                    std::equal(found.begin(), found.end(), expected.begin());
  if (!same) fail("{}: its extents are not those in the manifest", path.string());
}

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

/// What HDF5 wrote into memory: the first `size` bytes of a file. The bytes beyond are
/// numbers or padding.
struct Image {
  std::byte* data = nullptr;
  size_t size = 0;
  Image() = default;
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  ~Image() { std::free(data); }
};

/// HDF5's in-memory driver hands over its buffer when the file is closed.
H5FD_file_image_callbacks_t keep_image(Image& image) {
  H5FD_file_image_callbacks_t callbacks{};
  callbacks.image_malloc = [](size_t size, H5FD_file_image_op_t, void*) {
    return std::malloc(size);
  };
  callbacks.image_memcpy = [](void* to, const void* from, size_t size, H5FD_file_image_op_t,
                              void*) { return std::memcpy(to, from, size); };
  callbacks.image_realloc = [](void* old, size_t size, H5FD_file_image_op_t, void* user) -> void* {
    auto* bytes = static_cast<std::byte*>(std::realloc(old, size));
    Image& kept = *static_cast<Image*>(user);
    if (bytes == nullptr) return nullptr;
    if (size > kept.size) std::memset(bytes + kept.size, 0, size - kept.size);
    kept.data = bytes;
    kept.size = size;
    return bytes;
  };
  // Image frees the memory.
  callbacks.image_free = [](void*, H5FD_file_image_op_t, void*) -> herr_t { return 0; };
  callbacks.udata_copy = [](void* user) { return user; };
  callbacks.udata_free = [](void*) -> herr_t { return 0; };
  callbacks.udata = &image;
  return callbacks;
}

/// Where things are in the file.
struct Structure {
  int64_t bytes = 0;                 ///< of the file
  std::array<int64_t, 3> offsets{};  ///< of each dataset's numbers, rising
};

/// Lets HDF5 lay out the file in memory, without the numbers. HDF5 does not touch the
/// disk, because HDF5 1.10 cannot close its file when a disk fails, and crashes at
/// exit. The real file gets plain writes, whose failures are plain.
Structure create_structure(const fs::path& path, int64_t flat_size, std::span<const Extent> extents,
                           Image& image) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "create a property list");
  H5FD_file_image_callbacks_t callbacks = keep_image(image);
  // All structure is in one block before the numbers, so that the image stays small.
  const bool configured = H5Pset_fapl_core(access, kStructureBytes, /*backing_store=*/false) >= 0 &&
                          H5Pset_file_image_callbacks(access, &callbacks) >= 0 &&
                          H5Pset_alignment(access, kAlignment, kAlignment) >= 0 &&
                          H5Pset_meta_block_size(access, kStructureBytes) >= 0;
  check(configured, path, "be configured");
  Hdf5Handle file(
      H5Fcreate((path.string() + ".structure").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access),
      H5Fclose, fmt::format("lay out {}", path.string()));
  write_extents(file, path, extents);
  write_attribute(file, path, "flat_size", flat_size);

  const Hdf5Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "create a property list");
  const bool planned =
      H5Pset_layout(layout, H5D_CONTIGUOUS) >= 0 &&
      H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY) >= 0 &&
      H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER) >= 0 &&
      H5Pset_obj_track_times(layout, false) >= 0;  // equal contents give equal files
  check(planned, path, "be configured");
  const hsize_t count = total_size(extents);
  const Hdf5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose, "create a dataspace");
  Structure structure;
  for (size_t i = 0; i < kDatasets.size(); ++i) {
    const Hdf5Handle dataset(
        H5Dcreate2(file, kDatasets[i], H5T_IEEE_F32LE, space, H5P_DEFAULT, layout, H5P_DEFAULT),
        H5Dclose, fmt::format("create {} in {}", kDatasets[i], path.string()));
    if (count == 0) continue;
    const haddr_t offset = H5Dget_offset(dataset);
    check(offset != HADDR_UNDEF, path, "allocate a dataset");
    structure.offsets[i] = offset;
    ORRERY_CHECK(i == 0 || structure.offsets[i] > structure.offsets[i - 1],
                 "datasets of {} out of order", path.string());
  }
  hsize_t bytes = 0;
  check(H5Fget_filesize(file, &bytes) >= 0, path, "tell the size");
  check(file.close() && image.data != nullptr, path, "write the structure");
  structure.bytes = std::max<int64_t>(bytes, kStructureBytes);
  return structure;
}

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

constexpr int64_t kBlock = int64_t{8} << 20;

/// Writes and hashes a file from its start.
class HashedWriter {
 public:
  HashedWriter(int fd, const fs::path& path, const PieceRunner& run_piece)
      : fd_(fd), path_(path), run_piece_(run_piece) {}
  void append(Span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto block = bytes.first(std::min(kBlock, bytes.size()));
      write(block);
      at_ += block.size();
      flush();
      bytes = bytes.subspan(block.size());
    }
  }
  /// Appends the image's bytes up to position `end` (zeros beyond the image).
  void append_structure(const Image& image, int64_t end) {
    std::vector<std::byte> buffer(end - at_);
    const size_t at = at_;
    if (at < image.size)
      std::memcpy(buffer.data(), image.data + at, std::min(buffer.size(), image.size - at));
    append(buffer);
  }
  std::string hex() { return sha_.hex(); }

 private:
  void write(Span<const std::byte> block) {
    const FaultAction fault = fault_point(FaultPoint::kCheckpointWrite);
    if (fault == FaultAction::kNoSpace)
      fail("cannot write {}: {}", path_.string(), std::strerror(ENOSPC));
    if (fault == FaultAction::kTorn) {
      write_fully(fd_, block.first(block.size() / 2), path_);
      fault_crash();
    }
    if (fault == FaultAction::kCorrupt) {
      std::vector<std::byte> wrong(block.begin(), block.end());
      wrong[wrong.size() / 2] ^= std::byte{1};
      sha_.update(block);
      write_fully(fd_, wrong, path_);
      return;
    }
    constexpr int64_t kPiece = int64_t{1} << 19;  // a millisecond's work, read once from memory
    while (!block.empty()) {
      const auto piece = block.first(std::min(kPiece, block.size()));
      run_piece_([&] {
        sha_.update(piece);
        write_fully(fd_, piece, path_);
      });
      block = block.subspan(piece.size());
    }
  }

  /// Sends to the disk what was written, and waits for what was sent some blocks ago.
  /// Otherwise unwritten pages would pile up, and the writes of others and the sync at
  /// the end would wait for them. Where this cannot be done, the sync does it all.
  void flush() {
    constexpr int64_t kBehind = 4 * kBlock;
    if (at_ < sent_ + kBlock) return;
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
  int64_t at_ = 0, sent_ = 0, settled_ = 0;
};

SliceFile write_file(const fs::path& path, int64_t flat_size, const CheckpointSlice& slice,
                     const PieceRunner& run_piece) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.fd < 0) fail("cannot create {}: {}", path.string(), std::strerror(errno));
  const std::array<std::span<const float>, 3> values = {slice.weights, slice.adam_m, slice.adam_v};
  reserve(file.fd, path, 2 * kStructureBytes + values.size() * slice.weights.size_bytes());

  Image image;
  const Structure structure = create_structure(path, flat_size, slice.extents, image);
  if (::ftruncate(file.fd, structure.bytes) != 0)
    fail("cannot resize {}: {}", path.string(), std::strerror(errno));
  HashedWriter writer(file.fd, path, run_piece);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].empty()) continue;
    writer.append_structure(image, structure.offsets[i]);
    writer.append(std::as_bytes(values[i]));
  }
  writer.append_structure(image, structure.bytes);
  if (::fsync(file.fd) != 0) fail("cannot sync {}: {}", path.string(), std::strerror(errno));
  return {structure.bytes, writer.hex()};
}

/// An open slice file whose attributes say the same as its manifest.
struct SliceReader {
  SliceReader(const fs::path& p, std::span<const Extent> extents, int64_t flat_size)
      : path(p),
        file(H5Fopen(p.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
             fmt::format("open {}", p.string())),
        held(total_size(extents)) {
    check_extents(file, path, extents);
    check_attribute(file, path, "flat_size", flat_size);
  }
  const fs::path& path;
  const Hdf5Handle file;
  const hsize_t held;  ///< elements of each dataset
};

struct SliceDataset {
  SliceDataset(const SliceReader& reader, const char* name)
      : dataset(H5Dopen2(reader.file, name, H5P_DEFAULT), H5Dclose,
                fmt::format("open {} of {}", name, reader.path.string())),
        space(H5Dget_space(dataset), H5Sclose, "read a dataspace") {
    const Hdf5Handle type(H5Dget_type(dataset), H5Tclose, "read a type");
    hsize_t stored = 0;
    const bool fits = H5Sget_simple_extent_ndims(space) == 1 &&
                      H5Sget_simple_extent_dims(space, &stored, nullptr) == 1 &&
                      stored == reader.held && H5Tequal(type, H5T_IEEE_F32LE) > 0;
    if (!fits) fail("{}: {} is not {} float32 values", reader.path.string(), name, reader.held);
  }
  const Hdf5Handle dataset, space;
};

}  // namespace

SliceFile write_slice_file(const fs::path& path, int64_t flat_size, const CheckpointSlice& slice,
                           const PieceRunner& run_piece) {
  const int64_t count = total_size(slice.extents);
  int64_t end = 0;
  for (const Extent& e : slice.extents) {
    ORRERY_CHECK(end <= e.begin && e.begin <= e.end && e.end <= flat_size,
                 "extent [{}, {}) after {} of {}", e.begin, e.end, end, flat_size);
    end = e.end;
  }
  ORRERY_CHECK(std::ssize(slice.weights) == count && std::ssize(slice.adam_m) == count &&
                   std::ssize(slice.adam_v) == count,
               "{}, {} and {} values for {} elements", slice.weights.size(), slice.adam_m.size(),
               slice.adam_v.size(), count);
  try {
    return write_file(path, flat_size, slice, run_piece);
  } catch (const Error& error) {
    std::error_code ignored;
    fs::remove(path, ignored);
    fail("{}; earlier checkpoints are untouched", error.what());
  }
}

void check_slice_file(const fs::path& path, std::span<const Extent> extents, int64_t flat_size) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const SliceReader reader(path, extents, flat_size);
  for (const char* name : kDatasets) const SliceDataset dataset(reader, name);
}

void read_slice_file(const fs::path& path, std::span<const Extent> extents, int64_t flat_size,
                     const Extent& wanted, std::array<std::span<float>, 3> out) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const SliceReader reader(path, extents, flat_size);
  for (size_t i = 0; i < kDatasets.size(); ++i) {
    if (out[i].empty()) continue;
    ORRERY_CHECK(std::ssize(out[i]) == wanted.size(), "{} elements into {}", wanted.size(),
                 out[i].size());
    const SliceDataset dataset(reader, kDatasets[i]);
    int64_t at = 0;  // where the extent begins in the dataset
    for (const Extent& e : extents) {
      const Extent part{std::max(e.begin, wanted.begin), std::min(e.end, wanted.end)};
      const hsize_t start = at + part.begin - e.begin;
      at += e.size();
      if (part.begin >= part.end) continue;
      const hsize_t count = part.size();
      const std::span<float> into =
          elements_of(out[i], {part.begin - wanted.begin, part.end - wanted.begin});
      const Hdf5Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose, "create a dataspace");
      const bool ok = H5Sselect_hyperslab(dataset.space, H5S_SELECT_SET, &start, nullptr, &count,
                                          nullptr) >= 0 &&
                      H5Dread(dataset.dataset, H5T_NATIVE_FLOAT, memory, dataset.space, H5P_DEFAULT,
                              into.data()) >= 0;
      if (!ok) fail("{}: HDF5 cannot read {}", path.string(), kDatasets[i]);
    }
  }
}

}  // namespace orrery::storage
