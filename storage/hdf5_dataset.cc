#include "storage/hdf5_dataset.h"

#include <utility>

#include "core/error.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

std::string type_text(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  return fmt::format("{} of {} bytes",
                     kind == H5T_FLOAT     ? "floating-point numbers"
                     : kind == H5T_INTEGER ? "integers"
                                           : "other values",
                     H5Tget_size(type));
}

}  // namespace

Hdf5Handle open_hdf5(const fs::path& path) {
  return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
          fmt::format("open {}", path.string())};
}

bool is_in_file(hid_t group, const std::string& name) {
  H5L_info_t link;
  return H5Lget_info(group, name.c_str(), &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD;
}

std::vector<int64_t> integer_attribute(hid_t object, const char* name, int64_t count) {
  const Hdf5Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  if (attribute < 0) return {};
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose), type(H5Aget_type(attribute), H5Tclose);
  std::vector<int64_t> values(count);
  const bool read = H5Sget_simple_extent_npoints(space) == count &&
                    H5Tget_class(type) == H5T_INTEGER &&
                    (count == 0 || H5Aread(attribute, H5T_NATIVE_INT64, values.data()) >= 0);
  if (!read) values.clear();
  return values;
}

FloatDataset::FloatDataset(hid_t group, const std::string& link, const fs::path& path,
                           std::string name)
    : path_(path.string()),
      name_(std::move(name)),
      dataset_(is_in_file(group, link) ? H5Dopen2(group, link.c_str(), H5P_DEFAULT) : -1, H5Dclose,
               fmt::format("open {} of {}", name_, path_)),
      space_(H5Dget_space(dataset_), H5Sclose, "read a dataspace") {}

void FloatDataset::refuse(const std::string& problem) const {
  fail("{}: {}: {}", path_, name_, problem);
}

void FloatDataset::check(int64_t count) const {
  const Hdf5Handle type(H5Dget_type(dataset_), H5Tclose, "read a type");
  if (H5Tequal(type, H5T_IEEE_F32LE) <= 0)
    refuse(fmt::format("it holds {}, not float32 values", type_text(type)));
  const int dimensions = H5Sget_simple_extent_ndims(space_);
  const int64_t stored = H5Sget_simple_extent_npoints(space_);
  if (dimensions != 1 || stored != count) {
    refuse(fmt::format("it holds {} values in {} dimension(s); {} in one are needed", stored,
                       dimensions, count));
  }
  const Hdf5Handle plan(H5Dget_create_plist(dataset_), H5Pclose, "read a property list");
  if (H5Pget_layout(plan) != H5D_CONTIGUOUS || H5Pget_external_count(plan) != 0)
    refuse("its values are not in one piece");
}

void FloatDataset::read(int64_t start, Span<float> out) const {
  const hsize_t from = start, count = out.size();
  const Hdf5Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose, "create a dataspace");
  const bool ok =
      H5Sselect_hyperslab(space_, H5S_SELECT_SET, &from, nullptr, &count, nullptr) >= 0 &&
      H5Dread(dataset_, H5T_NATIVE_FLOAT, memory, space_, H5P_DEFAULT, out.data()) >= 0;
  if (!ok) fail("{}: HDF5 cannot read {}", path_, name_);
}

}  // namespace orrery::storage
