// Recognises data files in a format that is not read, and names the command that
// converts them. Pure functions of the bytes and the path; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

/// Throws a usage Error when a file that begins with `bytes` is not plain text:
/// Parquet, Arrow, HDF5, something compressed, an archive, a pickle, a web page,
/// UTF-16, or a Git LFS pointer. `wanted` says what should be there: "data is read from
/// JSON Lines (an object a line)".
void refuse_binary_format(std::string_view bytes, const std::string& path, std::string_view wanted);

/// Throws the same Error, and also one for text whose rows are not JSON Lines: CSV,
/// TSV, and JSON that spans the whole file. `line` is the file's first line that is not
/// blank; `more` says whether other lines follow it.
void refuse_other_rows(std::string_view line, bool more, const std::string& path);

}  // namespace orrery::actors
