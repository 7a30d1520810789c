// Attention and its pool of keys and values over memory that is closed to the host: an
// access outside an op, an upload or a download would end the process. The bits are the
// CPU's.
#include <gtest/gtest.h>

#include <vector>

#include "core/transfer.h"
#include "tests/kernels/attention_oracle.h"

namespace orrery::kernels {
namespace {

using attention_test::Floats;
using attention_test::random_floats;

constexpr AttentionShape kShape{6, 2, 16};
constexpr int64_t kRows = 118, kQ = 96, kKv = 32;

/// A prompt of 45 tokens and two responses of 40 and 33, which share its full block and
/// copy the partly filled one: forward and backward.
Floats run(Device device, int threads) {
  const Context ctx{.device = device, .threads = threads};
  Arena arena(device);
  std::mt19937 rng(41);
  const auto random = [&](int64_t cols) {
    const Floats values = random_floats(rng, kRows * cols);
    return Mat<float>(upload_into(ctx, arena, Span<const float>(values)).data, kRows, cols);
  };
  const Mat<float> q = random(kQ), k = random(kKv), v = random(kKv), dout = random(kQ);
  const Mat<float> out = random(kQ), lse = random(6);
  const Mat<float> dq = random(kQ), dk = random(kKv), dv = random(kKv);

  const std::vector<int32_t> tables[] = {{5, 0}, {5, 1, 2}, {5, 4, 3}};
  const std::vector<KvSegment> segments{
      {0, 45, 0, tables[0]}, {45, 40, 45, tables[1]}, {85, 33, 45, tables[2]}};
  const std::vector<AttentionSegment> tree{{0, 45, 0, -1}, {45, 40, 45, 0}, {85, 33, 45, 0}};
  const std::vector<BlockCopy> copies{{0, 1, 13}, {0, 4, 13}};
  const Buffer memory(device, kv_pool_bytes(device, DType::kF32, 6, 2, 16));
  const KvPool pool = make_kv_pool(device, DType::kF32, 6, 2, 16, memory.data());
  const AttentionPlan plan = make_attention_plan(ctx, kShape, kRows, 6, segments, arena);
  kv_clear(ctx, {.pool = pool});
  kv_write(ctx, {.pool = pool, .k = k, .v = v, .plan = plan});
  kv_copy(ctx, {.pool = pool, .plan = make_copy_plan(ctx, 6, copies, arena)});
  attention_forward(ctx,
                    {.out = out, .lse = lse, .q = q, .pool = pool, .plan = plan, .scale = 0.25f});
  attention_backward(ctx, {.dq = dq,
                           .dk = dk,
                           .dv = dv,
                           .dout = dout,
                           .out = out,
                           .q = q,
                           .k = k,
                           .v = v,
                           .lse = lse,
                           .plan = make_attention_backward_plan(ctx, kShape, kRows, tree, arena),
                           .scale = 0.25f});
  Floats all;
  for (const Mat<float>& m : {out, lse, dq, dk, dv}) {
    Floats host(static_cast<size_t>(m.size()));
    download(ctx, Span<float>(host), Vec<const float>(m.data, m.size()));
    all.insert(all.end(), host.begin(), host.end());
  }
  return all;
}

/// The same prompt and responses through a bf16 pool, forward alone, in the order in
/// which an engine runs them: the prompt, the copies, the responses.
Floats run_bf16(Device device, int threads) {
  const Context ctx{.device = device, .threads = threads};
  Arena arena(device);
  std::mt19937 rng(43);
  const auto random = [&](int64_t cols) {
    std::vector<Bf16> values;
    for (const float x : random_floats(rng, kRows * cols)) values.push_back(to_bf16(x));
    return Mat<Bf16>(upload_into(ctx, arena, Span<const Bf16>(values)).data, kRows, cols);
  };
  const Mat<Bf16> q = random(kQ), k = random(kKv), v = random(kKv), out = random(kQ);
  const Floats zeros(static_cast<size_t>(kRows * kShape.heads));
  const Mat<float> lse(upload_into(ctx, arena, Span<const float>(zeros)).data, kRows, kShape.heads);
  const std::vector<int32_t> tables[] = {{5, 0}, {5, 1, 2}, {5, 4, 3}};
  const std::vector<KvSegment> prompt{{0, 45, 0, tables[0]}},
      responses{{45, 40, 45, tables[1]}, {85, 33, 45, tables[2]}};
  const std::vector<BlockCopy> copies{{0, 1, 13}, {0, 4, 13}};
  const Buffer memory(device, kv_pool_bytes(device, DType::kBF16, 6, 2, 16));
  const KvPool pool = make_kv_pool(device, DType::kBF16, 6, 2, 16, memory.data());
  kv_clear(ctx, {.pool = pool});
  for (const auto* segments : {&prompt, &responses}) {
    const AttentionPlan plan = make_attention_plan(ctx, kShape, kRows, 6, *segments, arena);
    kv_write(ctx, {.pool = pool, .k = k, .v = v, .plan = plan});
    attention_forward(ctx,
                      {.out = out, .lse = lse, .q = q, .pool = pool, .plan = plan, .scale = 0.25f});
    if (segments == &prompt)
      kv_copy(ctx,
              {.pool = pool, .plan = make_copy_plan(ctx, 6, copies, arena), .clear_rest = true});
  }
  std::vector<Bf16> outputs(static_cast<size_t>(out.size()));
  download(ctx, Span<Bf16>(outputs), Vec<const Bf16>(out.data, out.size()));
  Floats all(static_cast<size_t>(lse.size()));
  download(ctx, Span<float>(all), Vec<const float>(lse.data, lse.size()));
  for (const Bf16 x : outputs) all.push_back(to_f32(x));
  return all;
}

TEST(DebugDeviceAttention, GivesTheBitsOfTheCpu) {
  const Floats expected = run({}, 1);
  for (const int threads : {1, 3}) {
    EXPECT_EQ(attention_test::first_difference(run({DeviceType::kDebug}, threads), expected), -1);
  }
}

TEST(DebugDeviceAttention, GivesTheBitsOfTheCpuInBf16) {
  const Floats expected = run_bf16({}, 1);
  for (const int threads : {1, 3}) {
    EXPECT_EQ(attention_test::first_difference(run_bf16({DeviceType::kDebug}, threads), expected),
              -1);
  }
}

}  // namespace
}  // namespace orrery::kernels
