#include "storage/checkpoint_layout.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_lock.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

static_assert(sizeof(Extent) == 2 * sizeof(int64_t));  // as HDF5 takes a list of them

/// An attribute is at most 64 KiB, as everything in an object's header.
constexpr int64_t kMaxSlices = 4000;
constexpr int64_t kPage = 4096;

void check(bool ok, const fs::path& path, const char* what) {
  if (!ok) fail("{}: HDF5 cannot {}", path.string(), what);
}

/// More than HDF5 1.10 needs for the structure: some 1100 bytes for a group, and 530
/// for a dataset, beside longer names and attributes, which leave holes when HDF5 moves
/// them.
int64_t estimate(std::span<const PlannedDataset> datasets) {
  constexpr int64_t kGroup = 2 << 10;
  int64_t bytes = 16 << 10;
  PlannedDataset before;
  for (const PlannedDataset& d : datasets) {
    if (d.module != before.module)
      bytes += 2 * kGroup;  // and its first kind's
    else if (d.kind != before.kind)
      bytes += kGroup;
    before = d;
    bytes += 640 + 4 * std::ssize(d.tensor->name) +
             2 * (8 * std::ssize(d.tensor->shape) + 16 * std::ssize(d.slices));
  }
  return (bytes + kPage - 1) / kPage * kPage;
}

/// What HDF5's in-memory driver hands over when the file is closed.
struct Image {
  std::byte* data = nullptr;
  size_t size = 0;
};

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
  // FileLayout frees the memory.
  callbacks.image_free = [](void*, H5FD_file_image_op_t, void*) -> herr_t { return 0; };
  callbacks.udata_copy = [](void* user) { return user; };
  callbacks.udata_free = [](void*) -> herr_t { return 0; };
  callbacks.udata = &image;
  return callbacks;
}

Hdf5Handle property_list(hid_t of) { return {H5Pcreate(of), H5Pclose, "create a property list"}; }

/// Adds datasets to a file in memory. Its calls hold the HDF5 lock.
class Structure {
 public:
  Structure(const fs::path& path, int64_t structure_bytes, Image& image)
      : path_(path),
        access_(property_list(H5P_FILE_ACCESS)),
        group_list_(property_list(H5P_GROUP_CREATE)),
        dataset_list_(property_list(H5P_DATASET_CREATE)),
        text_type_(H5Tcopy(H5T_C_S1), H5Tclose, "copy a type") {
    // All structure is in one block before the numbers, so that the image stays small.
    // What may differ between two files of equal contents is left out: times.
    H5FD_file_image_callbacks_t callbacks = keep_image(image);
    const hsize_t block = structure_bytes;
    const bool configured =
        H5Pset_fapl_core(access_, block, /*backing_store=*/false) >= 0 &&
        H5Pset_file_image_callbacks(access_, &callbacks) >= 0 &&
        H5Pset_meta_block_size(access_, block) >= 0 &&
        H5Pset_small_data_block_size(access_, 0) >= 0 &&  // numbers lie in the order of datasets
        H5Pset_obj_track_times(group_list_, false) >= 0 &&
        H5Pset_layout(dataset_list_, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(dataset_list_, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(dataset_list_, H5D_FILL_TIME_NEVER) >= 0 &&
        H5Pset_obj_track_times(dataset_list_, false) >= 0 &&
        H5Tset_size(text_type_, kStoredType.size()) >= 0 &&
        H5Tset_strpad(text_type_, H5T_STR_NULLPAD) >= 0;
    check(configured, path, "be configured");
    file_.emplace(
        H5Fcreate((path.string() + ".structure").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access_),
        H5Fclose, fmt::format("lay out {}", path.string()));
  }

  /// The dataset's offset in the file.
  int64_t add(const PlannedDataset& planned) {
    if (planned.module != module_) {
      kind_group_.reset();
      module_group_.reset();
      module_group_.emplace(make_group(*file_, planned.module->name));
      module_ = planned.module;
      kind_ = -1;
    }
    if (planned.kind != kind_) {
      kind_group_.reset();
      kind_group_.emplace(make_group(*module_group_, kKinds[planned.kind]));
      kind_ = planned.kind;
    }
    const hsize_t count = total_size(planned.slices);
    const Hdf5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose, "create a dataspace");
    const std::string& name = planned.tensor->name;
    const Hdf5Handle dataset(H5Dcreate2(*kind_group_, name.c_str(), H5T_IEEE_F32LE, space,
                                        H5P_DEFAULT, dataset_list_, H5P_DEFAULT),
                             H5Dclose, fmt::format("create {} in {}", name, path_.string()));
    const hsize_t sizes[] = {planned.tensor->shape.size()}, pairs[] = {planned.slices.size(), 2};
    write_integers(dataset, "shape", sizes, planned.tensor->shape.data());
    write_integers(dataset, "slices", pairs, planned.slices.data());
    const Hdf5Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "create a dataspace");
    write_attribute(dataset, "dtype", text_type_, text_type_, scalar, kStoredType.data());
    const haddr_t offset = H5Dget_offset(dataset);
    check(offset != HADDR_UNDEF, path_, "allocate a dataset");
    const int64_t begin = offset;
    return begin;
  }

  /// Closes the file, whose image is whole then. Returns its size.
  int64_t close() {
    kind_group_.reset();
    module_group_.reset();
    hsize_t bytes = 0;
    check(H5Fget_filesize(*file_, &bytes) >= 0, path_, "tell the size");
    check(file_->close(), path_, "write the structure");
    const int64_t size = bytes;
    return size;
  }

 private:
  Hdf5Handle make_group(hid_t in, const std::string& name) const {
    return {H5Gcreate2(in, name.c_str(), H5P_DEFAULT, group_list_, H5P_DEFAULT), H5Gclose,
            fmt::format("create {} in {}", name, path_.string())};
  }
  void write_attribute(hid_t dataset, const char* name, hid_t stored, hid_t type, hid_t space,
                       const void* value) {
    const Hdf5Handle attribute(H5Acreate2(dataset, name, stored, space, H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose, "create an attribute");
    check(H5Awrite(attribute, type, value) >= 0, path_, "write an attribute");
  }
  void write_integers(hid_t dataset, const char* name, std::span<const hsize_t> shape,
                      const void* values) {
    const Hdf5Handle space(H5Screate_simple(shape.size(), shape.data(), nullptr), H5Sclose,
                           "create a dataspace");
    write_attribute(dataset, name, H5T_STD_I64LE, H5T_NATIVE_INT64, space, values);
  }

  const fs::path& path_;
  Hdf5Handle access_, group_list_, dataset_list_, text_type_;
  std::optional<Hdf5Handle> file_, module_group_, kind_group_;
  const StoredModule* module_ = nullptr;
  int64_t kind_ = -1;
};

}  // namespace

FileLayout::FileLayout(const fs::path& path, std::span<const PlannedDataset> datasets) {
  for (const PlannedDataset& d : datasets) {
    ORRERY_CHECK(!d.slices.empty() && std::ssize(d.slices) <= kMaxSlices,
                 "{} slices of {}; a file has up to {}", d.slices.size(), d.tensor->name,
                 kMaxSlices);
  }
  for (int64_t structure = estimate(datasets); !build(path, datasets, structure); structure *= 2) {
  }
}

/// False when the structure did not fit into its block, so that some of it lies behind
/// numbers.
bool FileLayout::build(const fs::path& path, std::span<const PlannedDataset> datasets,
                       int64_t structure_bytes) {
  constexpr size_t kAtATime = 16;  // about a millisecond's
  Image image;
  std::optional<Structure> structure;
  const auto locked = [](auto&& work) {
    const Hdf5Lock lock;
    const QuietHdf5 quiet;
    work();
  };
  try {
    locked([&] { structure.emplace(path, structure_bytes, image); });
    offsets_.clear();
    for (size_t at = 0; at < datasets.size(); at += kAtATime) {
      locked([&] {
        for (const PlannedDataset& d :
             datasets.subspan(at, std::min(kAtATime, datasets.size() - at)))
          offsets_.push_back(structure->add(d));
      });
    }
    locked([&] {
      bytes_ = structure->close();
      structure.reset();
    });
  } catch (...) {
    locked([&] { structure.reset(); });
    std::free(image.data);
    throw;
  }
  image_.reset(image.data);
  image_bytes_ = image.size;
  check(image_ != nullptr, path, "write the structure");
  bytes_ = std::max(bytes_, image_bytes_);
  ORRERY_CHECK(std::is_sorted(offsets_.begin(), offsets_.end()), "datasets of {} out of order",
               path.string());
  return offsets_.empty() || image_bytes_ <= offsets_.front();
}

}  // namespace orrery::storage
