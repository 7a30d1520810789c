// What the case tables share. A table of an op is a constexpr array of structs derived
// from Case: its tests against the scalar oracle, its finite differences and its
// benchmark (bench/ops_bench*.cc) walk the rows that are for them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

namespace orrery::kernels::cases {

/// The model of a benchmark's row.
struct ModelShape {
  const char* name;
  int64_t dim, layers, heads, kv_heads, head_dim, ffn, vocab;
  constexpr int64_t q_size() const { return heads * head_dim; }
  constexpr int64_t kv_size() const { return kv_heads * head_dim; }
  constexpr int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
  /// Parameters, embedding and head tied.
  constexpr int64_t parameters() const {
    return vocab * dim + layers * (dim * (qkv_size() + q_size() + 3 * ffn) + 2 * dim) + dim;
  }
};

inline constexpr ModelShape k135M{"135M", 576, 30, 9, 3, 64, 1536, 49152};
inline constexpr ModelShape k8M{"8M", 288, 6, 6, 6, 48, 768, 6400};
inline constexpr const ModelShape* kModels[] = {&k135M, &k8M};

/// Tokens of a group in training: a prompt of 60 and 8 responses of 128.
inline constexpr int64_t kResponseTokens = 8 * 128;
inline constexpr int64_t kGroupTokens = 60 + kResponseTokens;
/// Sequences of a decoding batch, where an op's own rows name no other.
inline constexpr int64_t kDecodeRows = 64;

/// What a row is for, as a set of bits.
using Use = unsigned;
inline constexpr Use kOracle = 1;       ///< the bits of scalar code, on every target
inline constexpr Use kDifferences = 2;  ///< a backward's values, by finite differences
inline constexpr Use kTest = kOracle | kDifferences;
inline constexpr Use kBenchForward = 4, kBenchBackward = 8;
inline constexpr Use kBench = kBenchForward | kBenchBackward;

/// The start of every row.
struct Case {
  const char* name;  ///< letters, digits and underscores, as gtest has it
  Use use;
  const ModelShape* model = nullptr;  ///< of benchmarks
  /// Of the first operand; the others take the numbers that follow.
  uint64_t seed = 1;
};

inline std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

/// Names gtest's instances after their rows.
struct CaseName {
  template <class Info>
  auto operator()(const Info& info) const {
    return std::string(info.param.name);
  }
};

/// The rows of a table that are for any of `use`, in its order.
template <class Row, size_t kRows>
std::vector<Row> cases_for(const Row (&table)[kRows], Use use) {
  static_assert(std::is_base_of_v<Case, Row>);
  std::vector<Row> rows;
  std::copy_if(table, table + kRows, std::back_inserter(rows),
               [&](const Row& row) { return (row.use & use) != 0; });
  return rows;
}

/// What the rows of a table are for, all together.
template <class Row, size_t kRows>
constexpr Use uses_of(const Row (&table)[kRows]) {
  Use uses = 0;
  for (const Row& row : table) uses |= row.use;
  return uses;
}

/// At most kMost elements, in a constexpr table.
template <class T, int64_t kMost>
class List {
 public:
  constexpr List(std::initializer_list<T> items) {
    for (const T& item : items) items_[size_++] = item;
  }
  constexpr const T* begin() const { return items_; }
  constexpr const T* end() const { return items_ + size_; }
  constexpr int64_t size() const { return size_; }

 private:
  T items_[kMost] = {};
  int64_t size_ = 0;
};

/// `count` numbers below `bound`, which repeat and follow no order.
inline std::vector<int32_t> scattered_ids(int64_t count, int64_t bound) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + i * i) % bound));
  return ids;
}

}  // namespace orrery::kernels::cases
