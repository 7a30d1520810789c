// Checking and reading a rank's file, whose digest is known to be right.
#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "core/error.h"
#include "storage/checkpoint_file.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_lock.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

Hdf5Handle open_file(const fs::path& path) {
  return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
          fmt::format("open {}", path.string())};
}

/// The group /<module>/<kind>, which lies in the file itself, as all that is opened.
Hdf5Handle open_kind(hid_t file, const fs::path& path, const std::string& module, int64_t kind) {
  const std::string name = fmt::format("/{}/{}", module, kKinds[kind]);
  H5L_info_t link;
  const auto is_here = [&](const std::string& object) {
    return H5Lget_info(file, object.c_str(), &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD;
  };
  const bool here = is_here("/" + module) && is_here(name);
  return {here ? H5Gopen2(file, name.c_str(), H5P_DEFAULT) : -1, H5Gclose,
          fmt::format("open {} of {}", name, path.string())};
}

/// The integers of an attribute that has `count` of them; empty when it has not.
std::vector<int64_t> integers(hid_t dataset, const char* name, int64_t count) {
  const Hdf5Handle attribute(H5Aopen(dataset, name, H5P_DEFAULT), H5Aclose);
  if (attribute < 0) return {};
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose), type(H5Aget_type(attribute), H5Tclose);
  std::vector<int64_t> values(count);
  const bool read = H5Sget_simple_extent_npoints(space) == count &&
                    H5Tget_class(type) == H5T_INTEGER &&
                    H5Aread(attribute, H5T_NATIVE_INT64, values.data()) >= 0;
  if (!read) values.clear();
  return values;
}

/// The attribute `dtype`; empty when there is none that could be one.
std::string dtype_of(hid_t dataset) {
  constexpr size_t kLongest = 32;
  const Hdf5Handle attribute(H5Aopen(dataset, "dtype", H5P_DEFAULT), H5Aclose);
  if (attribute < 0) return "";
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose), type(H5Aget_type(attribute), H5Tclose);
  const size_t size = H5Tget_size(type);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || size > kLongest ||
      H5Sget_simple_extent_npoints(space) != 1)
    return "";
  std::string text(size, '\0');
  if (H5Aread(attribute, type, text.data()) < 0) return "";
  text.resize(text.find_last_not_of('\0') + 1);
  return text;
}

std::string type_text(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  return fmt::format("{} of {} bytes",
                     kind == H5T_FLOAT     ? "floating-point numbers"
                     : kind == H5T_INTEGER ? "integers"
                                           : "other values",
                     H5Tget_size(type));
}

/// An open dataset that is what the manifest says.
struct TensorDataset {
  TensorDataset(hid_t group, const fs::path& path, const StoredModule& module, int64_t kind,
                const StoredTensor& tensor, std::span<const Extent> slices)
      : name(fmt::format("/{}/{}/{}", module.name, kKinds[kind], tensor.name)),
        dataset(open(group, path, tensor.name, name)),
        space(H5Dget_space(dataset), H5Sclose, "read a dataspace") {
    const auto refuse = [&](const std::string& what) {
      fail("{}: {}: {}", path.string(), name, what);
    };
    const std::string dtype = dtype_of(dataset);
    if (dtype != kStoredType)
      refuse(fmt::format("its dtype is {}; this program reads \"{}\"",
                         json_excerpt(nlohmann::json(dtype)), kStoredType));
    const Hdf5Handle type(H5Dget_type(dataset), H5Tclose, "read a type");
    if (H5Tequal(type, H5T_IEEE_F32LE) <= 0)
      refuse(fmt::format("it holds {}, not float32 values", type_text(type)));
    if (integers(dataset, "shape", std::ssize(tensor.shape)) != tensor.shape)
      refuse("its shape is not the one in the manifest");
    std::vector<int64_t> bounds;
    for (const Extent& slice : slices) bounds.insert(bounds.end(), {slice.begin, slice.end});
    if (integers(dataset, "slices", std::ssize(bounds)) != bounds)
      refuse("its slices are not those in the manifest");
    const hsize_t held = total_size(slices);
    hsize_t stored = 0;
    const bool fits = H5Sget_simple_extent_ndims(space) == 1 &&
                      H5Sget_simple_extent_dims(space, &stored, nullptr) == 1 && stored == held;
    if (!fits) refuse(fmt::format("it has not the {} values of its slices", held));
    const Hdf5Handle plan(H5Dget_create_plist(dataset), H5Pclose, "read a property list");
    if (H5Pget_layout(plan) != H5D_CONTIGUOUS || H5Pget_external_count(plan) != 0)
      refuse("its values are not in one piece");
  }

  /// Reads `out.size()` values from the dataset's value `start` on.
  void read(const fs::path& path, int64_t start, Span<float> out) const {
    const hsize_t from = start, count = out.size();
    const Hdf5Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose, "create a dataspace");
    const bool ok =
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &from, nullptr, &count, nullptr) >= 0 &&
        H5Dread(dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, out.data()) >= 0;
    if (!ok) fail("{}: HDF5 cannot read {}", path.string(), name);
  }

  const std::string name;
  const Hdf5Handle dataset, space;

 private:
  static Hdf5Handle open(hid_t group, const fs::path& path, const std::string& tensor,
                         const std::string& name) {
    H5L_info_t link;
    const bool here =
        H5Lget_info(group, tensor.c_str(), &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD;
    return {here ? H5Dopen2(group, tensor.c_str(), H5P_DEFAULT) : -1, H5Dclose,
            fmt::format("open {} of {}", name, path.string())};
  }
};

}  // namespace

void check_rank_file(const fs::path& path, std::span<const StoredModule> modules,
                     const HeldModules& held) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const Hdf5Handle file = open_file(path);
  for (const auto& [name, tensors] : held) {
    const StoredModule& module = find_module(modules, name, path.string());
    for (int64_t kind = 0; kind < module.kinds(); ++kind) {
      const Hdf5Handle group = open_kind(file, path, name, kind);
      for (const StoredTensor& tensor : module.tensors) {
        const auto slices = tensors.find(tensor.name);
        if (slices == tensors.end()) continue;
        const TensorDataset dataset(group, path, module, kind, tensor, slices->second);
      }
    }
  }
}

void read_rank_file(const fs::path& path, const StoredModule& module, const HeldTensors& held,
                    std::span<const models::HeldSlice> wanted,
                    std::array<std::span<float>, 3> out) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const Hdf5Handle file = open_file(path);
  for (int64_t kind = 0; kind < module.kinds(); ++kind) {
    if (out[kind].empty()) continue;
    const Span<float> values = out[kind];
    const Hdf5Handle group = open_kind(file, path, module.name, kind);
    for (const models::HeldSlice& want : wanted) {
      const StoredTensor& tensor = module.tensors[want.tensor];
      const auto slices = held.find(tensor.name);
      if (slices == held.end()) continue;
      std::optional<TensorDataset> dataset;
      int64_t start = 0;  // where the slice begins in the dataset
      for (const Extent& slice : slices->second) {
        const int64_t begin = std::max(slice.begin, want.elements.begin);
        const int64_t end = std::min(slice.end, want.elements.end);
        if (begin < end) {
          if (!dataset) dataset.emplace(group, path, module, kind, tensor, slices->second);
          dataset->read(path, start + begin - slice.begin,
                        values.subspan(want.at + begin - want.elements.begin, end - begin));
        }
        start += slice.size();
      }
    }
  }
}

}  // namespace orrery::storage
