#include "experiments/reference.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "config/config.h"
#include "core/error.h"
#include "core/error_report.h"
#include "core/host_image.h"
#include "core/transfer.h"
#include "storage/checkpoint.h"
#include "storage/hf_folder.h"

namespace orrery::experiments {
namespace {

bool is_needed(const Job& job) {
  return job.config.actor().kl_loss_coef() != 0 && job.is_learner();
}

std::unique_ptr<models::Transformer> make_reference(const Job& job) {
  return std::make_unique<models::Transformer>(job.model().config(), job.ctx.device,
                                               config::compute_dtype(job.config),
                                               /*max_positions=*/0, models::kReference);
}

}  // namespace

void load_reference(Job& job, bool after_sft, const storage::TrainState& state) {
  if (!is_needed(job)) return;
  const std::filesystem::path kept = job.run_dir / "reference";
  const bool as_loaded = !after_sft && !job.config.model().from_scratch();
  const bool goes_on =
      state.rl_step > 0 && !storage::list_checkpoints(job.run_dir / "checkpoints").empty();
  if (!as_loaded && goes_on && !std::filesystem::exists(kept)) {
    fail_usage(
        "actor.kl_loss_coef is {} but was 0 when RL began in {}, so that the policy it began "
        "from was not kept: set it to 0, or begin another run with trainer.resume={} in "
        "another run_dir",
        job.config.actor().kl_loss_coef(), job.run_dir.string(), job.run_dir.string());
  }
  if (!as_loaded && !goes_on) return;
  auto reference = make_reference(job);
  const std::filesystem::path folder =
      as_loaded ? std::filesystem::path(job.config.model().path()) : kept;
  HostImage weights(job.ctx, reference->write_parameters());
  storage::load_hf_weights(job.ctx, folder, reference->config(), reference->table(),
                           weights.values());
  weights.commit();
  reference->pack(job.ctx);
  job.modules.reference = std::move(reference);
}

void keep_reference(Job& job) {
  if (job.modules.reference || !is_needed(job)) return;
  const std::filesystem::path kept = job.run_dir / "reference";
  auto reference = make_reference(job);
  HostImage weights(job.ctx, reference->write_parameters());
  download(job.ctx, weights.values(), std::as_const(job.model()).parameters());
  weights.commit();
  if (job.learners->rank() == 0) {
    std::error_code error;
    std::filesystem::remove_all(kept, error);
    if (error) fail("cannot remove {}: {}", kept.string(), system_reason(error.value()));
    storage::save_hf_folder(kept, reference->config(), reference->table(), weights.values(),
                            DType::kF32, {});
  }
  reference->pack(job.ctx);
  job.modules.reference = std::move(reference);
}

}  // namespace orrery::experiments
