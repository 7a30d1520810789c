#include "storage/hdf5_arrays.h"

#include <iterator>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "storage/hdf5_handle.h"

namespace orrery::storage {
namespace {

void need(bool good, const std::string& path, const char* what, const std::string& name) {
  if (!good) fail("{}: HDF5 cannot {} {}", path, what, name);
}

template <class T>
hid_t file_type() {
  if constexpr (std::is_same_v<T, int8_t>) return H5T_STD_I8LE;
  if constexpr (std::is_same_v<T, uint8_t>) return H5T_STD_U8LE;
  if constexpr (std::is_same_v<T, int32_t>) return H5T_STD_I32LE;
  if constexpr (std::is_same_v<T, uint32_t>) return H5T_STD_U32LE;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_STD_I64LE;
  if constexpr (std::is_same_v<T, uint64_t>) return H5T_STD_U64LE;
  if constexpr (std::is_same_v<T, float>) return H5T_IEEE_F32LE;
  if constexpr (std::is_same_v<T, double>) return H5T_IEEE_F64LE;
}

template <class T>
hid_t memory_type() {
  if constexpr (std::is_same_v<T, int8_t>) return H5T_NATIVE_INT8;
  if constexpr (std::is_same_v<T, uint8_t>) return H5T_NATIVE_UINT8;
  if constexpr (std::is_same_v<T, int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, uint64_t>) return H5T_NATIVE_UINT64;
  if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
  if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
}

Hdf5Handle string_type() {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

Hdf5Handle make_space(const std::vector<int64_t>& shape) {
  std::vector<hsize_t> dims(shape.begin(), shape.end());
  return {H5Screate_simple(dims.size(), dims.data(), nullptr), H5Sclose};
}

Hdf5Handle make_dataset(hid_t file, const std::string& path, const char* name, hid_t type,
                        const std::vector<int64_t>& shape) {
  const Hdf5Handle space = make_space(shape);
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(properties, false);  // the same samples give the same bytes
  Hdf5Handle dataset(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT),
                     H5Dclose);
  need(space >= 0 && dataset >= 0, path, "create dataset", name);
  return dataset;
}

/// Texts as the library takes variable-length strings: pointers, and no NUL inside.
class CStrings {
 public:
  explicit CStrings(const std::vector<std::string>& texts) : texts_(texts) {
    for (std::string& text : texts_) {
      for (size_t at = text.find('\0'); at != std::string::npos; at = text.find('\0', at))
        text.replace(at, 1, "\xEF\xBF\xBD");
      pointers_.push_back(text.c_str());
    }
  }
  const void* data() const { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<const char*> pointers_;
};

/// The number of elements of a dataspace; Error when there are more than `limit`.
hsize_t count_elements(hid_t space, hssize_t limit, const std::string& path,
                       const std::string& name) {
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  if (count < 0 || count > limit) {
    fail("{}: {} claims {} elements, more than the file can hold: it is damaged", path, name,
         count);
  }
  return count;
}

/// Reads texts of a dataset or attribute with `read(type, pointers)` and frees what the
/// library allocated.
template <class Read>
std::vector<std::string> take_strings(hid_t file_type, hid_t space, hsize_t count,
                                      const std::string& path, const std::string& name,
                                      Read&& read) {
  if (H5Tget_class(file_type) != H5T_STRING || H5Tis_variable_str(file_type) <= 0) {
    fail("{}: {} does not hold variable-length strings", path, name);
  }
  const Hdf5Handle type(H5Tcopy(file_type), H5Tclose);
  std::vector<char*> pointers(count, nullptr);
  std::vector<std::string> texts(count);
  if (count == 0) return texts;
  const bool good = read(type, pointers.data()) >= 0;
  if (good) {
    for (hsize_t i = 0; i < count; ++i) {
      if (pointers[i] != nullptr) texts[i] = pointers[i];
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
  }
  need(good, path, "read", name);
  return texts;
}

/// Opens a dataset; Error unless its numbers lie in this file, in one piece.
Hdf5Handle open_dataset(hid_t file, const std::string& path, const char* name) {
  Hdf5Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  need(dataset >= 0, path, "open dataset", name);
  const Hdf5Handle properties(H5Dget_create_plist(dataset), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(properties);
  if ((layout != H5D_CONTIGUOUS && layout != H5D_COMPACT) ||
      H5Pget_external_count(properties) != 0) {
    fail("{}: dataset {} is not contiguous", path, name);
  }
  return dataset;
}

}  // namespace

Hdf5Writer::Hdf5Writer(std::filesystem::path path) : path_(std::move(path)) {
  const QuietHdf5 quiet;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fapl_core(access, size_t{1} << 20, false);
  // No file of this name is touched: ours lives in memory until publish().
  file_ = H5Fcreate((path_.string() + ".image").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  need(file_ >= 0, path_.string(), "create", "a file in memory");
}

Hdf5Writer::~Hdf5Writer() {
  if (file_ >= 0) H5Fclose(file_);
}

template <class T>
void Hdf5Writer::write(const char* name, const std::vector<T>& values, std::vector<int64_t> shape) {
  const QuietHdf5 quiet;
  if (shape.empty()) shape = {std::ssize(values)};
  const Hdf5Handle dataset = make_dataset(file_, path_.string(), name, file_type<T>(), shape);
  if (values.empty()) return;
  need(H5Dwrite(dataset, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0,
       path_.string(), "write", name);
}

void Hdf5Writer::write(const char* name, const std::vector<std::string>& texts) {
  const QuietHdf5 quiet;
  const Hdf5Handle type = string_type();
  const Hdf5Handle dataset = make_dataset(file_, path_.string(), name, type, {std::ssize(texts)});
  if (texts.empty()) return;
  const CStrings strings(texts);
  need(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, strings.data()) >= 0, path_.string(),
       "write", name);
}

template <class T>
void Hdf5Writer::attribute(const char* name, T value) {
  const QuietHdf5 quiet;
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(
      H5Acreate2(file_, name, file_type<T>(), space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  need(attribute >= 0 && H5Awrite(attribute, memory_type<T>(), &value) >= 0, path_.string(),
       "write attribute", name);
}

void Hdf5Writer::attribute(const char* name, const std::vector<std::string>& texts,
                           const std::string& dataset) {
  const QuietHdf5 quiet;
  const Hdf5Handle owner(H5Oopen(file_, dataset.empty() ? "/" : dataset.c_str(), H5P_DEFAULT),
                         H5Oclose);
  const Hdf5Handle type = string_type();
  const Hdf5Handle space = texts.size() == 1 ? Hdf5Handle(H5Screate(H5S_SCALAR), H5Sclose)
                                             : make_space({std::ssize(texts)});
  const Hdf5Handle attribute(H5Acreate2(owner, name, type, space, H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose);
  const CStrings strings(texts);
  need(attribute >= 0 && (texts.empty() || H5Awrite(attribute, type, strings.data()) >= 0),
       path_.string(), "write attribute", name);
}

void Hdf5Writer::publish() {
  const QuietHdf5 quiet;
  need(H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0, path_.string(), "flush", "the file");
  const ssize_t size = H5Fget_file_image(file_, nullptr, 0);
  need(size > 0, path_.string(), "give", "the file's image");
  std::string image(size, '\0');
  need(H5Fget_file_image(file_, image.data(), image.size()) == size, path_.string(), "give",
       "the file's image");
  write_file_atomic(path_, image);
}

Hdf5Reader::Hdf5Reader(const std::filesystem::path& path) : path_(path.string()) {
  std::error_code error;
  bytes_ = std::filesystem::file_size(path, error);
  if (error) fail("cannot open {}: {}", path_, error.message());
  const QuietHdf5 quiet;
  file_ = H5Fopen(path_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file_ < 0) fail("cannot open {}: it is not an HDF5 file, or a damaged one", path_);
}

Hdf5Reader::~Hdf5Reader() {
  if (file_ >= 0) H5Fclose(file_);
}

template <class T>
void Hdf5Reader::read(const char* name, std::vector<T>& values) const {
  const QuietHdf5 quiet;
  const Hdf5Handle dataset = open_dataset(file_, path_, name);
  const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
  const H5T_class_t wanted = std::is_floating_point_v<T> ? H5T_FLOAT : H5T_INTEGER;
  const bool sign_differs = wanted == H5T_INTEGER &&
                            H5Tget_sign(type) != (std::is_signed_v<T> ? H5T_SGN_2 : H5T_SGN_NONE);
  if (H5Tget_class(type) != wanted || H5Tget_size(type) != sizeof(T) || sign_differs) {
    fail("{}: dataset {} has another type than {}{}", path_, name,
         std::is_floating_point_v<T> ? "float" : (std::is_signed_v<T> ? "int" : "uint"),
         sizeof(T) * 8);
  }
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  values.resize(count_elements(space, bytes_ / sizeof(T), path_, name));
  if (values.empty()) return;
  need(H5Dread(dataset, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0, path_,
       "read", name);
}

void Hdf5Reader::read(const char* name, std::vector<std::string>& texts) const {
  const QuietHdf5 quiet;
  const Hdf5Handle dataset = open_dataset(file_, path_, name);
  const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  // A variable-length string takes at least 16 bytes in the file, for its length and
  // the place of its bytes.
  const hsize_t count = count_elements(space, bytes_ / 16, path_, name);
  // In a damaged file many strings may claim the same bytes, so their sum is checked
  // too.
  hsize_t total = 0;
  if (count > 0 && H5Tis_variable_str(type) > 0) {
    need(H5Dvlen_get_buf_size(dataset, type, space, &total) >= 0, path_, "measure", name);
    if (total > bytes_ + count)
      fail("{}: dataset {} claims more text than the file can hold", path_, name);
  }
  texts = take_strings(type, space, count, path_, name, [&](hid_t t, void* pointers) {
    return H5Dread(dataset, t, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers);
  });
}

bool Hdf5Reader::has_dataset(const char* name) const {
  const QuietHdf5 quiet;
  return H5Lexists(file_, name, H5P_DEFAULT) > 0;
}

bool Hdf5Reader::has_attribute(const char* name) const {
  const QuietHdf5 quiet;
  return H5Aexists(file_, name) > 0;
}

uint64_t Hdf5Reader::integer_attribute(const char* name) const {
  const QuietHdf5 quiet;
  const Hdf5Handle attribute(H5Aopen(file_, name, H5P_DEFAULT), H5Aclose);
  need(attribute >= 0, path_, "open attribute", name);
  const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
  uint64_t value = 0;
  const bool good = H5Tget_class(type) == H5T_INTEGER && H5Sget_simple_extent_npoints(space) == 1 &&
                    H5Aread(attribute, H5T_NATIVE_UINT64, &value) >= 0;
  if (!good) fail("{}: attribute {} is not one integer", path_, name);
  return value;
}

std::vector<std::string> Hdf5Reader::string_attribute(const char* name) const {
  const QuietHdf5 quiet;
  const Hdf5Handle attribute(H5Aopen(file_, name, H5P_DEFAULT), H5Aclose);
  need(attribute >= 0, path_, "open attribute", name);
  const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
  const hsize_t count = count_elements(space, bytes_ / 16, path_, name);
  return take_strings(type, space, count, path_, name,
                      [&](hid_t t, void* pointers) { return H5Aread(attribute, t, pointers); });
}

template void Hdf5Writer::write(const char*, const std::vector<int8_t>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<uint8_t>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<int32_t>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<uint32_t>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<int64_t>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<uint64_t>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<float>&, std::vector<int64_t>);
template void Hdf5Writer::write(const char*, const std::vector<double>&, std::vector<int64_t>);
template void Hdf5Writer::attribute(const char*, uint32_t);
template void Hdf5Writer::attribute(const char*, uint64_t);
template void Hdf5Reader::read(const char*, std::vector<int8_t>&) const;
template void Hdf5Reader::read(const char*, std::vector<uint8_t>&) const;
template void Hdf5Reader::read(const char*, std::vector<int32_t>&) const;
template void Hdf5Reader::read(const char*, std::vector<uint32_t>&) const;
template void Hdf5Reader::read(const char*, std::vector<int64_t>&) const;
template void Hdf5Reader::read(const char*, std::vector<uint64_t>&) const;
template void Hdf5Reader::read(const char*, std::vector<float>&) const;
template void Hdf5Reader::read(const char*, std::vector<double>&) const;

}  // namespace orrery::storage
