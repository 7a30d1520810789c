#include <cctype>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/json_duplicates.h"
#include "experiments/model_source.h"
#include "learners/gradient.h"
#include "tools/commands.h"
#include "tools/model_options.h"

namespace orrery::tools {
namespace {

/// Ids of a file: a JSON array, or an object with "ids", or numbers separated by white
/// space or commas.
std::vector<int32_t> read_ids(const std::string& path, int64_t vocab) {
  const std::string text = read_file(path);
  std::vector<int32_t> ids;
  const auto add = [&](int64_t id) {
    if (id < 0 || id >= vocab)
      fail("{}: id {} (number {}) is outside the vocabulary of {}", path, id, ids.size(), vocab);
    ids.push_back(id);
  };
  auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_discarded()) refuse_duplicate_keys(text, path);
  if (json.is_object() && json.contains("ids")) json = json["ids"];
  if (json.is_array()) {
    for (const auto& id : json) {
      if (!id.is_number_integer()) fail("{}: {} is not a token id", path, id.dump());
      add(id.get<int64_t>());
    }
  } else {
    const char* at = text.c_str();
    while (*at != '\0') {
      if (std::isspace(static_cast<unsigned char>(*at)) != 0 || *at == ',') {
        ++at;
        continue;
      }
      char* end = nullptr;
      const long long id = std::strtoll(at, &end, 10);
      if (end == at)
        fail("{}: \"{:.20}\" is not a token id; give a JSON array or numbers", path, at);
      add(id);
      at = end;
    }
  }
  if (ids.size() < 2) fail("{}: at least two ids are needed", path);
  return ids;
}

int logprobs(const ModelOptions& options, const std::string& path, double temperature, bool json) {
  const Context ctx = options.context();
  const experiments::ModelSource source(options.folder, "--model");
  const text::Tokenizer tokenizer = source.tokenizer();
  const models::ModelConfig config = source.config();
  const std::vector<int32_t> ids = read_ids(path, config.vocab_size);
  if (std::ssize(ids) > config.max_position_embeddings) {
    fail("{}: {} ids, but the model handles {} positions", path, ids.size(),
         config.max_position_embeddings);
  }
  const std::unique_ptr<models::Transformer> model =
      source.transformer(ctx, tokenizer, options.compute_dtype(), 0);
  const std::vector<uint8_t> mask(ids.size() - 1, 1);
  learners::Tree tree{std::span(ids).first(1), {}};
  tree.leaves.emplace_back();
  tree.leaves.front().tokens = std::span(ids).subspan(1);
  tree.leaves.front().loss_mask = mask;
  learners::MicroBatch batch;
  learners::append_tree(batch, tree);
  std::vector<float> logp(mask.size()), entropy(mask.size());
  Arena arena(ctx.device);
  learners::batch_logprobs(ctx, *model, temperature, batch, logp, entropy, arena);
  double sum = 0;
  for (const float value : logp) sum += value;
  if (json) {
    const nlohmann::ordered_json row = {
        {"ids", ids}, {"logprobs", logp}, {"entropies", entropy}, {"sum", sum}};
    std::printf("%s\n", row.dump().c_str());
  } else {
    std::printf("%8s %8s %14s %10s  token\n", "position", "id", "logprob", "entropy");
    for (size_t i = 0; i < logp.size(); ++i) {
      const std::string token(tokenizer.id_to_token(ids[i + 1]));
      std::printf("%8zu %8d %14.8f %10.6f  %s\n", i + 1, ids[i + 1], logp[i], entropy[i],
                  token.c_str());
    }
    std::printf("sum %.6f, mean %.6f, perplexity %.4f\n", sum, sum / logp.size(),
                std::exp(-sum / logp.size()));
  }
  return kExitOk;
}

}  // namespace

void add_logprobs_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand(
      "logprobs", "Log-probability of each token given those before it, by the learner's forward");
  command->footer(
      "Example:\n  echo '[1, 80, 147, 201, 282, 57]' > ids.json\n"
      "  orrery logprobs --model models/tinystories-656k --ids ids.json --json");
  auto options = std::make_shared<ModelOptions>();
  auto path = std::make_shared<std::string>();
  auto temperature = std::make_shared<double>(1.0);
  auto json = std::make_shared<bool>(false);
  options->add_to(*command);
  command->add_option("--ids", *path, "File with token ids: a JSON array, or numbers")->required();
  command->add_option("--temperature", *temperature, "Of the distribution (1)")
      ->check(number_in(1e-3, 100));
  command->add_flag("--json", *json,
                    "Print one JSON object: logprobs[i] = log p(ids[i + 1] | ids[0 .. i])");
  command->callback(
      [=, &run] { run = [=] { return logprobs(*options, *path, *temperature, *json); }; });
}

}  // namespace orrery::tools
