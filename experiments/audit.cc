#include "experiments/audit.h"

#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/transfer.h"
#include "experiments/inputs.h"
#include "kernels/logprob.h"
#include "kernels/sampling.h"
#include "learners/batch.h"
#include "learners/loss_sums.h"
#include "models/transformer.h"
#include "rollout/engine.h"

namespace orrery::experiments {
namespace {

/// Rows of logits at once.
constexpr int64_t kRows = 256;
/// Rows whose activations are in memory at once, unless one sample has more: a group's
/// samples are cut into trees, which changes no bit of them.
constexpr int64_t kTreeRows = 8192;

/// The device on which this CPU computes in a class, and the type of its matrices.
struct Arithmetic {
  Device device;
  DType dtype;
};

Arithmetic arithmetic_of(const rollout::Fingerprint& fingerprint, const std::string& name) {
  for (const Arithmetic& a : {Arithmetic{{}, DType::kF32}, Arithmetic{{}, DType::kBF16},
                              Arithmetic{{.bf16 = Bf16Sums::kDot16}, DType::kBF16}}) {
    const rollout::Fingerprint ours = rollout::fingerprint_of(a.device, a.dtype);
    if (ours.numerics != fingerprint.numerics) continue;
    if (ours == fingerprint) return a;
    fail(
        "{}: samples are of numerics {} and this program computes {}: audit them with the "
        "program that drew them",
        name, rollout::fingerprint_text(fingerprint), rollout::fingerprint_text(ours));
  }
  fail("{}: samples are of numerics {}, which this program does not compute: it has {}", name,
       rollout::fingerprint_text(fingerprint), rollout::numerics_class_names());
}

/// What a token's row of logits says again.
struct Again {
  std::vector<int32_t> ids;
  std::vector<float> logprobs, entropies;
};

class Auditor {
 public:
  Auditor(const rollout::RolloutFile& file, const std::string& name, const ModelSource& source,
          const AuditOptions& options)
      : file_(file), name_(name), source_(source), options_(options) {}

  AuditReport run() {
    if (!file_.drawn) {
      fail(
          "{}: it does not say how its samples were drawn (it is of an older program, or was "
          "written by another): there is nothing to audit",
          name_);
    }
    choose();
    if (chosen_.empty()) fail("{}: it holds no samples", name_);
    set_up(chosen_.front().front()->fingerprint);
    int64_t all = 0;
    for (const auto& group : chosen_) all += std::ssize(group);
    for (const auto& group : chosen_) {
      audit_group(group);
      report_.samples += std::ssize(group);
      if (options_.progress) options_.progress(report_.samples, all);
    }
    if (report_.tokens == 0) {
      fail(
          "{}: none of its {} tokens was drawn from the policy (loss_mask is 0): there is nothing "
          "to audit",
          name_, report_.not_drawn);
    }
    return std::move(report_);
  }

 private:
  using SampleGroup = std::vector<const rollout::Trajectory*>;

  /// Of all samples every n-th, by group.
  void choose() {
    int64_t all = 0;
    for (const rollout::Group& group : file_.groups) all += std::ssize(group.samples);
    const int64_t wanted = options_.samples > 0 ? std::min(options_.samples, all) : all;
    int64_t at = 0, taken = 0;
    for (const rollout::Group& group : file_.groups) {
      SampleGroup chosen;
      for (const rollout::Trajectory& sample : group.samples) {
        // The k-th is taken where k wanted / all passes a whole number.
        if (++at * wanted / std::max<int64_t>(all, 1) > taken) {
          chosen.push_back(&sample);
          ++taken;
        }
      }
      if (!chosen.empty()) chosen_.push_back(std::move(chosen));
    }
  }

  void set_up(const rollout::Fingerprint& fingerprint) {
    for (const auto& group : chosen_) {
      for (const rollout::Trajectory* sample : group) {
        if (sample->fingerprint == fingerprint) continue;
        fail(
            "{}: samples are of numerics {} and {}: actors of two classes made it, and a file is "
            "audited in one",
            name_, rollout::fingerprint_text(fingerprint),
            rollout::fingerprint_text(sample->fingerprint));
      }
    }
    const auto [device, dtype] = arithmetic_of(fingerprint, name_);
    report_.numerics = rollout::fingerprint_text(fingerprint);
    ctx_ = {.device = device, .threads = options_.threads};
    arena_ = std::make_unique<Arena>(device);
    const text::Tokenizer tokenizer = source_.tokenizer();
    model_ = source_.transformer(ctx_, tokenizer, dtype, 0);
    const std::string weights = weights_input(ctx_, model_->parameters()).digest;
    if (weights == file_.drawn->weights) return;
    fail(
        "{}: its samples were drawn from the weights of step {} ({}), and {} holds others ({}): "
        "give the checkpoint of that step",
        name_, file_.drawn->weight_version, file_.drawn->weights, source_.name(), weights);
  }

  void audit_group(const SampleGroup& group) {
    const int64_t vocab = model_->config().vocab_size,
                  positions = model_->config().max_position_embeddings;
    std::vector<learners::Leaf> leaves;
    for (const rollout::Trajectory* sample : group) {
      check_tokens(*sample, vocab, positions);
      learners::Leaf& leaf = leaves.emplace_back();
      leaf.tokens = sample->tokens;
      leaf.loss_mask = sample->loss_mask;
      report_.not_drawn += std::ssize(sample->tokens) - leaf.loss_tokens();
    }
    size_t first = 0;  // sample of a tree: make_trees keeps the order
    for (learners::Tree& tree :
         learners::make_trees(group.front()->prompt_tokens, std::move(leaves), kTreeRows)) {
      const SampleGroup samples(group.begin() + first, group.begin() + first + tree.leaves.size());
      first += tree.leaves.size();
      audit_tree(tree, samples);
    }
  }

  void audit_tree(learners::Tree& tree, const SampleGroup& group) {
    learners::MicroBatch batch;
    learners::append_tree(batch, tree);
    if (batch.loss_rows.empty()) return;  // the environment wrote all of them
    const Again again = compute(batch, tree, group);
    size_t at = 0;
    for (const auto& [leaf, token] : batch.loss_rows) {
      const rollout::Trajectory& sample = *group[leaf - tree.leaves.data()];
      compare(sample, token, again, at++);
    }
  }

  void check_tokens(const rollout::Trajectory& sample, int64_t vocab, int64_t positions) const {
    const auto fail_sample = [&](const std::string& what) {
      fail("{}: prompt {} sample {} {}: the file is damaged, or is no record of this model", name_,
           sample.prompt_index, sample.sample_index, what);
    };
    for (const auto* tokens : {&sample.prompt_tokens, &sample.tokens}) {
      for (const int32_t id : *tokens) {
        if (id < 0 || id >= vocab)
          fail_sample(fmt::format("has token {} outside the vocabulary of {}", id, vocab));
      }
    }
    const int64_t length = std::ssize(sample.prompt_tokens) + std::ssize(sample.tokens);
    if (length > positions)
      fail_sample(fmt::format("has {} tokens of at most {}", length, positions));
  }

  Again compute(const learners::MicroBatch& batch, const learners::Tree& tree,
                const SampleGroup& group) {
    const kernels::SamplingParams& sampling = file_.drawn->sampling;
    const int64_t rows = std::ssize(batch.loss_rows);
    std::vector<float> uniforms;
    for (const auto& [leaf, token] : batch.loss_rows) {
      const rollout::Trajectory& sample = *group[leaf - tree.leaves.data()];
      uniforms.push_back(rollout::sample_uniform(file_.drawn->seed, sample.step,
                                                 sample.prompt_index, sample.sample_index,
                                                 static_cast<uint32_t>(token)));
    }
    Again again;
    again.ids.resize(rows), again.logprobs.resize(rows), again.entropies.resize(rows);
    const ArenaScope scope(*arena_);
    const ActMat hidden =
        arena_->act_mat(model_->compute_dtype(), rows, model_->config().hidden_size);
    const models::BatchPlan plan = models::plan_training(ctx_, *model_, batch.view(), *arena_);
    models::transformer_forward_train(ctx_, *model_, plan, hidden, *arena_);
    for (int64_t begin = 0; begin < rows; begin += kRows) {
      const int64_t count = std::min(kRows, rows - begin);
      const ArenaScope chunk(*arena_);
      const Mat<float> logits = arena_->mat<float>(count, model_->config().vocab_size);
      models::lm_head_forward(ctx_, *model_, logits, hidden.row_range(begin, begin + count));
      const std::vector<kernels::SamplingParams> params(count, sampling);
      // As the engine records it: a greedy draw's log-prob is that of temperature 1.
      const std::vector<float> inverse(
          count, sampling.temperature == 0 ? 1.0f : 1.0f / sampling.temperature);
      const Vec<int32_t> ids(arena_->alloc<int32_t>(count), count);
      const Vec<float> logprobs(arena_->alloc<float>(count), count),
          entropies(arena_->alloc<float>(count), count);
      kernels::sample_forward(
          ctx_, {.ids = ids,
                 .logits = logits,
                 .params = upload_into(ctx_, *arena_, Span<const kernels::SamplingParams>(params)),
                 .uniform = upload_into(ctx_, *arena_,
                                        Span<const float>(uniforms).subspan(begin, count))});
      kernels::logprob_forward(
          ctx_, {.logprobs = logprobs,
                 .entropies = entropies,
                 .logits = logits,
                 .targets = upload_into(ctx_, *arena_,
                                        Span<const int32_t>(batch.targets).subspan(begin, count)),
                 .inv_temperature = upload_into(ctx_, *arena_, Span<const float>(inverse)),
                 .numerics = kernels::numerics_class(ctx_.device, model_->compute_dtype())});
      download(ctx_, Span<int32_t>(again.ids).subspan(begin, count), ids);
      download(ctx_, Span<float>(again.logprobs).subspan(begin, count), logprobs);
      download(ctx_, Span<float>(again.entropies).subspan(begin, count), entropies);
    }
    return again;
  }

  void compare(const rollout::Trajectory& sample, int64_t token, const Again& again, size_t at) {
    ++report_.tokens;
    std::string what;
    if (again.ids[at] != sample.tokens[token]) {
      what = fmt::format("it is {}, and the weights, the seed and the sampling draw {}",
                         sample.tokens[token], again.ids[at]);
    } else if (!learners::same_bits(again.logprobs[at], sample.logprobs[token])) {
      what = fmt::format("its log-prob is {:.9g}, recomputed {:.9g}", sample.logprobs[token],
                         again.logprobs[at]);
    } else if (!learners::same_bits(again.entropies[at], sample.entropies[token])) {
      what = fmt::format("its entropy is {:.9g}, recomputed {:.9g}", sample.entropies[token],
                         again.entropies[at]);
    } else if (sample.weight_versions[token] != file_.drawn->weight_version) {
      what = fmt::format("it says weights of step {}, and the file step {}",
                         sample.weight_versions[token], file_.drawn->weight_version);
    } else {
      return;
    }
    ++report_.differing;
    const AuditFinding finding{sample.prompt_index, sample.sample_index, token, std::move(what)};
    const auto place = [](const AuditFinding& f) {
      return std::tuple(f.prompt_index, f.sample_index, f.position);
    };
    if (!report_.first || place(finding) < place(*report_.first)) report_.first = finding;
  }

  const rollout::RolloutFile& file_;
  const std::string& name_;
  const ModelSource& source_;
  const AuditOptions& options_;
  std::vector<SampleGroup> chosen_;
  Context ctx_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<models::Transformer> model_;
  AuditReport report_;
};

}  // namespace

AuditReport audit(const rollout::RolloutFile& file, const std::string& name,
                  const ModelSource& source, const AuditOptions& options) {
  return Auditor(file, name, source, options).run();
}

}  // namespace orrery::experiments
