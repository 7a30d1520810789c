#include "actors/data_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"

namespace orrery::actors {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string refused(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

std::string rows(const std::string& line, const std::string& path = "d/x.jsonl", bool more = true) {
  return refused([&] { refuse_other_rows(line, more, path); });
}

TEST(DataFormat, SaysWhatAFileIsAndHowToConvertIt) {
  EXPECT_EQ(
      rows("PAR1", "d/x.parquet"),
      "d/x.parquet is a Parquet file, and data is read from JSON Lines (an object a line); "
      "convert it: python3 -c 'import pandas; "
      "pandas.read_parquet(\"d/x.parquet\").to_json(\"d/x.jsonl\", orient=\"records\", "
      "lines=True)', or duckdb -c \"COPY (FROM 'd/x.parquet') TO 'd/x.jsonl' (FORMAT json)\"");
  EXPECT_THAT(rows("\x1F\x8B", "x.jsonl.gz"), HasSubstr("gzip -dc x.jsonl.gz > x.jsonl"));
  // The file itself is never written over.
  EXPECT_THAT(rows("\x1F\x8B", "x.jsonl"), HasSubstr("gzip -dc x.jsonl > x.converted.jsonl"));
  EXPECT_THAT(rows("PK\x03\x04", "a b.zip"), HasSubstr("unzip -p x > x.jsonl"));
  EXPECT_THAT(rows("version https://git-lfs.github.com/spec/v1"), HasSubstr("git lfs pull"));
}

TEST(DataFormat, TablesAreKnownByNameOrHeader) {
  EXPECT_THAT(rows("a,b", "x.csv"), HasSubstr("a CSV table"));
  EXPECT_THAT(rows("\"what, and why?\"", "X.CSV"), HasSubstr("a CSV table"));
  EXPECT_THAT(rows("question,answer"), HasSubstr("a CSV table"));
  EXPECT_THAT(rows("question\tanswer"), AllOf(HasSubstr("a TSV table"), HasSubstr("delimiter")));
  // A line of JSON, and what is merely bad.
  EXPECT_EQ(rows("{\"a\": 1, \"b\": 2}", "x.csv"), "");
  EXPECT_EQ(rows("{\"a\": 1}"), "");
  EXPECT_EQ(rows("hello, world!"), "");
  EXPECT_EQ(rows("a,b", "x.jsonl", /*more=*/false), "");
  EXPECT_EQ(rows("[1, 2]"), "");
  EXPECT_EQ(rows("{"),
            "d/x.jsonl is one JSON object over the whole file, "
            "and data is read from JSON Lines (an object a line); convert it: "
            "jq -c '.' d/x.jsonl > d/x.converted.jsonl");
}

TEST(DataFormat, PlainTextIsText) {
  for (const char* text : {"", "Once upon a time, there was\n", "ORC said hello", "BZh is a word",
                           "PK", "{\"a\": 1}", "a,b\n1,2"}) {
    EXPECT_EQ(refused([&] { refuse_binary_format(text, "x.txt", "texts are plain"); }), "") << text;
  }
  EXPECT_EQ(refused([] { refuse_binary_format("\x89HDF\r\n", "x.txt", "texts are plain"); }),
            "x.txt is an HDF5 file, and texts are plain");
}

}  // namespace
}  // namespace orrery::actors
