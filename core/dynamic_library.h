// Libraries that are opened when they are first needed, so that one binary starts where
// they are absent: NVIDIA's, which come with CUDA or with a Python.
#pragma once

#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

namespace orrery {

/// A library, and where it may be.
struct LibraryPlace {
  std::string name;      ///< as users know it: "NCCL"
  std::string file;      ///< "libnccl.so.2"
  std::string variable;  ///< of the environment; holds a path where it is set: "ORRERY_NCCL"
  /// Below a Python's site-packages: "nvidia/nccl/lib".
  std::string package_folder;
  std::string advice;  ///< how to get it: "pip install nvidia-nccl-cu13"
};

/// An open library. It stays open until the program ends, as threads of its own may
/// run in it.
class DynamicLibrary {
 public:
  /// Opens the first that can be opened of:
  ///   1. what the environment variable names, and then nothing else;
  ///   2. what the loader finds under `file` (LD_LIBRARY_PATH, /etc/ld.so.conf);
  ///   3. the CUDA folder: CUDA_HOME, CUDA_PATH, /usr/local/cuda;
  ///   4. the nvidia packages of a Python: VIRTUAL_ENV, then the python3 on PATH.
  /// Error when there is none: what was looked for, everywhere it was looked for and
  /// what was there, and what to do.
  explicit DynamicLibrary(const LibraryPlace& place);

  /// What was opened, as it was asked for.
  const std::string& path() const { return path_; }

  /// The address of a function. Error naming the library's path when it has none of
  /// this name.
  template <class F>
  F* function(const char* symbol) const requires(std::is_function_v<F>) {
    return reinterpret_cast<F*>(address(symbol));
  }

 private:
  void* address(const char* symbol) const;

  std::string name_, path_;
  void* handle_ = nullptr;
};

/// Where DynamicLibrary looks after the loader's own places, in order.
std::vector<std::filesystem::path> library_folders(const LibraryPlace& place);

}  // namespace orrery
