#include "actors/data_format.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::actors {
namespace {

constexpr std::string_view kRows = "data is read from JSON Lines (an object a line)";

enum class Remedy {
  kNone,
  kUnpack,  ///< a command that prints what is inside
  kPandas,  ///< a reader of pandas
  kArrow,
  kZip
};

struct Format {
  std::string_view begins, name;
  Remedy remedy;
  std::string_view tool;  ///< the command or the reader
};

using namespace std::string_view_literals;
constexpr Format kFormats[] = {
    {"PAR1"sv, "a Parquet file", Remedy::kPandas, "read_parquet"},
    {"ARROW1"sv, "an Arrow file", Remedy::kPandas, "read_feather"},
    {"FEA1"sv, "a Feather file", Remedy::kPandas, "read_feather"},
    {"\xFF\xFF\xFF\xFF"sv, "an Arrow stream", Remedy::kArrow, ""},
    {"\x89HDF"sv, "an HDF5 file", Remedy::kNone, ""},
    {"\x1F\x8B"sv, "compressed by gzip", Remedy::kUnpack, "gzip -dc"},
    {"\x28\xB5\x2F\xFD"sv, "compressed by zstd", Remedy::kUnpack, "zstd -dc"},
    {"BZh91AY"sv, "compressed by bzip2", Remedy::kUnpack, "bzip2 -dc"},
    {"\xFD\x37zXZ"sv, "compressed by xz", Remedy::kUnpack, "xz -dc"},
    {"\x04\x22\x4D\x18"sv, "compressed by lz4", Remedy::kUnpack, "lz4 -dc"},
    {"PK\x03\x04"sv, "a ZIP archive", Remedy::kZip, "unzip -p"},
    {"7z\xBC\xAF\x27\x1C"sv, "a 7-Zip archive", Remedy::kUnpack, "7z x -so"},
    {"\x93NUMPY"sv, "a NumPy file", Remedy::kNone, ""},
    {"\x80\x04\x95"sv, "a Python pickle", Remedy::kPandas, "read_pickle"},
    {"\x80\x05\x95"sv, "a Python pickle", Remedy::kPandas, "read_pickle"},
    {"SQLite format 3"sv, "an SQLite database", Remedy::kNone, ""},
    {"Obj\x01"sv, "an Avro file", Remedy::kNone, ""},
    {"%PDF"sv, "a PDF", Remedy::kNone, ""},
    {"\xFF\xFE"sv, "text in UTF-16", Remedy::kUnpack, "iconv -f UTF-16 -t UTF-8"},
    {"\xFE\xFF"sv, "text in UTF-16", Remedy::kUnpack, "iconv -f UTF-16 -t UTF-8"},
};

/// A path inside a command, or NAME where quoting would be needed.
std::string in_command(const std::string& path, const std::string& name) {
  const auto plain = [](char c) {
    return is_letter(c) || is_digit(c) ||
           std::string_view("/._-+=@,").find(c) != std::string_view::npos;
  };
  return path.size() <= 200 && std::all_of(path.begin(), path.end(), plain) ? path : name;
}

/// Where the rows go: x.jsonl for x.parquet, x.jsonl.gz and x.csv.
std::string converted(const std::string& path) {
  std::filesystem::path out(path);
  while (out.has_extension() && out.extension().string().size() <= 8) out.replace_extension();
  const std::string text = out.string() + ".jsonl";
  return text == path ? out.string() + ".converted.jsonl" : text;
}

[[noreturn]] void refuse(const std::string& path, std::string_view format, std::string_view wanted,
                         const std::string& command) {
  if (command.empty()) fail_usage("{} is {}, and {}", path, format, wanted);
  fail_usage("{} is {}, and {}; convert it: {}", path, format, wanted, command);
}

/// A line of names with separators between: the header of a table.
char header_separator(std::string_view line) {
  for (const char separator : {',', '\t'}) {
    if (line.find(separator) == std::string_view::npos) continue;
    const bool names = std::all_of(line.begin(), line.end(), [&](char c) {
      return c == separator || is_letter(c) || is_digit(c) ||
             std::string_view("_-. \"").find(c) != std::string_view::npos;
    });
    if (names) return separator;
  }
  return 0;
}

void refuse_table(std::string_view line, bool more, const std::string& path) {
  const std::string extension = to_lower(std::filesystem::path(path).extension().string());
  char separator = extension == ".csv" ? ',' : extension == ".tsv" ? '\t' : '\0';
  if (line.starts_with('{') || line.starts_with('[')) return;
  if (separator == '\0' && more) separator = header_separator(line);
  if (separator == '\0') return;
  const bool tabs = separator == '\t';
  refuse(path, tabs ? "a TSV table" : "a CSV table", kRows,
         fmt::format("python3 -c 'import csv, json; [print(json.dumps(r)) for r in "
                     "csv.DictReader(open(\"{}\"){})]' > {}",
                     in_command(path, tabs ? "x.tsv" : "x.csv"), tabs ? ", delimiter=\"\\t\"" : "",
                     in_command(converted(path), "x.jsonl")));
}

}  // namespace

void refuse_binary_format(std::string_view bytes, const std::string& path,
                          std::string_view wanted) {
  if (bytes.starts_with("version https://git-lfs.github.com/spec/")) {
    fail_usage(
        "{} is a pointer of Git LFS, not the data, which were not downloaded: "
        "run git lfs pull in its repository",
        path);
  }
  for (const std::string_view page : {"<!DOCTYPE"sv, "<!doctype"sv, "<html"sv, "<HTML"sv}) {
    if (bytes.starts_with(page))
      fail_usage("{} is a web page, and {}: download the file itself (its raw form)", path, wanted);
  }
  for (const Format& format : kFormats) {
    if (!bytes.starts_with(format.begins)) continue;
    const std::string in = in_command(path, "x"), out = in_command(converted(path), "x.jsonl");
    std::string command;
    switch (format.remedy) {
      case Remedy::kNone:
        break;
      case Remedy::kZip:
      case Remedy::kUnpack:
        command = fmt::format("{} {} > {}", format.tool, in, out);
        break;
      case Remedy::kPandas:
        command = fmt::format(
            "python3 -c 'import pandas; pandas.{}(\"{}\").to_json(\"{}\", orient=\"records\", "
            "lines=True)'",
            format.tool, in, out);
        if (format.tool == "read_parquet")
          command +=
              fmt::format(", or duckdb -c \"COPY (FROM '{}') TO '{}' (FORMAT json)\"", in, out);
        break;
      case Remedy::kArrow:
        command = fmt::format(
            "python3 -c 'import datasets; datasets.Dataset.from_file(\"{}\").to_json(\"{}\")'", in,
            out);
        break;
    }
    refuse(path, format.name, wanted, command);
  }
}

void refuse_other_rows(std::string_view line, bool more, const std::string& path) {
  refuse_binary_format(line, path, kRows);
  line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
  line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
  refuse_table(line, more, path);
  // A line that is another list, or a brace alone, is but a bad row.
  const size_t inside = line.find_first_not_of(" \t", 1);
  const bool array =
      line.starts_with('[') && (inside == std::string_view::npos || line[inside] == '{');
  if (array || (line == "{" && more)) {
    refuse(path, fmt::format("one JSON {} over the whole file", array ? "array" : "object"), kRows,
           fmt::format("jq -c '{}' {} > {}", array ? ".[]" : ".", in_command(path, "x.json"),
                       in_command(converted(path), "x.jsonl")));
  }
}

}  // namespace orrery::actors
