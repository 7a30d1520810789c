// Ops on the debug device, whose memory is closed to the host: they give the bits that
// they give on the CPU, and a read or write on the host's side of an op would fault.
#include <gtest/gtest.h>

#include <vector>

#include "core/buffer.h"
#include "core/transfer.h"
#include "kernels/lm_head.h"
#include "kernels/logprob.h"
#include "kernels/matmul.h"
#include "kernels/sampling.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using kernel_testing::random_vector;

constexpr int64_t kRows = 5, kIn = 12, kVocab = 70;

/// Everything that the ops below write.
struct Results {
  std::vector<float> dx, dw, db, logprobs, entropies;
  std::vector<int32_t> ids;
  bool operator==(const Results&) const = default;
};

class OnDevice {
 public:
  explicit OnDevice(DeviceType type) : ctx_{.device = {type}, .threads = 2}, arena_(ctx_.device) {}

  Results run() {
    std::vector<Bf16> hidden;
    for (const float value : random_vector(kRows * kIn, 1)) hidden.push_back(to_bf16(value));
    const Mat<const Bf16> x(vec(hidden).data, kRows, kIn);
    const Mat<const float> w = mat(random_vector(kVocab * kIn, 2), kIn);
    const Vec<float> bias = vec(random_vector(kVocab, 3));
    memory_ = Buffer(ctx_.device, packed_weight_bytes(ctx_.device, DType::kBF16, kVocab, kIn));
    const PackedWeight packed =
        pack_weight(ctx_, {.weight = w, .dtype = DType::kBF16, .memory = memory_.data()});
    const Mat<float> logits = arena_.mat<float>(kRows, kVocab);
    matmul_forward(ctx_, {.y = logits, .x = x, .weight = packed, .bias = bias});

    const Vec<int32_t> ids = vec(std::vector<int32_t>(kRows));
    sample_forward(ctx_,
                   {.ids = ids,
                    .logits = logits,
                    .params = vec(std::vector<SamplingParams>{
                        {}, {.temperature = 0}, {.top_k = 3}, {.top_p = 0.7f}, {.min_p = 0.1f}}),
                    .uniform = vec(std::vector<float>{0.1f, 0.3f, 0.5f, 0.7f, 0.9f})});

    const Vec<float> db = vec(random_vector(kVocab, 4));
    bias_backward(ctx_, {.db = db, .dy = logits});

    const LmHeadForward head{.hidden = x,
                             .weight = packed,
                             .targets = ids,
                             .inv_temperature = vec(std::vector<float>(kRows, 1.25f)),
                             .logprobs = vec(std::vector<float>(kRows)),
                             .entropies = vec(std::vector<float>(kRows))};
    const Mat<float> dx = mat(random_vector(kRows * kIn, 5), kIn);
    const Mat<float> dw = mat(random_vector(kVocab * kIn, 6), kIn);
    lm_head_logprob(ctx_, head, arena_);
    LmHeadWalk walk(ctx_, head, arena_);
    while (const auto chunk = walk.next()) {
      upload(ctx_, chunk->dlogp, std::vector<float>(chunk->dlogp.size, 0.5f));
      upload(ctx_, chunk->dentropy, std::vector<float>(chunk->dentropy.size, 0.1f));
      walk.backward(*chunk, dx, dw);
    }
    return {host(Vec<float>(dx.data, dx.size())),
            host(Vec<float>(dw.data, dw.size())),
            host(db),
            host(head.logprobs),
            host(head.entropies),
            host(ids)};
  }

 private:
  template <class T>
  Vec<T> vec(const std::vector<T>& values) {
    const Vec<T> copy(arena_.alloc<T>(std::ssize(values)), std::ssize(values));
    upload(ctx_, copy, values);
    return copy;
  }
  Mat<float> mat(const std::vector<float>& values, int64_t cols) {
    const Vec<float> copy = vec(values);
    return {copy.data, copy.size / cols, cols};
  }
  template <class T>
  std::vector<T> host(Vec<T> values) {
    std::vector<T> copy(values.size);
    download(ctx_, Span<T>(copy), values);
    return copy;
  }

  Context ctx_;
  Arena arena_;
  Buffer memory_;
};

TEST(DebugDevice, ProductsLogprobsAndDrawsHaveTheBitsOfTheCpu) {
  EXPECT_EQ(OnDevice(DeviceType::kDebug).run(), OnDevice(DeviceType::kCpu).run());
}

}  // namespace
}  // namespace orrery::kernels
