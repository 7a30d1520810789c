// Ops on rows of logits: log-prob and entropy, sampling, and the LM head fused with
// them.
#include <fmt/format.h>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "core/transfer.h"
#include "kernels/lm_head.h"
#include "kernels/logprob.h"
#include "kernels/sampling.h"
#include "tests/kernels/cases/vocabulary_cases.h"

namespace orrery::bench {
namespace {

using namespace kernels::cases;

constexpr double kExpFlops = 20;                 // of the polynomial
constexpr double kLogprobFlops = kExpFlops + 6;  // a logit, with entropy
constexpr double kLogprobBackFlops = kExpFlops + 10;

template <class T>
Vec<T> vec(std::vector<T>& v) {
  return {v.data(), std::ssize(v)};
}
template <class T>
Vec<const T> vec(const std::vector<T>& v) {
  return {v.data(), std::ssize(v)};
}

/// Few tokens hold most of the probability, as a language model's do.
Buffer random_logits(int64_t count) {
  Buffer logits = random_buffer(count, 1);
  for (float& z : logits.span<float>()) z = 20.0f * z * z * z * z * z;
  return logits;
}

void run_logprob(benchmark::State& state, const Machine& machine, const LogprobCase& c,
                 bool backward) {
  const Context ctx = context_of(machine);
  const int64_t r = c.rows, vocab = c.vocab;
  const Buffer logits = random_logits(r * vocab);
  const Mat<float> mat(logits.span<float>().data(), r, vocab);
  const std::vector<int32_t> targets = random_ids(r, vocab, 2);
  const std::vector<float> inv_temperature(r, 1.0f), dlogp(r, 1e-3f), dentropy(r, 1e-4f);
  std::vector<float> logprobs(r), entropies(r), max(r), log_sum(r);
  const double bytes = as_bytes(r * vocab);
  const Cost cost{
      .flops = static_cast<double>(r * vocab) * (backward ? kLogprobBackFlops : kLogprobFlops),
      .read = bytes,
      .written = backward ? bytes : 0.0,
      .working_set = bytes};
  const auto forward = [&] {
    kernels::logprob_forward(ctx, {.logprobs = vec(logprobs),
                                   .entropies = vec(entropies),
                                   .max = vec(max),
                                   .log_sum = vec(log_sum),
                                   .logits = mat,
                                   .targets = vec(targets),
                                   .inv_temperature = vec(inv_temperature)});
  };
  forward();
  if (!backward) {
    measure(state, machine, cost, forward);
    return;
  }
  // Logits become gradients, then gradients of those: numbers of no meaning, but all
  // finite.
  measure(state, machine, cost, [&] {
    kernels::logprob_backward(ctx, {.dlogits = mat,
                                    .logits = mat,
                                    .targets = vec(targets),
                                    .max = vec(max),
                                    .log_sum = vec(log_sum),
                                    .entropies = vec(entropies),
                                    .dlogp = vec(dlogp),
                                    .dentropy = vec(dentropy),
                                    .inv_temperature = vec(inv_temperature)});
  });
}

void run_sampling(benchmark::State& state, const Machine& machine, int64_t vocab,
                  const kernels::SamplingParams& how) {
  const Context ctx = context_of(machine);
  constexpr int64_t r = kDecodeRows;
  const Buffer logits = random_logits(r * vocab);
  const std::vector<kernels::SamplingParams> params(r, how);
  std::vector<float> uniform(r);
  for (size_t i = 0; i < uniform.size(); ++i) uniform[i] = (static_cast<float>(i) + 0.5f) / r;
  std::vector<int32_t> ids(r);
  // The sum over the vocabulary needs every exponential; the largest ones only need
  // comparisons.
  const bool sums = how.temperature > 0 && how.top_k == 0 && how.min_p == 0;
  const Cost cost{.flops = static_cast<double>(r * vocab) * (sums ? kExpFlops + 3 : 1),
                  .read = as_bytes(r * vocab)};
  measure(state, machine, cost, [&] {
    kernels::sample_forward(ctx, {.ids = vec(ids),
                                  .logits = {logits.span<float>().data(), r, vocab},
                                  .params = vec(params),
                                  .uniform = vec(uniform)});
  });
}

void run_lm_head(benchmark::State& state, const Machine& machine, const LmHeadCase& c,
                 bool backward) {
  const Context ctx = context_of(machine);
  const int64_t r = c.rows, d = c.hidden, vocab = c.vocab;
  const Buffer hidden = random_buffer(r * d, 1), dhidden = random_buffer(r * d, 2);
  const Buffer plain = random_buffer(vocab * d, 3), dw = random_buffer(vocab * d, 4);
  const Buffer packed(Device{}, kernels::packed_weight_bytes(Device{}, DType::kF32, vocab, d));
  const kernels::PackedWeight w = kernels::pack_weight(
      ctx,
      {.weight = Mat<const float>(plain.span<float>().data(), vocab, d), .memory = packed.data()});
  const std::vector<int32_t> targets = random_ids(r, vocab, 5);
  const std::vector<float> inv_temperature(r, 1.0f);
  std::vector<float> logprobs(r), entropies(r);
  const std::vector<float> dlogp(r, 1e-3f), dentropy(r, 1e-4f);
  const kernels::LmHeadForward op{.hidden = Mat<const float>(hidden.span<float>().data(), r, d),
                                  .weight = w,
                                  .targets = vec(targets),
                                  .inv_temperature = vec(inv_temperature),
                                  .logprobs = vec(logprobs),
                                  .entropies = vec(entropies)};
  const auto logits = static_cast<double>(r * vocab);
  const double product = 2.0 * logits * static_cast<double>(d), weight_bytes = as_bytes(vocab * d);
  const double chunk = as_bytes(kernels::lm_head_chunk_rows(ctx.device, vocab, r) * vocab);
  Arena arena;
  if (!backward) {
    const Cost cost{.flops = product + logits * kLogprobFlops,
                    .read = weight_bytes + as_bytes(r * d),
                    .working_set = weight_bytes + as_bytes(r * d) + chunk};
    measure(state, machine, cost, [&] { kernels::lm_head_logprob(ctx, op, arena); });
    return;
  }
  const Cost cost{.flops = 3 * product + logits * (kLogprobFlops + kLogprobBackFlops),
                  .read = 2 * weight_bytes + as_bytes(r * d),
                  .written = weight_bytes + as_bytes(r * d),
                  .working_set = 2 * weight_bytes + 2 * as_bytes(r * d) + chunk};
  measure(state, machine, cost, [&] {
    kernels::LmHeadWalk walk(ctx, op, arena);
    while (const auto part = walk.next()) {
      upload(ctx, part->dlogp, Span(dlogp).first(part->dlogp.size));
      upload(ctx, part->dentropy, Span(dentropy).first(part->dentropy.size));
      walk.backward(*part, Mat<float>(dhidden.span<float>().data(), r, d),
                    Mat<float>(dw.span<float>().data(), vocab, d));
    }
  });
}

}  // namespace

void add_vocabulary_cases(const Registry& registry) {
  for (const bool backward : {false, true}) {
    const Use use = backward ? kBenchBackward : kBenchForward;
    registry.add_table(
        kLogprobCases, use,
        [=](const LogprobCase& c) {
          return fmt::format("logprob_{}/R:{}", backward ? "backward" : "forward", c.rows);
        },
        [=](benchmark::State& state, const Machine& machine, const LogprobCase& c) {
          run_logprob(state, machine, c, backward);
        });
    registry.add_table(
        kLmHeadCases, use,
        [=](const LmHeadCase& c) {
          return fmt::format("lm_head_{}/R:{}", backward ? "forward_backward" : "logprob", c.rows);
        },
        [=](benchmark::State& state, const Machine& machine, const LmHeadCase& c) {
          run_lm_head(state, machine, c, backward);
        });
  }
  for (const Sampler& sampler : kSamplers) {
    registry.add_table(
        kSamplingCases, kBenchForward,
        [=](const SamplingCase&) {
          return fmt::format("sample/{}/R:{}", sampler.name, kDecodeRows);
        },
        [=](benchmark::State& state, const Machine& machine, const SamplingCase& c) {
          run_sampling(state, machine, c.vocab, sampler.params);
        });
  }
}

}  // namespace orrery::bench
