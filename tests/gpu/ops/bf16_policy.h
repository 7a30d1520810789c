// The policy of the class dot16-rz25, gradients of logits in bf16, and the head.
#pragma once

#include "tests/gpu/ops/bf16_products.h"
#include "tests/gpu/ops/bf16_rows.h"

namespace orrery::ops_check {

/// Vocabularies of a part of a block of 128 tokens, of some blocks, and of more than a
/// GPU's threads take at a time. The maximum of a row's blocks rises, falls or stays.
inline constexpr LogprobCase kDot16Policies[] = {
    {{"two_tokens", kOracle}, 7, 2},           {{"five_tokens", kOracle}, 9, 5, 3.0f},
    {{"eight_tokens", kOracle}, 6, 8, 8.0f},   {{"block_less_one", kOracle}, 9, 127, 4.0f},
    {{"one_block", kOracle}, 9, 128, 2.0f},    {{"block_and_one", kOracle}, 9, 129, 4.0f},
    {{"some_blocks", kOracle}, 12, 900, 6.0f}, {{"piece", kOracle}, 6, 4096, 3.0f},
    {{"piece_and_one", kOracle}, 6, 4097},     {{"pieces", kOracle}, 6, 13001, 5.0f},
};

/// Logits of which some blocks are -inf, in a row all, and some are far from the
/// largest, +inf or NaN.
inline std::vector<float> policy_edges(const LogprobCase& c) {
  std::vector<float> values;
  Philox rng(c.seed + 1, RngPurpose::kTest);
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t j = 0; j < c.vocab; ++j) {
      const float x = rng.normal();
      const float edges[] = {-INFINITY, -3e38f, x * 1e4f, x * 100.0f, x, x, x, -0.0f};
      float value = edges[rng.below(8)];
      if ((j / 128 + r) % 3 == 0) value = -INFINITY;
      if (r % 6 == 1) value = -INFINITY;
      if (r % 6 == 2 && rng.below(500) == 0) value = INFINITY;
      if (r % 6 == 3 && rng.below(500) == 0) value = NAN;
      if (r % 6 == 4) value = j % 128 == 5 ? 0.0f : -0.0f;
      if (r % 6 == 5) value = j < 128 ? NAN : -INFINITY;
      values.push_back(value);
    }
  }
  return values;
}

template <class B>
void run_in_bf16(Arrays& a, const LogprobCase& c) {
  const Vec<const int32_t> targets = a.ids("targets", scattered_ids(c.rows, c.vocab));
  const Vec<float> max = a.vec("max", c.rows), log_sum = a.vec("log_sum", c.rows),
                   entropies = a.vec("entropies", c.rows), logprobs = a.vec("logprobs", c.rows);
  std::vector<float> inverses, dlogps, dentropies;
  for (int64_t r = 0; r < c.rows; ++r) {
    inverses.push_back(std::array{1.0f, 1.25f, 0.5f, 1e6f, 1.0f / 0.7f}[r % 5]);
    dlogps.push_back(std::array{0.7f, 0.0f, -1.3f}[r % 3]);
    dentropies.push_back(std::array{0.01f, 0.0f}[r % 2]);
  }
  const Vec<float> inv_temperature = a.of("inv_temperature", inverses),
                   dlogp = a.of("dlogp", dlogps), dentropy = a.of("dentropy", dentropies);
  const auto compute = [&](const Mat<float>& logits) {
    LogprobForward op{.logprobs = logprobs,
                      .entropies = entropies,
                      .max = max,
                      .log_sum = log_sum,
                      .logits = logits,
                      .targets = targets,
                      .inv_temperature = inv_temperature,
                      .numerics = NumericsClass::kDot16};
    B::logprob_forward(a.ctx(), op);
    a.step("logprob_forward dot16");
    for (const bool with_entropy : {true, false}) {
      B::logprob_backward(a.ctx(), {.dlogits = a.bf16_mat("dlogits", c.rows, c.vocab, 3),
                                    .logits = logits,
                                    .targets = targets,
                                    .max = max,
                                    .log_sum = log_sum,
                                    .entropies = entropies,
                                    .dlogp = dlogp,
                                    .dentropy = with_entropy ? dentropy : Vec<float>(),
                                    .inv_temperature = inv_temperature});
      a.step("logprob_backward bf16");
    }
    op.entropies = op.max = op.log_sum = {};
    // What no token could be drawn for has the target -1.
    op.targets = a.ids("no_targets", std::vector<int32_t>(c.rows, -1));
    B::logprob_forward(a.ctx(), op);
    a.step("logprob_forward dot16");
  };
  for (const int64_t padding : {0, 1}) {
    const int64_t stride = c.vocab + padding;
    std::vector<float> values;
    Philox rng(c.seed + static_cast<uint64_t>(padding), RngPurpose::kTest);
    for (int64_t r = 0; r < c.rows; ++r) {
      const float slope = std::array{0.0f, 0.05f, -0.05f}[r % 3];
      for (int64_t j = 0; j < stride; ++j)
        values.push_back(c.scale * rng.normal() + slope * static_cast<float>(j));
    }
    compute({a.of("logits", values).data, c.rows, c.vocab, stride});
  }
  compute({a.of("edges", policy_edges(c)).data, c.rows, c.vocab});
}

/// The head's parts in bf16. The logits are not compared.
template <class B>
void run_in_bf16(Arrays& a, const LmHeadCase& c) {
  const PackedWeight weight = pack_bf16<B>(a, a.mat("weight", c.vocab, c.hidden));
  const Mat<Bf16> hidden = a.bf16_mat("hidden", c.rows, c.hidden);
  const Vec<float> logprobs = a.vec("logprobs", c.rows), entropies = a.vec("entropies", c.rows);
  const Mat<float> logits(static_cast<float*>(a.bytes(c.rows * c.vocab * 4)), c.rows, c.vocab);
  B::matmul_forward(a.ctx(), {.y = logits, .x = hidden, .weight = weight});
  B::logprob_forward(a.ctx(), {.logprobs = logprobs,
                               .entropies = entropies,
                               .logits = logits,
                               .targets = a.ids("targets", scattered_ids(c.rows, c.vocab)),
                               .inv_temperature = a.constant("inv_temperature", c.rows, 1.25f),
                               .numerics = NumericsClass::kDot16});
  a.step("lm_head_logprob dot16");
}

}  // namespace orrery::ops_check
