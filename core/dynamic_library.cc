#include "core/dynamic_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "core/error.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;

/// The variable's value; empty when it is not set.
std::string environment(const std::string& name) {
  const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
  return value != nullptr ? value : "";
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

void append_package_folders(const fs::path& prefix, const std::string& package_folder,
                            std::vector<fs::path>& folders) {
  for (const char* lib : {"lib", "lib64"}) {
    std::vector<fs::path> pythons;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(prefix / lib, error)) {
      if (entry.path().filename().string().starts_with("python3")) pythons.push_back(entry.path());
    }
    std::ranges::sort(pythons);
    for (const fs::path& python : pythons) {
      // Debian's Python has dist-packages.
      for (const char* packages : {"site-packages", "dist-packages"}) {
        if (is_there(python / packages)) folders.push_back(python / packages / package_folder);
      }
    }
  }
}

/// The prefix of the python3 on PATH. Links are not followed: that of a virtual
/// environment leads to a Python that knows nothing of its packages.
std::optional<fs::path> python_prefix() {
  const std::string path = environment("PATH");
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find(':', begin), path.size());
    const fs::path folder = path.substr(begin, end - begin);
    if (!folder.empty() && is_there(folder / "python3")) return folder.parent_path();
    begin = end + 1;
  }
  return std::nullopt;
}

/// The loader's reason without the path, which the caller names.
std::string load_error(const std::string& path) {
  const char* text = dlerror();
  if (text == nullptr) return "cannot be opened";
  std::string_view reason = text;
  if (reason.starts_with(path + ": ")) reason.remove_prefix(path.size() + 2);
  return std::string(reason);
}

void* open_library(const std::string& path) { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); }

}  // namespace

std::vector<fs::path> library_folders(const LibraryPlace& place) {
  std::vector<fs::path> folders;
  const auto add_cuda = [&](const fs::path& cuda) {
    for (const char* lib : {"lib64", "lib"}) folders.push_back(cuda / lib);
  };
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const std::string cuda = environment(variable); !cuda.empty()) add_cuda(cuda);
  }
  add_cuda("/usr/local/cuda");
  if (const std::string venv = environment("VIRTUAL_ENV"); !venv.empty())
    append_package_folders(venv, place.package_folder, folders);
  if (const auto prefix = python_prefix())
    append_package_folders(*prefix, place.package_folder, folders);
  std::vector<fs::path> once;
  for (const fs::path& folder : folders) {
    if (std::ranges::find(once, folder) == once.end()) once.push_back(folder);
  }
  return once;
}

DynamicLibrary::DynamicLibrary(const LibraryPlace& place) : name_(place.name) {
  const std::string named = environment(place.variable);
  if (!named.empty()) {
    path_ = named;
    handle_ = open_library(path_);
    if (handle_ != nullptr) return;
    fail("{} is '{}', which is to be {} ({}): {}: name the file, or unset it", place.variable,
         named, place.name, place.file, load_error(named));
  }
  path_ = place.file;
  handle_ = open_library(path_);
  if (handle_ != nullptr) return;
  std::string looked = fmt::format("where the loader looks ({})", load_error(path_));
  for (const fs::path& folder : library_folders(place)) {
    path_ = (folder / place.file).string();
    if (!is_there(path_)) {
      looked += fmt::format(", {} (not there)", folder.string());
      continue;
    }
    handle_ = open_library(path_);
    if (handle_ != nullptr) return;
    looked += fmt::format(", {} ({})", folder.string(), load_error(path_));
  }
  fail("{} ({}) cannot be opened; looked for it {}: {}, or set {} to its path", place.name,
       place.file, looked, place.advice, place.variable);
}

void* DynamicLibrary::address(const char* symbol) const {
  void* found = dlsym(handle_, symbol);
  if (found == nullptr) fail("{} ({}) has no function {}", name_, path_, symbol);
  return found;
}

}  // namespace orrery
