#include "experiments/sft_data.h"

#include <algorithm>
#include <atomic>

#include "actors/data_format.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace orrery::experiments {
namespace {

constexpr const char* kTrainFiles = "sft.train_files";
constexpr const char* kValFiles = "sft.val_files";

struct Document {
  std::string text;
  int64_t line = 1;  // the line of the file where it begins
};

std::vector<Document> split_documents(const std::string& text, const std::string& separator) {
  std::vector<Document> documents;
  size_t begin = 0, counted = 0;
  int64_t line = 1;
  while (begin <= text.size()) {
    const size_t end = separator.empty() ? std::string::npos : text.find(separator, begin);
    std::string document = text.substr(begin, end == std::string::npos ? end : end - begin);
    const size_t first = document.find_first_not_of(" \r\n\t");
    if (first != std::string::npos) {
      const size_t here = begin + first;
      line += std::ranges::count(std::string_view(text).substr(counted, here - counted), '\n');
      counted = here;
      documents.push_back(
          {document.substr(first, document.find_last_not_of(" \r\n\t") - first + 1), line});
    }
    if (end == std::string::npos) break;
    begin = end + separator.size();
  }
  return documents;
}

/// Raises `largest` to at least `value`. Any thread may call it.
void raise(std::atomic<int64_t>& largest, int64_t value) {
  int64_t before = largest;
  while (before < value && !largest.compare_exchange_weak(before, value)) continue;
}

}  // namespace

SftData::SftData(const proto::Config& config, const actors::Environment& env,
                 const actors::PromptSource& source, const text::Tokenizer& tokenizer,
                 const actors::CheckSetup& setup)
    : config_(config), env_(env), source_(source), tokenizer_(tokenizer) {
  const proto::SftSection& sft = config.sft();
  for (const std::string& file : sft.text_files()) read_documents(file, setup);
  if (!sft.train_files().empty()) {
    own_.emplace(kTrainFiles,
                 std::vector<std::string>(sft.train_files().begin(), sft.train_files().end()),
                 config, source, tokenizer, setup);
    for (const SftExample& example : own_->examples())
      longest_ = std::max(longest_, example.tokens());
    if (setup.tell) tell_rows();
  } else if (documents_.empty()) {
    check_demonstrations(setup);
  }
  if (sft.val_files().empty()) return;
  val_.emplace(kValFiles, std::vector<std::string>(sft.val_files().begin(), sft.val_files().end()),
               config, source, tokenizer, setup);
  for (const SftExample& example : val_->examples())
    longest_ = std::max(longest_, example.tokens());
}

void SftData::tell_rows() const {
  int64_t learned = 0, tokens = 0;
  for (const SftExample& example : own_->examples()) {
    tokens += example.tokens();
    if (example.weight > 0) learned += example.loss_tokens();
  }
  const double rows = size(), batch = config_.sft().train_batch_size();
  const double steps = config_.sft().total_training_steps();
  spdlog::info(
      "{}: {} rows of {} tokens, {} of them learned; "
      "an epoch is {:.4g} steps of {} rows, {} steps are {:.4g} epochs",
      kTrainFiles, actors::with_thousands_separators(size()),
      actors::with_thousands_separators(tokens), actors::with_thousands_separators(learned),
      rows / batch, config_.sft().train_batch_size(), config_.sft().total_training_steps(),
      steps * batch / rows);
  if (rows < batch) {
    spdlog::warn("sft.train_batch_size is {} but there are {} rows: a step has some more than once",
                 config_.sft().train_batch_size(), size());
  }
}

void SftData::read_documents(const std::string& file, const actors::CheckSetup& setup) {
  const std::string text = read_file(file);
  check_plain_text(file, text);
  actors::refuse_binary_format(text, file, "sft.text_files are plain text");
  const std::vector<Document> documents = split_documents(text, config_.sft().text_separator());
  const auto where = [&](uint64_t i) { return fmt::format("{}:{}", file, documents[i].line); };
  const int64_t limit = config_.sft().max_length();
  std::vector<std::vector<int32_t>> all(documents.size());
  Cuts cuts(documents.size());
  actors::ItemCheck check;
  check.noun = fmt::format("documents of {}", file);
  check.count = check.wanted = documents.size();
  check.skip = skips();
  check.problem = [&](uint64_t i) -> actors::ItemProblem {
    std::vector<int32_t>& tokens = all[i];
    try {
      tokens = tokenizer_.encode(documents[i].text, /*add_special_tokens=*/true);
    } catch (const Error& error) {
      return {fmt::format("{}: {}", where(i), error.what())};
    }
    if (!tokenizer_.eos_ids().empty()) tokens.push_back(tokenizer_.eos_ids().front());
    if (std::ssize(tokens) > limit) {
      cuts.add(i, std::ssize(tokens));
      tokens.resize(limit);
    }
    return {};
  };
  const actors::UsableItems usable = actors::find_usable(setup, check);
  const size_t before = documents_.size();
  for (uint64_t i = 0; i < usable.size(); ++i) {
    // A lone token has none to be predicted from.
    std::vector<int32_t>& tokens = all[usable[i]];
    if (tokens.size() < 2) continue;
    longest_ = std::max<int64_t>(longest_, std::ssize(tokens));
    documents_.push_back(std::move(tokens));
  }
  const size_t kept = documents_.size() - before;
  if (kept == 0) fail_usage("sft.text_files: {} holds no document of at least two tokens", file);
  if (!setup.tell) return;
  if (kept < usable.size()) {
    spdlog::warn("{} of {} documents of {} left out: they have fewer than two tokens",
                 actors::with_thousands_separators(usable.size() - kept),
                 actors::with_thousands_separators(documents.size()), file);
  }
  cuts.tell(check.noun.c_str(), limit, where);
}

void SftData::check_demonstrations(const actors::CheckSetup& setup) {
  const uint64_t size = env_.size(actors::Split::kTrain);
  bool any = size == 0 && env_.demonstration(0);
  for (uint64_t item = 0; item < size && !any; ++item) any = env_.demonstration(item).has_value();
  if (!any) {
    fail_usage(
        "sft.total_training_steps is {} but this environment has no demonstrations; "
        "give sft.train_files or sft.text_files, or set it to 0",
        config_.sft().total_training_steps());
  }
  const uint64_t examples = config_.sft().total_training_steps() * config_.sft().train_batch_size();
  actors::ItemCheck check;
  check.noun = size == 0 ? "generated demonstrations" : "demonstrations";
  check.count = check.wanted =
      size == 0 ? std::min(examples, actors::kGeneratedItemsChecked) : size;
  check.skip = skips();
  Cuts cuts(check.count);
  std::atomic<int64_t> longest = 0;
  check.problem = [&](uint64_t item) -> actors::ItemProblem {
    try {
      const text::ChatExample example = demonstration(item);
      actors::ItemProblem found = problem(item, example);
      const int64_t length = std::ssize(example.prompt) + std::ssize(example.response);
      if (!found.text.empty()) return found;
      if (length > config_.sft().max_length()) cuts.add(item, length);
      raise(longest, std::min(length, config_.sft().max_length()));
      return found;
    } catch (const Error& error) {
      return {fmt::format("{}: {}", env_.where(actors::Split::kTrain, item), error.what())};
    }
  };
  actors::UsableItems usable = actors::find_usable(setup, check);
  longest_ = longest;
  if (setup.tell) {
    cuts.tell(check.noun.c_str(), config_.sft().max_length(),
              [&](uint64_t item) { return env_.where(actors::Split::kTrain, item); });
  }
  if (size > 0) rows_ = std::move(usable);
}

text::ChatExample SftData::demonstration(uint64_t item) const {
  const auto teacher = env_.demonstration(item);
  if (!teacher) fail("there is no demonstration (a teacher's answer) to learn from");
  return source_.example(*env_.reset(actors::Split::kTrain, item), teacher->response);
}

actors::ItemProblem SftData::problem(uint64_t item, const text::ChatExample& example) const {
  return sft_problem(example, config_.sft().max_length(), env_.where(actors::Split::kTrain, item),
                     "the demonstration");
}

SftExample SftData::cut(text::ChatExample example) const {
  cut_example(example, config_.sft().max_length());
  return {std::move(example)};
}

uint64_t SftData::size() const {
  if (own_) return own_->examples().size();
  return documents_.empty() ? rows_.size() : documents_.size();
}

SftExample SftData::example(uint64_t index) const {
  const uint64_t count = size();
  if (count > 0) {
    const uint64_t at = actors::permuted_index(config_.seed(), index / count, count, index % count);
    if (own_) return own_->examples()[at];
    if (documents_.empty()) return cut(demonstration(rows_[at]));
    const std::vector<int32_t>& tokens = documents_[at];
    return {{{tokens.front()}, {tokens.begin() + 1, tokens.end()}, {}}};
  }
  actors::ItemProblem found;
  for (uint64_t attempt = 0; attempt < (skips() ? actors::kMaxRedraws : 1); ++attempt) {
    const uint64_t item = actors::replacement_item(index, attempt);
    text::ChatExample example = demonstration(item);
    actors::ItemProblem problem_now = problem(item, example);
    if (problem_now.text.empty()) return cut(std::move(example));
    if (attempt == 0) found = std::move(problem_now);
  }
  fail_usage("{}", found.text);
}

}  // namespace orrery::experiments
