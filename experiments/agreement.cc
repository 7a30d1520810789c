#include "experiments/agreement.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "config/config_values.h"
#include "core/error.h"
#include "core/file.h"
#include "core/process.h"
#include "core/sha256.h"
#include "experiments/inputs.h"
#include "experiments/on_all_ranks.h"
#include "experiments/resume_rules.h"
#include "kernels/numerics.h"

namespace orrery::experiments {
namespace {

constexpr size_t kShownFacts = 6, kShownRanks = 4, kShownText = 160;

std::string digest_of(const std::vector<Fact>& facts) {
  Sha256 hash;
  for (const Fact& fact : facts) {
    for (const std::string* text : {&fact.name, &fact.value})
      hash.update(fmt::format("{}:{}", text->size(), *text));
  }
  return hash.hex();
}

using Values = std::map<std::string, const Fact*>;

Values by_name(const std::vector<Fact>& facts) {
  Values values;
  for (const Fact& fact : facts) values[fact.name] = &fact;
  return values;
}

/// Names the facts that differ or that only one of the two has.
std::vector<std::string> differences(const Values& a, const Values& b) {
  std::vector<std::string> names;
  for (const auto& [name, fact] : a) {
    const auto it = b.find(name);
    if (it == b.end() || it->second->value != fact->value) names.push_back(name);
  }
  for (const auto& [name, fact] : b) {
    if (!a.contains(name)) names.push_back(name);
  }
  return names;
}

std::string shown(const Values& values, const std::string& name) {
  const auto it = values.find(name);
  if (it == values.end()) return "none";
  const std::string& text = it->second->shown.empty() ? it->second->value : it->second->shown;
  return text.size() > kShownText ? text.substr(0, kShownText) + "..." : text;
}

std::string rank_name(std::span<const RankFacts> ranks, size_t rank) {
  return fmt::format("rank {} on host {}", rank, ranks[rank].host);
}

}  // namespace

std::string describe_disagreement(std::span<const RankFacts> ranks) {
  std::map<std::string, size_t> votes;
  std::vector<std::string> digests;
  for (const RankFacts& rank : ranks) ++votes[digests.emplace_back(digest_of(rank.facts))];
  size_t model = 0;  // the first of the largest party
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    if (votes[digests[rank]] > votes[digests[model]]) model = rank;
  }
  std::vector<size_t> others;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (digests[rank] != digests[model]) others.push_back(rank);
  }
  if (others.empty()) return "";

  const Values expected = by_name(ranks[model].facts), found = by_name(ranks[others.front()].facts);
  const std::vector<std::string> names = differences(expected, found);
  std::string text = fmt::format("the ranks would mix two experiments: {}, unlike {}, has ",
                                 rank_name(ranks, others.front()), rank_name(ranks, model));
  for (size_t i = 0; i < std::min(names.size(), kShownFacts); ++i) {
    text += fmt::format("{}{} {} (not {})", i == 0 ? "" : ", ", names[i], shown(found, names[i]),
                        shown(expected, names[i]));
  }
  if (names.size() > kShownFacts)
    text += fmt::format(" and {} more that differ", names.size() - kShownFacts);
  for (size_t i = 1; i < std::min(others.size(), kShownRanks); ++i) {
    const std::vector<std::string> its = differences(expected, by_name(ranks[others[i]].facts));
    text += fmt::format("; {} differs too, in {}{}", rank_name(ranks, others[i]), its.front(),
                        its.size() > 1 ? " and more" : "");
  }
  if (others.size() > kShownRanks)
    text += fmt::format("; so do {} more ranks", others.size() - kShownRanks);
  return text + "; start every rank with the same program, config, overrides and files";
}

void agree(comm::Communicator& world, const std::vector<Fact>& facts) {
  if (world.size() == 1) return;
  const std::vector<std::string> digests = world.all_gather_bytes(digest_of(facts));
  const bool alike = std::all_of(digests.begin(), digests.end(), [&](const std::string& digest) {
    return digest == digests.front();
  });
  if (alike) return;
  nlohmann::json mine = {{"host", host_name()}, {"facts", nlohmann::json::array()}};
  for (const Fact& fact : facts) mine["facts"].push_back({fact.name, fact.value, fact.shown});
  std::vector<RankFacts> ranks;
  const auto texts =
      world.all_gather_bytes(mine.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  for (const std::string& text : texts) {
    const auto rank = nlohmann::json::parse(text);
    ranks.push_back({rank["host"], {}});
    for (const auto& fact : rank["facts"])
      ranks.back().facts.push_back({fact[0], fact[1], fact[2]});
  }
  const std::string text = describe_disagreement(ranks);
  throw AgreedError(text.empty() ? "the ranks' configs differ in a text that is not UTF-8" : text,
                    kExitUsage);
}

void agree_on_config(comm::Communicator& world, const std::string& command,
                     const proto::Config& config) {
  std::string kernels;
  for (const kernels::NumericsClassInfo& info : kernels::kNumericsClasses)
    kernels += fmt::format("{}{}/{}", kernels.empty() ? "" : " ", info.name, info.version);
  std::vector<Fact> facts = {{"command", command, ""}, {"kernels of version", kernels, ""}};
  for (const auto& [key, value] : config::config_values(config::config_to_yaml(config))) {
    const bool of_host = resume_rule(key) == ResumeRule::kContent || key == "sft.val_files" ||
                         key == "cluster.threads" || key == "run_dir";
    if (!of_host) facts.push_back({key, value, ""});
  }
  // run_dir is relative to where a rank was started, but several ranks write the files
  // of one checkpoint into one folder, so the absolute path is compared.
  if (command == "train") {
    facts.push_back(
        {"run_dir", std::filesystem::absolute(config.run_dir()).lexically_normal().string(), ""});
  }
  agree(world, facts);
}

void agree_on_inputs(comm::Communicator& world, std::span<const storage::InputDigest> inputs) {
  std::vector<Fact> facts;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string digest = short_digest(inputs[i].digest);
    facts.push_back({input_label(inputs, i), inputs[i].digest,
                     inputs[i].key == "model.path"
                         ? digest
                         : fmt::format("{} with {}", inputs[i].name, digest)});
  }
  agree(world, facts);
}

void agree_on_checkpoint(comm::Communicator& world, const std::filesystem::path& checkpoint) {
  std::string digest;
  try {
    digest = read_file(checkpoint / storage::kManifestHashFile).substr(0, 64);
  } catch (const Error& error) {
    digest = fmt::format("unreadable ({})", error.what());
  }
  agree(world, {{(checkpoint / storage::kManifestFile).string(), digest, ""}});
}

}  // namespace orrery::experiments
