#include "experiments/sft_data.h"

#include <algorithm>

#include "actors/data_format.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace orrery {
namespace {

struct Document {
  std::string text;
  size_t line = 1;  // where it begins
};

std::vector<Document> split_documents(const std::string& text, const std::string& separator) {
  std::vector<Document> documents;
  size_t begin = 0, line = 1, counted = 0;
  while (begin <= text.size()) {
    const size_t end = separator.empty() ? std::string::npos : text.find(separator, begin);
    std::string document = text.substr(begin, end == std::string::npos ? end : end - begin);
    const size_t first = document.find_first_not_of(" \r\n\t");
    if (first != std::string::npos) {
      const auto at = [&text](size_t offset) { return text.begin() + static_cast<ptrdiff_t>(offset); };
      line += static_cast<size_t>(std::count(at(counted), at(begin + first), '\n'));
      counted = begin + first;
      documents.push_back({document.substr(first, document.find_last_not_of(" \r\n\t") - first + 1), line});
    }
    if (end == std::string::npos) break;
    begin = end + separator.size();
  }
  return documents;
}

/// Of some texts of which few are too long.
class Cuts {
 public:
  explicit Cuts(uint64_t count) : lengths_(count) {}
  /// Item `item` has `length` tokens and is cut. Different items by any thread.
  void add(uint64_t item, size_t length) { lengths_[item] = length; }
  void tell(const char* what, int64_t limit, const std::function<std::string(uint64_t)>& where) const {
    const auto is_cut = [](size_t length) { return length > 0; };
    const auto count = std::count_if(lengths_.begin(), lengths_.end(), is_cut);
    if (count == 0) return;
    const auto first = std::find_if(lengths_.begin(), lengths_.end(), is_cut);
    spdlog::warn("{} of {} {} are cut to sft.max_length {} tokens and lose their end; the first: {} with {}",
                 grouped(static_cast<uint64_t>(count)), grouped(lengths_.size()), what, limit,
                 where(static_cast<uint64_t>(first - lengths_.begin())), *first);
  }

 private:
  std::vector<size_t> lengths_;  // 0: not cut
};

}  // namespace

SftData::SftData(const proto::Config& config, const Environment& env, const PromptSource& source,
                 const Tokenizer& tokenizer, const CheckSetup& setup)
    : config_(config), env_(env), source_(source), tokenizer_(tokenizer) {
  for (const std::string& file : config.sft().text_files()) read_documents(file, setup);
  if (documents_.empty()) check_demonstrations(setup);
}

void SftData::read_documents(const std::string& file, const CheckSetup& setup) {
  const std::string text = read_file(file);
  refuse_binary_format(text, file, "sft.text_files are plain text");
  const std::vector<Document> documents = split_documents(text, config_.sft().text_separator());
  const auto where = [&](uint64_t i) { return fmt::format("{}:{}", file, documents[i].line); };
  const auto limit = static_cast<size_t>(config_.sft().max_length());
  std::vector<std::vector<int32_t>> all(documents.size());
  Cuts cuts(documents.size());
  ItemCheck check;
  check.noun = fmt::format("documents of {}", file);
  check.count = check.wanted = documents.size();
  check.skip = skips();
  check.problem = [&](uint64_t i) -> ItemProblem {
    std::vector<int32_t>& tokens = all[i];
    try {
      tokens = tokenizer_.encode(documents[i].text, /*add_special_tokens=*/true);
    } catch (const Error& error) {
      return {fmt::format("{}: {}", where(i), error.what())};
    }
    if (!tokenizer_.eos_ids().empty()) tokens.push_back(tokenizer_.eos_ids().front());
    if (tokens.size() > limit) {
      cuts.add(i, tokens.size());
      tokens.resize(limit);
    }
    return {};
  };
  const UsableItems usable = find_usable(setup, check);
  const size_t before = documents_.size();
  for (uint64_t i = 0; i < usable.size(); ++i) {
    // A lone token has none to be predicted from.
    if (std::vector<int32_t>& tokens = all[usable[i]]; tokens.size() >= 2)
      documents_.push_back(std::move(tokens));
  }
  const size_t kept = documents_.size() - before;
  if (kept == 0) fail_usage("sft.text_files: {} holds no document of at least two tokens", file);
  if (!setup.tell) return;
  if (kept < usable.size()) {
    spdlog::warn("{} of {} documents of {} left out: they have fewer than two tokens",
                 grouped(usable.size() - kept), grouped(documents.size()), file);
  }
  cuts.tell(check.noun.c_str(), config_.sft().max_length(), where);
}

void SftData::check_demonstrations(const CheckSetup& setup) {
  const uint64_t size = env_.size(Split::kTrain);
  bool any = size == 0 && env_.demonstration(0);
  for (uint64_t item = 0; item < size && !any; ++item) any = env_.demonstration(item).has_value();
  if (!any) {
    fail_usage(
        "sft.total_training_steps is {} but this environment has no demonstrations; give sft.text_files or "
        "set it to 0",
        config_.sft().total_training_steps());
  }
  const auto examples =
      static_cast<uint64_t>(config_.sft().total_training_steps() * config_.sft().train_batch_size());
  ItemCheck check;
  check.noun = size == 0 ? "generated demonstrations" : "demonstrations";
  check.count = check.wanted = size == 0 ? std::min(examples, kGeneratedSample) : size;
  check.skip = skips();
  Cuts cuts(check.count);
  check.problem = [&](uint64_t item) -> ItemProblem {
    try {
      const ChatExample example = demonstration(item);
      ItemProblem found = problem(item, example);
      const size_t length = example.prompt.size() + example.response.size();
      if (found.text.empty() && static_cast<int64_t>(length) > config_.sft().max_length())
        cuts.add(item, length);
      return found;
    } catch (const Error& error) {
      return {fmt::format("{}: {}", env_.where(Split::kTrain, item), error.what())};
    }
  };
  UsableItems usable = find_usable(setup, check);
  if (setup.tell) {
    cuts.tell(check.noun.c_str(), config_.sft().max_length(),
              [&](uint64_t item) { return env_.where(Split::kTrain, item); });
  }
  if (size > 0) rows_ = std::move(usable);
}

ChatExample SftData::demonstration(uint64_t item) const {
  const auto teacher = env_.demonstration(item);
  if (!teacher) fail("there is no demonstration (a teacher's answer) to learn from");
  return source_.example(*env_.reset(Split::kTrain, item), teacher->response);
}

ItemProblem SftData::problem(uint64_t item, const ChatExample& example) const {
  const auto where = [&] { return env_.where(Split::kTrain, item); };
  if (example.prompt.empty()) return {fmt::format("{}: the prompt has no tokens", where())};
  if (example.response.empty()) return {fmt::format("{}: the demonstration has no tokens", where())};
  if (static_cast<int64_t>(example.prompt.size()) < config_.sft().max_length()) return {};
  return {fmt::format("{}: the prompt has {} tokens and leaves no room for a response in sft.max_length {}",
                      where(), example.prompt.size(), config_.sft().max_length()),
          /*too_long=*/true};
}

ChatExample SftData::cut(ChatExample example) const {
  const auto room = static_cast<size_t>(config_.sft().max_length()) - example.prompt.size();
  if (example.response.size() > room) example.response.resize(room);
  return example;
}

uint64_t SftData::size() const { return documents_.empty() ? rows_.size() : documents_.size(); }

ChatExample SftData::example(uint64_t index) const {
  const uint64_t count = size();
  if (count > 0) {
    const uint64_t at = permuted_index(config_.seed(), index / count, count, index % count);
    if (documents_.empty()) return cut(demonstration(rows_[at]));
    const std::vector<int32_t>& tokens = documents_[at];
    return {{tokens.front()}, {tokens.begin() + 1, tokens.end()}};
  }
  ItemProblem found;
  for (uint64_t attempt = 0; attempt < (skips() ? kMaxRedraws : 1); ++attempt) {
    const uint64_t item = redrawn(index, attempt);
    ChatExample example = demonstration(item);
    ItemProblem problem_now = problem(item, example);
    if (problem_now.text.empty()) return cut(std::move(example));
    if (attempt == 0) found = std::move(problem_now);
  }
  fail_usage("{}", found.text);
}

}  // namespace orrery
