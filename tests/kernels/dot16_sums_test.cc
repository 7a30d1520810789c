// The norms of the class dot16-rz25 against scalar code. The class's other sums that
// are no products are in dot16_runs_test.cc and dot16_logprob_test.cc.
#include "kernels/rmsnorm.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/dot16_sums_oracle.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace kernel_testing;

constexpr float kEps = 1e-5f;

struct Shape {
  int64_t tokens, heads, dim;
};
constexpr Shape kShapes[] = {{1, 1, 1},   {3, 2, 7},   {4, 3, 16},  {5, 2, 63},   {2, 4, 64},
                             {3, 2, 128}, {2, 2, 200}, {3, 1, 255}, {3, 1, 256},  {3, 2, 257},
                             {2, 1, 320}, {2, 3, 500}, {2, 1, 511}, {70, 1, 576}, {40, 1, 1100}};

struct Normed {
  Matrix y;
  std::vector<float> rstd;
};

Normed normed(const Matrix& x, const std::vector<float>& weight, int64_t heads) {
  const int64_t dim = x.cols / heads;
  Normed out{Matrix(x.rows, x.cols), {}};
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t begin = 0; begin < x.cols; begin += dim) {
      const float sum = sum_in_256_lanes(dim, [&](int64_t i, float acc) {
        return std::fma(x(t, begin + i), x(t, begin + i), acc);
      });
      const float rstd = 1.0f / std::sqrt(sum / static_cast<float>(dim) + kEps);
      out.rstd.push_back(rstd);
      for (int64_t i = 0; i < dim; ++i)
        out.y(t, begin + i) = x(t, begin + i) * rstd * weight[static_cast<size_t>(i)];
    }
  }
  return out;
}

TEST(Dot16Sums, NormsHave256Lanes) {
  for (const auto& shape : kShapes) {
    // Named: lambdas may not capture a structured binding in clang 14.
    const int64_t tokens = shape.tokens, heads = shape.heads, dim = shape.dim;
    SCOPED_TRACE(std::to_string(heads) + " heads of " + std::to_string(dim));
    const Matrix x = Matrix::random(tokens, heads * dim, 1), x_rounded = rounded(x);
    const std::vector<float> weight = random_vector(dim, 2);
    const Normed expected = normed(x, weight, heads);
    const Normed of_rounded = normed(x_rounded, weight, heads);
    on_every_target([&](const Context& ctx) {
      std::vector<float> rstd(expected.rstd.size());
      RmsnormForward op{.rstd = vec(rstd),
                        .x = x.mat(),
                        .weight = vec(weight),
                        .eps = kEps,
                        .heads = heads,
                        .numerics = NumericsClass::kDot16};
      Matrix y(x.rows, x.cols), in_place = x;
      op.y = y.mat();
      rmsnorm_forward(ctx, op);
      EXPECT_TRUE(same_bits(y.values, expected.y.values));
      EXPECT_TRUE(same_bits(rstd, expected.rstd));
      Bf16Matrix y_bf16(x.rows, x.cols);
      op.y = y_bf16.mat();
      rmsnorm_forward(ctx, op);
      EXPECT_TRUE(same_bits(y_bf16.values(), rounded(expected.y).values));
      op.y = in_place.mat();
      op.x = in_place.mat();
      op.rstd = {};
      rmsnorm_forward(ctx, op);
      EXPECT_TRUE(same_bits(in_place.values, expected.y.values));
      Bf16Matrix both_bf16(x);
      op.y = both_bf16.mat();
      op.x = both_bf16.mat();
      op.rstd = vec(rstd);
      rmsnorm_forward(ctx, op);
      EXPECT_TRUE(same_bits(both_bf16.values(), rounded(of_rounded.y).values));
      EXPECT_TRUE(same_bits(rstd, of_rounded.rstd));
    });
  }
}

TEST(Dot16Sums, OtherClassesKeep16Lanes) {
  const Matrix x = Matrix::random(20, 576, 3);
  const std::vector<float> weight(576, 1.0f);
  std::vector<float> wide(20), chain(20), pairs(20);
  Matrix y(20, 576);
  const auto run = [&](std::vector<float>& rstd, NumericsClass numerics) {
    rmsnorm_forward({}, {.y = y.mat(),
                         .rstd = vec(rstd),
                         .x = x.mat(),
                         .weight = vec(weight),
                         .eps = kEps,
                         .numerics = numerics});
  };
  run(wide, NumericsClass::kDot16);
  run(chain, NumericsClass::kF32Chain);
  run(pairs, NumericsClass::kPairs);
  EXPECT_TRUE(same_bits(pairs, chain));
  EXPECT_FALSE(same_bits(wide, chain));
}

TEST(Dot16Sums, ResidualNormsAreTheirTwoSteps) {
  for (const auto& shape : kShapes) {
    // Named: lambdas may not capture a structured binding in clang 14.
    const int64_t tokens = shape.tokens, dim = shape.dim;
    const Matrix x = Matrix::random(tokens, dim, 4), delta = Matrix::random(tokens, dim, 5);
    const std::vector<float> weight = random_vector(dim, 6);
    Matrix h(tokens, dim);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < dim; ++i) h(t, i) = x(t, i) + delta(t, i);
    }
    const Normed expected = normed(h, weight, 1);
    on_every_target([&](const Context& ctx) {
      Matrix stream = x, y(tokens, dim);
      Bf16Matrix y_bf16(tokens, dim);
      std::vector<float> rstd(expected.rstd.size());
      RmsnormResidualForward op{.h = stream.mat(),
                                .y = y.mat(),
                                .rstd = vec(rstd),
                                .x = stream.mat(),
                                .delta = delta.mat(),
                                .weight = vec(weight),
                                .eps = kEps,
                                .numerics = NumericsClass::kDot16};
      rmsnorm_residual_forward(ctx, op);
      EXPECT_TRUE(same_bits(stream.values, h.values)) << dim;
      EXPECT_TRUE(same_bits(y.values, expected.y.values)) << dim;
      EXPECT_TRUE(same_bits(rstd, expected.rstd)) << dim;
      op.x = x.mat();
      op.y = y_bf16.mat();
      rmsnorm_residual_forward(ctx, op);
      EXPECT_TRUE(same_bits(y_bf16.values(), rounded(expected.y).values)) << dim;
    });
  }
}

struct NormGradients {
  Matrix x, dy;
  std::vector<float> weight, rstd;
  int64_t heads;

  NormGradients(const Shape& shape, bool is_bf16)
      : x(Matrix::random(shape.tokens, shape.heads * shape.dim, 7)),
        dy(Matrix::random(shape.tokens, shape.heads * shape.dim, 8)),
        weight(random_vector(shape.dim, 9)),
        heads(shape.heads) {
    if (is_bf16) x = rounded(x), dy = rounded(dy);
    rstd = normed(x, weight, heads).rstd;
  }
  /// `start`: where dx is accumulated.
  Matrix dx(const Matrix* start) const {
    const int64_t dim = x.cols / heads;
    Matrix out(x.rows, x.cols);
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t head = 0; head < heads; ++head) {
        const auto g = [&](int64_t i) {
          return dy(t, head * dim + i) * weight[static_cast<size_t>(i)];
        };
        const float c = sum_in_256_lanes(
            dim, [&](int64_t i, float acc) { return std::fma(g(i), x(t, head * dim + i), acc); });
        const float scale = rstd[static_cast<size_t>(t * heads + head)];
        const float a = c / static_cast<float>(dim) * scale * scale;
        for (int64_t i = 0; i < dim; ++i) {
          const int64_t j = head * dim + i;
          const float across = std::fma(-a, x(t, j), g(i));
          out(t, j) = start == nullptr ? across * scale : std::fma(across, scale, (*start)(t, j));
        }
      }
    }
    return out;
  }
  std::vector<float> dweight(std::vector<float> start, const std::vector<int64_t>& run_ends) const {
    const int64_t dim = x.cols / heads;
    for (int64_t i = 0; i < dim; ++i) {
      add_runs(start[static_cast<size_t>(i)], run_ends, x.rows, [&](int64_t t, float sum) {
        for (int64_t head = 0; head < heads; ++head) {
          const float scale = rstd[static_cast<size_t>(t * heads + head)];
          sum = std::fma(dy(t, head * dim + i), x(t, head * dim + i) * scale, sum);
        }
        return sum;
      });
    }
    return start;
  }
  RmsnormBackward op(std::vector<float>& dweight, const std::vector<int64_t>& run_ends) const {
    return {.dweight = vec(dweight),
            .dy = dy.mat(),
            .x = x.mat(),
            .rstd = vec(rstd),
            .weight = vec(weight),
            .heads = heads,
            .numerics = NumericsClass::kDot16,
            .run_ends = run_ends};
  }
};

TEST(Dot16Sums, GradientsOfNorms) {
  for (const Shape& shape : kShapes) {
    const int64_t tokens = shape.tokens, heads = shape.heads, dim = shape.dim;
    SCOPED_TRACE(std::to_string(heads) + " heads of " + std::to_string(dim));
    const NormGradients c(shape, false);
    const Matrix start = Matrix::random(tokens, heads * dim, 10);
    const std::vector<float> there = random_vector(dim, 11), zeros(there.size());
    const Matrix dx = c.dx(nullptr), dx_added = c.dx(&start);
    for (const std::vector<int64_t>& run_ends : runs_of(tokens)) {
      const std::vector<float> dweight = c.dweight(zeros, run_ends),
                               dweight_added = c.dweight(there, run_ends);
      on_every_target([&](const Context& ctx) {
        Matrix got = start;
        Bf16Matrix got_rounded(tokens, heads * dim);
        std::vector<float> got_dweight = there;
        RmsnormBackward op = c.op(got_dweight, run_ends);
        op.dx = got.mat();
        op.dx_rounded = got_rounded.mat();
        op.accumulate = true;
        rmsnorm_backward(ctx, op);
        EXPECT_TRUE(same_bits(got.values, dx_added.values));
        EXPECT_TRUE(same_bits(got_rounded.values(), rounded(dx_added).values));
        EXPECT_TRUE(same_bits(got_dweight, dweight_added));
        // dx in dy's place, and both overwritten.
        Matrix in_place = c.dy;
        op.dy = in_place.mat();
        op.dx = in_place.mat();
        op.dx_rounded = {};
        op.accumulate = op.accumulate_dweight = false;
        rmsnorm_backward(ctx, op);
        EXPECT_TRUE(same_bits(in_place.values, dx.values));
        EXPECT_TRUE(same_bits(got_dweight, dweight));
      });
    }
  }
}

TEST(Dot16Sums, GradientsOfBf16Norms) {
  for (const Shape& shape : kShapes) {
    const int64_t tokens = shape.tokens, heads = shape.heads, dim = shape.dim;
    SCOPED_TRACE(std::to_string(heads) + " heads of " + std::to_string(dim));
    const NormGradients c(shape, true);
    const Bf16Matrix x(c.x), dy(c.dy);
    const std::vector<float> there = random_vector(dim, 11);
    const Matrix dx = rounded(c.dx(nullptr));
    const std::vector<int64_t> run_ends = runs_of(tokens)[1];
    const std::vector<float> dweight = c.dweight(there, run_ends);
    on_every_target([&](const Context& ctx) {
      Bf16Matrix got(tokens, heads * dim);
      std::vector<float> got_dweight = there;
      RmsnormBackward op = c.op(got_dweight, run_ends);
      op.dx = got.mat();
      op.x = x.mat();
      op.dy = dy.mat();
      rmsnorm_backward(ctx, op);
      EXPECT_TRUE(same_bits(got.values(), dx.values));
      EXPECT_TRUE(same_bits(got_dweight, dweight));
    });
  }
}

TEST(Dot16Sums, NormsCutAtARunGiveTheSameBits) {
  const NormGradients c({50, 2, 300}, false);
  const std::vector<int64_t> all = {7, 20, 33, 50}, first = {7, 20}, last = {13, 30};
  const std::vector<float> there = random_vector(300, 12);
  on_every_target([&](const Context& ctx) {
    Matrix dx(50, 600), dx_cut(50, 600);
    std::vector<float> once = there, twice = there;
    RmsnormBackward op = c.op(once, all);
    op.dx = dx.mat();
    rmsnorm_backward(ctx, op);
    for (const auto& [begin, end, run_ends] : {std::tuple{0, 20, first}, {20, 50, last}}) {
      RmsnormBackward part = c.op(twice, run_ends);
      part.dx = dx_cut.mat().row_range(begin, end);
      part.x = c.x.mat().row_range(begin, end);
      part.dy = c.dy.mat().row_range(begin, end);
      part.rstd = part.rstd.part(begin * 2, (end - begin) * 2);
      rmsnorm_backward(ctx, part);
    }
    EXPECT_TRUE(same_bits(twice, once));
    EXPECT_TRUE(same_bits(dx_cut.values, dx.values));
  });
}

}  // namespace
}  // namespace orrery::kernels
