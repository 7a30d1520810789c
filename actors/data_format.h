// Data files in another format than the one that is read: named, with the command that
// converts them.
// Pure functions of the bytes and the path; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

/// Usage Error when a file that begins with `bytes` is no plain text: Parquet, Arrow,
/// HDF5, something compressed, an archive, a pickle, a web page, UTF-16, a pointer of
/// Git LFS. `wanted` says what is read from it: "data is read from JSON Lines (an
/// object a line)".
void refuse_binary_format(std::string_view bytes, const std::string& path, std::string_view wanted);

/// Usage Error for these and for text in rows of another kind: CSV, TSV, JSON or YAML
/// over the whole file. `line` is the first that is not blank; `more` lines follow.
void refuse_other_rows(std::string_view line, bool more, const std::string& path);

}  // namespace orrery::actors
