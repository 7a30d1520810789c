#include "storage/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "tests/support/scratch.h"

namespace orrery::storage {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

class Safetensors : public testing::Test {
 protected:
  Safetensors() : scratch_("orrery_safetensors_") { std::filesystem::create_directories(folder_); }

  std::filesystem::path path() const { return folder_ / "x.safetensors"; }

  /// Writes a file of the given header text and data, with a header length that may
  /// lie.
  void write(const std::string& header, size_t data_bytes, std::optional<uint64_t> length = {}) {
    const uint64_t n = length.value_or(header.size());
    std::string bytes(reinterpret_cast<const char*>(&n), sizeof(n));
    write_file_atomic(path(), bytes + header + std::string(data_bytes, '\0'));
  }

  /// What opening (and reading every tensor of) the file says.
  std::string error() const {
    try {
      const SafetensorsFile file(path());
      for (const SafetensorsTensor& tensor : file.tensors()) {
        std::vector<float> values(static_cast<size_t>(tensor.size));
        file.read_f32(tensor, 0, values);
      }
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  const testing_support::ScratchPath scratch_;
  const std::filesystem::path& folder_ = scratch_.path();
};

TEST_F(Safetensors, RoundTripsInEachDtype) {
  const std::vector<float> a = {0.0f, -0.0f, 1.0f, -2.5f, 0.333333f, 65504.0f}, b = {7.0f};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    write_safetensors(
        path(),
        std::vector<SafetensorsOutput>{{"a", {2, 3}, a}, {"b", {}, b}, {"none", {0, 4}, {}}}, dtype,
        {{"format", "pt"}});
    const SafetensorsFile file(path());
    EXPECT_EQ(file.metadata().at("format"), "pt");
    ASSERT_EQ(file.tensors().size(), 3u);
    const SafetensorsTensor* tensor = file.find("a");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
    std::vector<float> read(a.size());
    file.read_f32(*tensor, 0, read);
    for (size_t i = 0; i < a.size(); ++i) {
      const float expected = dtype == DType::kF32    ? a[i]
                             : dtype == DType::kBF16 ? bf16_to_f32(f32_to_bf16(a[i]))
                                                     : f16_to_f32(f32_to_f16(a[i]));
      EXPECT_EQ(std::bit_cast<uint32_t>(read[i]), std::bit_cast<uint32_t>(expected));
    }
    EXPECT_EQ(file.find("c"), nullptr);
  }
}

TEST_F(Safetensors, F16RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // every f16 value goes there and back
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      ASSERT_EQ(f32_to_f16(value), bits);
    }
  }
  for (uint32_t bits = 0; bits < 0x7C00; ++bits) {  // half way between two neighbours: the even one
    const float low = f16_to_f32(static_cast<uint16_t>(bits));
    const float high = bits + 1 == 0x7C00 ? 65536.0f : f16_to_f32(static_cast<uint16_t>(bits + 1));
    const float middle = 0.5f * (low + high);
    ASSERT_EQ(f32_to_f16(middle), bits + (bits & 1u));
    ASSERT_EQ(f32_to_f16(std::nextafterf(middle, 0.0f)), bits);
    ASSERT_EQ(f32_to_f16(std::nextafterf(middle, INFINITY)), bits + 1);
  }
}

TEST_F(Safetensors, ValueTooLargeForTheDtypeIsAnErrorAndKeepsTheOldFile) {
  write_file_atomic(path(), "old");
  const std::vector<float> big = {1.0f, 70000.0f}, bigger = {std::numeric_limits<float>::max()};
  const auto write_as = [&](const std::vector<float>& values, DType dtype) {
    write_safetensors(
        path(),
        std::vector<SafetensorsOutput>{{"w", {static_cast<int64_t>(values.size())}, values}}, dtype,
        {});
  };
  EXPECT_THROW(write_as(big, DType::kF16), Error);
  EXPECT_THROW(write_as(bigger, DType::kBF16), Error);
  EXPECT_EQ(read_file(path()), "old");
  EXPECT_FALSE(std::filesystem::exists(path().string() + ".tmp"));
}

TEST_F(Safetensors, BadHeadersAreNamed) {
  struct Case {
    const char* header;
    size_t data;
    const char* expected;
  };
  const Case cases[] = {
      {"", 0, "JSON"},
      {"[]", 0, "not a JSON object"},
      {"{", 0, "not valid JSON"},
      {"{}", 4, "belong to none"},
      {R"({"a": 3})", 0, "expected a JSON object"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 7, "outside"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 9, "belong to none"},
      {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})", 8,
       "do not hold 3 elements"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})", 12, "belong to none"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}})", 8, "rising"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}})", 8, "rising"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}})", 8, "rising"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 18446744073709551615]}})", 8,
       "rising"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9223372036854775807]}})", 8,
       "outside"},
      {R"({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}})", 8, "shape"},
      {R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}})", 0,
       "out of range"},
      {R"({"a": {"dtype": "F32", "shape": [0, 99999999999999999], "data_offsets": [0, 0]}})", 0,
       "out of range"},
      {R"({"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1], "data_offsets": [0, 4]}})",
       4, "sizes"},
      {R"({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}})", 8, "shape"},
      {R"({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 8]}})", 8, "shape"},
      {R"({"a": {"dtype": 32, "shape": [2], "data_offsets": [0, 8]}})", 8, "dtype"},
      {R"({"a": {"shape": [2], "data_offsets": [0, 8]}})", 8, "\"dtype\" is missing"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 1}})", 8,
       "not supported"},
      {R"({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}})", 8, "a has dtype I64"},
      {R"({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 8]}})", 8, "a has dtype F4"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32", "shape": [1],
           "data_offsets": [4, 8]}})",
       8, "twice"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [1],
           "data_offsets": [4, 8]}})",
       8, "belong to two"},
      {R"({"__metadata__": 1})", 0, "__metadata__"},
      {R"({"__metadata__": {"a": 1}})", 0, "__metadata__"},
  };
  for (const Case& c : cases) {
    write(c.header, c.data);
    EXPECT_THAT(error(), AllOf(HasSubstr("x.safetensors"), HasSubstr(c.expected))) << c.header;
  }
}

TEST_F(Safetensors, HeaderLengthsThatLie) {
  const std::string header = R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})";
  for (const uint64_t length :
       {uint64_t{0}, uint64_t{1}, header.size() - 1, header.size() + 9, uint64_t{1} << 32,
        uint64_t{INT64_MAX}, UINT64_MAX, UINT64_MAX - 7}) {
    write(header, 8, length);
    EXPECT_NE(error(), "no error") << length;
  }
  write_file_atomic(path(), "1234567");
  EXPECT_THAT(error(), HasSubstr("too few"));
  write_file_atomic(path(), "");
  EXPECT_THAT(error(), HasSubstr("too few"));
  write(std::string(1 << 20, '['), 0);
  EXPECT_THAT(error(), HasSubstr("deeper"));
  write("{\"a\":" + std::string(1 << 20, '{'), 0);
  EXPECT_THAT(error(), AnyOf(HasSubstr("deeper"), HasSubstr("JSON")));
}

TEST_F(Safetensors, EveryTruncationAndFlipOfTheHeaderIsSafe) {
  const std::vector<float> a(5, 1.0f), b(3, 2.0f);
  write_safetensors(path(), std::vector<SafetensorsOutput>{{"a", {5}, a}, {"b", {3, 1}, b}},
                    DType::kF32, {});
  const std::string good = read_file(path());
  for (size_t n = 0; n < good.size(); ++n) {
    write_file_atomic(path(), good.substr(0, n));
    EXPECT_NE(error(), "no error") << "cut to " << n;
  }
  Philox random(3, RngPurpose::kTest);
  for (int i = 0; i < 500;
       ++i) {  // a flip may leave a valid file; it must never crash or read outside
    std::string bad = good;
    for (uint32_t k = 1 + random.below(3); k > 0; --k) {
      bad[random.below(static_cast<uint32_t>(bad.size()))] ^=
          static_cast<char>(1u << random.below(8));
    }
    write_file_atomic(path(), bad);
    EXPECT_FALSE(error().empty());
  }
}

}  // namespace
}  // namespace orrery::storage
