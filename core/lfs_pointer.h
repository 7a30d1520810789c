// Git LFS keeps large files elsewhere. A clone without Git LFS holds small text files
// in their place, which no reader of ours understands.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace orrery {

/// Error that says how to fetch the file, when `content` (of the file at `path`) is
/// such a stand-in.
void refuse_lfs_pointer(std::string_view content, const std::filesystem::path& path);

/// read_file() for a file of a model; Error when it is a stand-in.
std::string read_model_file(const std::filesystem::path& path);

}  // namespace orrery
