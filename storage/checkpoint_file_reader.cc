// Checking and reading a rank's file, whose digest is known to be right.
#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "core/error.h"
#include "storage/checkpoint_file.h"
#include "storage/hdf5_dataset.h"
#include "storage/hdf5_lock.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

/// The group /<module>/<kind>, which lies in the file itself, as all that is opened.
Hdf5Handle open_kind(hid_t file, const fs::path& path, const std::string& module, int64_t kind) {
  const std::string name = fmt::format("/{}/{}", module, kKinds[kind]);
  const bool here = is_in_file(file, "/" + module) && is_in_file(file, name);
  return {here ? H5Gopen2(file, name.c_str(), H5P_DEFAULT) : -1, H5Gclose,
          fmt::format("open {} of {}", name, path.string())};
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

/// Opens a tensor's dataset. Error unless it is what the manifest says.
FloatDataset open_tensor(hid_t group, const fs::path& path, const StoredModule& module,
                         int64_t kind, const StoredTensor& tensor, std::span<const Extent> slices) {
  FloatDataset dataset(group, tensor.name, path,
                       fmt::format("/{}/{}/{}", module.name, kKinds[kind], tensor.name));
  const std::string dtype = dtype_of(dataset.id());
  if (dtype != kStoredType)
    dataset.refuse(fmt::format("its dtype is {}; this program reads \"{}\"",
                               json_excerpt(nlohmann::json(dtype)), kStoredType));
  if (integer_attribute(dataset.id(), "shape", std::ssize(tensor.shape)) != tensor.shape)
    dataset.refuse("its shape is not the one in the manifest");
  std::vector<int64_t> bounds;
  for (const Extent& slice : slices) bounds.insert(bounds.end(), {slice.begin, slice.end});
  if (integer_attribute(dataset.id(), "slices", std::ssize(bounds)) != bounds)
    dataset.refuse("its slices are not those in the manifest");
  dataset.check(total_size(slices));
  return dataset;
}

}  // namespace

void check_rank_file(const fs::path& path, std::span<const StoredModule> modules,
                     const HeldModules& held) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const Hdf5Handle file = open_hdf5(path);
  for (const auto& [name, tensors] : held) {
    const StoredModule& module = find_module(modules, name, path.string());
    for (int64_t kind = 0; kind < module.kinds(); ++kind) {
      const Hdf5Handle group = open_kind(file, path, name, kind);
      for (const StoredTensor& tensor : module.tensors) {
        const auto slices = tensors.find(tensor.name);
        if (slices == tensors.end()) continue;
        open_tensor(group, path, module, kind, tensor, slices->second);
      }
    }
  }
}

void read_rank_file(const fs::path& path, const StoredModule& module, const HeldTensors& held,
                    std::span<const models::HeldSlice> wanted,
                    std::array<std::span<float>, 3> out) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const Hdf5Handle file = open_hdf5(path);
  for (int64_t kind = 0; kind < module.kinds(); ++kind) {
    if (out[kind].empty()) continue;
    const Span<float> values = out[kind];
    const Hdf5Handle group = open_kind(file, path, module.name, kind);
    for (const models::HeldSlice& want : wanted) {
      const StoredTensor& tensor = module.tensors[want.tensor];
      const auto slices = held.find(tensor.name);
      if (slices == held.end()) continue;
      std::optional<FloatDataset> dataset;
      int64_t start = 0;  // where the slice begins in the dataset
      for (const Extent& slice : slices->second) {
        const int64_t begin = std::max(slice.begin, want.elements.begin);
        const int64_t end = std::min(slice.end, want.elements.end);
        if (begin < end) {
          if (!dataset)
            dataset.emplace(open_tensor(group, path, module, kind, tensor, slices->second));
          dataset->read(start + begin - slice.begin,
                        values.subspan(want.at + begin - want.elements.begin, end - begin));
        }
        start += slice.size();
      }
    }
  }
}

}  // namespace orrery::storage
