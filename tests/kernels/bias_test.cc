// bias_backward on bf16 gradients; on f32 ones it is tested beside the products.
#include "kernels/matmul.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/matmul_cases.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

TEST(BiasBackward, AddsRowsOfBf16InOrder) {
  for (const BiasCase& c : cases_for(kBiasCases, kOracle)) {
    const Matrix dy = rounded(Matrix::random(c.m, c.n, c.seed));
    const std::vector<float> start = random_vector(c.n, c.seed + 1);
    for (const bool accumulate : {true, false}) {
      std::vector<float> expected = accumulate ? start : std::vector<float>(start.size());
      for (int64_t i = 0; i < dy.rows; ++i) {
        for (int64_t j = 0; j < dy.cols; ++j) expected[static_cast<size_t>(j)] += dy(i, j);
      }
      on_every_target([&](const Context& ctx) {
        std::vector<float> db = accumulate ? start : std::vector<float>(start.size(), kNan);
        bias_backward(ctx, {.db = vec(db), .dy = Bf16Matrix(dy).mat(), .accumulate = accumulate});
        EXPECT_TRUE(same_bits(db, expected)) << c << ", accumulate " << accumulate;
      });
    }
  }
}

}  // namespace
}  // namespace orrery::kernels
