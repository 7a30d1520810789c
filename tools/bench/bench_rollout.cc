#include <algorithm>

#include "core/error.h"
#include "core/timer.h"
#include "tools/bench/bench_parts.h"

namespace orrery::tools {

BenchReport bench_rollout(const BenchOptions& options, comm::Communicator& comm) {
  if (comm.size() > 1) {
    fail_usage(
        "bench rollout: {} ranks, but ranks generate apart; run it without mpirun, or bench step",
        comm.size());
  }
  bench::Limits limits(options, comm);
  const bench::Model loaded =
      bench::load(options, options.prompt_len + options.gen_len, bench::kLengths);
  const models::Transformer& model = *loaded.transformer;
  const int64_t vocab = model.config().vocab_size,
                groups = std::max<int64_t>(1, options.batch / options.samples);
  Profile profile(options.ctx.stream());
  Context ctx = options.ctx;
  ctx.profile = &profile;
  rollout::Engine engine(ctx, model, nullptr,
                         bench::engine_config(options, model.config(), options.batch));
  std::vector<double> prefill, total, decode;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const bool measured = i > 0;  // the first is a warm-up
    const Timer first;
    bench::rollout(options, engine, vocab, 0, groups, 1, 2 * i);
    const double prefill_seconds = first.seconds();
    if (measured) profile.start();
    const Timer second;
    bench::rollout(options, engine, vocab, 0, groups, options.gen_len, 2 * i + 1);
    if (!measured) continue;
    total.push_back(second.seconds());
    profile.stop();
    prefill.push_back(prefill_seconds);
    decode.push_back(total.back() - prefill_seconds);
  }
  const double prompt_tokens = groups * options.prompt_len;
  const double sequences = groups * options.samples;
  const double prefill_seconds = bench::median(prefill), seconds = bench::median(total);
  const double decode_seconds = bench::median(decode);
  BenchReport report;
  report.title =
      fmt::format("rollout: {} prompts x {} samples, {} in + {} out, {}", groups, options.samples,
                  options.prompt_len, options.gen_len, bench::layout(options, comm));
  report.note = loaded.note;
  report.figures = {{"tokens_per_s", sequences * options.gen_len / seconds},
                    {"prefill_tokens_per_s", prompt_tokens / prefill_seconds},
                    {"prefill_seconds", prefill_seconds},
                    {"total_seconds", seconds},
                    {"mfu", bench::rollout_flops(options, model.config(), groups) / seconds /
                                limits.product_peak()}};
  if (decode_seconds > 0) {
    report.figures.emplace_back("decode_tokens_per_s",
                                sequences * (options.gen_len - 1) / decode_seconds);
    report.figures.emplace_back("decode_seconds", decode_seconds);
  } else {
    // A turn's whole was no slower than the prefill measured before it: noise has
    // swallowed what was to be measured, and a rate out of it would be nonsense.
    report.note += fmt::format("{}decode is too short to be told from prefill: raise --gen-len",
                               report.note.empty() ? "" : "; ");
  }
  limits.finish(report, profile, model.memory_bytes() + engine.memory_bytes());
  return report;
}

}  // namespace orrery::tools
