#include "experiments/sft_stage.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/timer.h"

namespace orrery {
namespace {

std::vector<std::string> split_documents(const std::string& text, const std::string& separator) {
  std::vector<std::string> documents;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = separator.empty() ? std::string::npos : text.find(separator, begin);
    std::string document = text.substr(begin, end == std::string::npos ? end : end - begin);
    const size_t first = document.find_first_not_of(" \r\n\t");
    if (first != std::string::npos) {
      documents.push_back(document.substr(first, document.find_last_not_of(" \r\n\t") - first + 1));
    }
    if (end == std::string::npos) break;
    begin = end + separator.size();
  }
  return documents;
}

}  // namespace

SftData::SftData(const Job& job) : job_(job) {
  const proto::SftSection& sft = job.config.sft();
  const Tokenizer& tokenizer = job.tokenizer;
  for (const std::string& file : sft.text_files()) {
    for (const std::string& document : split_documents(read_file(file), sft.text_separator())) {
      std::vector<int32_t> tokens = tokenizer.encode(document, /*add_special_tokens=*/true);
      if (!tokenizer.eos_ids().empty()) tokens.push_back(tokenizer.eos_ids().front());
      if (static_cast<int64_t>(tokens.size()) > sft.max_length())
        tokens.resize(static_cast<size_t>(sft.max_length()));
      if (tokens.size() >= 2) documents_.push_back(std::move(tokens));
    }
    if (documents_.empty()) fail("sft.text_files: {} holds no document of at least two tokens", file);
  }
  if (documents_.empty() && !job.env->demonstration(0)) {
    fail_usage(
        "sft.total_training_steps is {} but this environment has no demonstrations; give sft.text_files or "
        "set it to 0",
        sft.total_training_steps());
  }
}

SftData::Example SftData::example(uint64_t index) const {
  if (!documents_.empty()) {
    const uint64_t size = documents_.size();
    const auto& tokens = documents_[permuted_index(job_.config.seed(), index / size, size, index % size)];
    return {{tokens.front()}, {tokens.begin() + 1, tokens.end()}};
  }
  const uint64_t size = job_.env->size(Split::kTrain);
  const uint64_t item =
      size == 0 ? index : permuted_index(job_.config.seed(), index / size, size, index % size);
  const auto demonstration = job_.env->demonstration(item);
  if (!demonstration) fail("item {} of the environment has no demonstration", item);
  Example example;
  example.prompt = job_.source->tokens(*job_.env->reset(Split::kTrain, item));
  example.response = job_.tokenizer.encode(demonstration->response, /*add_special_tokens=*/false);
  if (!job_.tokenizer.eos_ids().empty()) example.response.push_back(job_.tokenizer.eos_ids().front());
  const int64_t room = job_.config.sft().max_length() - static_cast<int64_t>(example.prompt.size());
  if (room < 1) {
    fail("item {}: its prompt of {} tokens leaves no room in sft.max_length {}", item, example.prompt.size(),
         job_.config.sft().max_length());
  }
  if (static_cast<int64_t>(example.response.size()) > room)
    example.response.resize(static_cast<size_t>(room));
  return example;
}

SftStage::SftStage(Job& job, Learner& learner) : job_(job), learner_(learner), data_(job) {}

std::optional<PolicyProbe> SftStage::probe() const {
  if (probe_.response.empty()) return std::nullopt;
  return PolicyProbe{probe_.prompt, probe_.response, probe_mask_, 1.0F};
}

Metrics SftStage::step(int64_t step) {
  const Timer timer;
  job_.phase(fmt::format("sft step {}", step + 1));
  const proto::SftSection& sft = job_.config.sft();
  const auto size = static_cast<size_t>(sft.train_batch_size());
  std::vector<SftData::Example> examples(size);
  std::vector<uint8_t> mask;
  int64_t total_tokens = 0;
  for (size_t i = 0; i < size; ++i) {
    examples[i] = data_.example(static_cast<uint64_t>(step) * size + i);
    total_tokens += static_cast<int64_t>(examples[i].response.size());
    if (mask.size() < examples[i].response.size()) mask.resize(examples[i].response.size(), 1);
  }
  std::vector<Tree> trees;
  trees.reserve(size);
  for (size_t i = 0; i < size; ++i) {
    Leaf leaf;
    leaf.tokens = examples[i].response;
    leaf.loss_mask = std::span(mask).first(examples[i].response.size());
    leaf.weight = aggregation_weight(LossAggMode::kTokenMean, 1, total_tokens, static_cast<int64_t>(size), 1);
    leaf.prompt_index = i;
    trees.push_back({examples[i].prompt, {}});
    trees.back().leaves.push_back(std::move(leaf));
  }
  const LrSchedule schedule = lr_schedule(sft.optim(), sft.total_training_steps());
  AdamWParams params = adamw_params(sft.optim());
  params.lr = static_cast<float>(learning_rate(schedule, step));
  Objective objective;
  objective.sft = true;
  const UpdateResult update = learner_.update(trees, objective, params, sft.optim().clip_grad());
  if (update.skipped) spdlog::warn("the gradient norm is {}: this update was skipped", update.grad_norm);

  probe_ = std::move(examples.front());
  probe_mask_.assign(probe_.response.size(), 1);
  const double seconds = timer.seconds();
  Metrics metrics;
  metrics["train/loss"] = update.sums.loss;
  metrics["train/entropy"] = update.sums.entropy / std::max(update.sums.tokens, 1.0);
  metrics["train/lr"] = update.lr;
  metrics["train/grad_norm"] = update.grad_norm;
  metrics["train/skipped_updates"] = update.skipped ? 1 : 0;
  metrics["perf/total_num_tokens"] = static_cast<double>(update.rows);
  metrics["perf/throughput"] = static_cast<double>(update.rows) / seconds / job_.learners->size();
  metrics["perf/learner_gflops_per_s"] = update.model_flops / update.gradient_seconds * 1e-9;
  metrics["timing_s/step"] = seconds;
  return metrics;
}

}  // namespace orrery
