// Attention in bf16: on the CPU as the device cpu-dot16 computes it (docs/numerics.md,
// "Dot16"), on the GPU by its tensor cores. Every other block of a pool, and what lies
// behind the last one, holds NaN.
#pragma once

#include "tests/gpu/ops/cases.h"

namespace orrery::ops_check {

/// About N(0, 1) times `scale`.
inline std::vector<Bf16> normal_bf16(uint64_t seed, int64_t count, float scale) {
  std::vector<Bf16> values;
  Philox rng(seed, RngPurpose::kTest);
  for (int64_t i = 0; i < count; ++i) values.push_back(to_bf16(scale * rng.normal()));
  return values;
}

/// `rows` rows of `cols` elements with NaN between them.
inline std::vector<Bf16> padded_rows(const std::vector<Bf16>& values, int64_t rows, int64_t cols,
                                     int64_t padding) {
  std::vector<Bf16> padded(static_cast<size_t>(rows * (cols + padding)), Bf16{0x7fff});
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(values.begin() + row * cols, cols, padded.begin() + row * (cols + padding));
  }
  return padded;
}

/// The CUDA layout of a pool (kernels/cuda/kv_layout.cuh), filled on the host: keys,
/// then values, each [block][kv_head][kKvBlock][head_dim as whole groups of eight].
class Bf16PoolImage {
 public:
  Bf16PoolImage(const AttentionShape& shape, int64_t blocks)
      : shape_(shape),
        row_((shape.head_dim + 7) / 8 * 8),
        half_(blocks * shape.kv_heads * kKvBlock * row_),
        bits_(static_cast<size_t>(2 * half_), Bf16{0x7fff}) {}

  const std::vector<Bf16>& bits() const { return bits_; }

  /// The keys and values of a sequence, which begin at row `first` of k and v; zeros
  /// behind them.
  void write(const std::vector<int32_t>& table, int64_t first, int64_t positions,
             const std::vector<Bf16>& k, const std::vector<Bf16>& v) {
    for (int64_t p = 0; p < std::ssize(table) * kKvBlock; ++p) {
      const int64_t block = table[static_cast<size_t>(p / kKvBlock)];
      for (int64_t head = 0; head < shape_.kv_heads; ++head) {
        const int64_t to = ((block * shape_.kv_heads + head) * kKvBlock + p % kKvBlock) * row_;
        const int64_t from = ((first + p) * shape_.kv_heads + head) * shape_.head_dim;
        for (int64_t d = 0; d < row_; ++d) {
          const bool is_there = p < positions && d < shape_.head_dim;
          at(to + d) = is_there ? k[static_cast<size_t>(from + d)] : Bf16{};
          at(half_ + to + d) = is_there ? v[static_cast<size_t>(from + d)] : Bf16{};
        }
      }
    }
  }

 private:
  Bf16& at(int64_t i) { return bits_[static_cast<size_t>(i)]; }
  AttentionShape shape_;
  int64_t row_, half_;
  std::vector<Bf16> bits_;
};

/// Attention over keys and values of a case: with rows that are aligned to 16 bytes
/// where the head dimension allows it, and with others.
template <class B>
void attend_in_bf16(Arrays& a, const AttentionCase& c, const std::vector<Bf16>& keys,
                    const std::vector<Bf16>& values, const std::vector<Bf16>& queries) {
  Arena arena;
  SpanLayout layout(c);
  for (std::vector<int32_t>& table : layout.tables) {
    for (int32_t& block : table) block = 2 * block + 1;
  }
  const int64_t blocks = 2 * layout.blocks + 1;
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  const Mat<Bf16> k(a.of_bf16("k", keys), layout.keys, kv_row);
  const Mat<Bf16> v(a.of_bf16("v", values), layout.keys, kv_row);
  KvPool pool{nullptr, DType::kBF16, blocks, c.shape.kv_heads, c.shape.head_dim};
  if (a.gpu()) {
    Bf16PoolImage image(c.shape, blocks);
    for (size_t s = 0; s < layout.tables.size(); ++s) {
      const KvSegment& sequence = layout.sequences[s];
      image.write(layout.tables[s], sequence.row_begin, sequence.rows, keys, values);
    }
    pool.data = a.upload(image.bits().data(), std::ssize(image.bits())).data;
  } else {
    const auto bytes = static_cast<int64_t>(
        kv_pool_bytes(kCpuDevice, DType::kBF16, blocks, c.shape.kv_heads, c.shape.head_dim));
    pool.data = a.bytes(bytes);
    std::memset(pool.data, 0xff, static_cast<size_t>(bytes));
    B::kv_write(a.ctx(),
                {.pool = pool,
                 .k = k,
                 .v = v,
                 .plan = plan_for(a, arena, c.shape, layout.keys, blocks, layout.sequences)});
  }
  const AttentionPlan plan = plan_for(a, arena, c.shape, layout.queries, blocks, layout.spans);
  for (const int64_t padding : {0, 8, 3}) {
    const int64_t stride = q_row + padding;
    const Mat<Bf16> q(a.of_bf16("q", padded_rows(queries, layout.queries, q_row, padding)),
                      layout.queries, q_row, stride);
    const Mat<Bf16> out(a.of_bf16("out", normal_bf16(7, layout.queries * stride, 1.0f)),
                        layout.queries, q_row, stride);
    const Mat<float> lse = padding == 0 ? Mat<float>(nullptr, layout.queries, c.shape.heads)
                                        : a.mat("lse", layout.queries, c.shape.heads, 1.0f, 1);
    B::attention_forward(a.ctx(),
                         {.out = out,
                          .lse = lse,
                          .q = q,
                          .pool = pool,
                          .plan = plan,
                          .scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim))});
    a.step("attention_forward bf16");
  }
}

template <class B>
void run_in_bf16(Arrays& a, const AttentionCase& c) {
  const SpanLayout layout(c);
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  attend_in_bf16<B>(a, c, normal_bf16(c.seed * 10 + 1, layout.keys * kv_row, c.size),
                    normal_bf16(c.seed * 10 + 2, layout.keys * kv_row, 1.0f),
                    normal_bf16(c.seed * 10 + 3, layout.queries * q_row, c.size));
}

/// Queries before, in and after the first tile of 128 keys and the first split of
/// 1,024; tiles of 16, 32 and 64 queries that are full and not; heads of every number
/// of columns.
inline constexpr AttentionCase kBf16AttentionCases[] = {
    {{"tiles", kOracle}, {1, 1, 16}, {{0, 129}, {126, 131}, {127, 128}, {255, 257}}},
    {{"splits", kOracle}, {1, 1, 16}, {{1000, 1050}, {1023, 1025}, {1023, 1024}, {2047, 2050}}},
    {{"splits_wide", kOracle}, {2, 1, 80}, {{1010, 1040}, {1024, 1025}}},
    {{"splits_groups_of_7", kOracle}, {7, 1, 64}, {{1020, 1028}, {1151, 1153}, {2100, 2101}}},
    {{"groups_of_3", kOracle}, {6, 2, 48}, {{0, 50}, {120, 136}, {7, 8}}},
    {{"groups_of_17", kOracle}, {17, 1, 8}, {{129, 130}, {12, 13}}},
    {{"groups_of_17_wide", kOracle}, {17, 1, 72}, {{129, 130}, {12, 13}}},
    {{"head_dim_256", kOracle}, {2, 1, 256}, {{0, 21}, {127, 130}}},
    {{"head_dim_130", kOracle}, {1, 1, 130}, {{0, 5}, {100, 140}}},
};

/// Keys, values and queries of all sizes, and a few that are not finite or nearly so.
struct EdgeBf16Attention : AttentionCase {};
inline constexpr EdgeBf16Attention kEdgeBf16AttentionCases[] = {
    {{{"edges", kOracle}, {4, 2, 16}, {{0, 300}, {125, 150}, {1023, 1030}}}},
    {{{"edges_wide", kOracle}, {2, 2, 96}, {{5, 140}, {1020, 1026}}}},
};

inline std::vector<Bf16> edge_normals(uint64_t seed, int64_t count, uint32_t rare_of) {
  std::vector<Bf16> values;
  Philox rng(seed, RngPurpose::kTest);
  for (int64_t i = 0; i < count; ++i) {
    const float x = rng.normal();
    const float usual[] = {x, x, x, x, x, -0.0f, 0.0f, 1e-42f, x * 1e-20f, x * 1e18f};
    const float rare[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f};
    const bool is_rare = rng.below(rare_of) == 0;
    values.push_back(to_bf16(is_rare ? rare[rng.below(5)] : usual[rng.below(10)]));
  }
  return values;
}

template <class B>
void run_in_bf16(Arrays& a, const EdgeBf16Attention& c) {
  const SpanLayout layout(c);
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  // So few that most tiles have none, and some more.
  for (const uint32_t one_of : {2000u, 40000u}) {
    attend_in_bf16<B>(a, c, edge_normals(c.seed * 10 + 1, layout.keys * kv_row, one_of),
                      edge_normals(c.seed * 10 + 2, layout.keys * kv_row, one_of),
                      edge_normals(c.seed * 10 + 3, layout.queries * q_row, one_of));
  }
  // A value of each sequence's last tile, of which queries before it know nothing.
  std::vector<Bf16> values = normal_bf16(c.seed * 10 + 2, layout.keys * kv_row, 1.0f);
  for (const KvSegment& s : layout.sequences)
    values[static_cast<size_t>((s.row_begin + s.rows) * kv_row - 1)] = to_bf16(INFINITY);
  attend_in_bf16<B>(a, c, normal_bf16(c.seed * 10 + 1, layout.keys * kv_row, 1.0f), values,
                    normal_bf16(c.seed * 10 + 3, layout.queries * q_row, 1.0f));
}

}  // namespace orrery::ops_check
