#include "actors/envs/external.h"

#include <array>
#include <chrono>

#include "actors/envs/external_protocol.h"
#include "actors/envs/row_files.h"
#include "actors/envs/row_prompt.h"
#include "actors/jsonl.h"
#include "actors/worker.h"
#include "actors/worker_pool.h"
#include "core/error.h"

namespace orrery::actors {
namespace {

constexpr std::array kPromptKeys = {"prompt", "messages", "question", "problem"};
constexpr std::array kSolutionKeys = {"response", "solution"};
constexpr std::chrono::milliseconds kLongWait{1000};
/// How long a program that cannot run takes to fail three times.
constexpr std::chrono::milliseconds kTrial{1500};
constexpr size_t kShownResponse = 60;

struct Row {
  std::string line;  // JSON, as it stands in the file
  std::string messages_json, ground_truth_json = "null";
  RowPrompt prompt;
  std::string data_source = "external", truth, where;
  std::optional<std::string> solution;  // a teacher's answer
};

/// A JSON value for people to read: a text comes without its quotes.
std::string plain(std::string_view json) {
  if (json == "null") return "";
  return json.starts_with('"') ? nlohmann::json::parse(json).get<std::string>() : std::string(json);
}

/// The ground truth's JSON: in verl's place for it, else under the row's own key, else
/// under the key that GSM8K and MATH have for it.
std::string_view ground_truth_of(const std::vector<JsonMember>& members) {
  const JsonMember* model = find_member(members, "reward_model");
  if (model != nullptr && model->value.starts_with('{')) {
    const JsonMember* truth = nullptr;
    const std::vector<JsonMember> inside = json_members(model->value);
    if ((truth = find_member(inside, "ground_truth")) != nullptr) return truth->value;
  }
  for (const char* key : {"ground_truth", "answer"}) {
    if (const JsonMember* truth = find_member(members, key)) return truth->value;
  }
  return "null";
}

Row parse_row(const nlohmann::json& object, const std::string& where, std::string_view line) {
  Row row;
  row.where = where;
  row.line = json_trimmed(line);
  const std::vector<JsonMember> members = json_members(row.line);
  const JsonMember* asked = nullptr;
  for (const char* key : kPromptKeys) {
    if (asked == nullptr) asked = find_member(members, key);
  }
  if (asked == nullptr) {
    fail("{}: no prompt: none of the keys \"prompt\", \"messages\", \"question\" and \"problem\"",
         where);
  }
  row.prompt = row_prompt(object, asked->key, row.line, where);
  row.messages_json = asked->value.starts_with('[')
                          ? std::string(asked->value)
                          : fmt::format(R"([{{"role": "user", "content": {}}}])", asked->value);
  if (object.contains("data_source") && !object["data_source"].is_null()) {
    row.data_source = json_string(object, "data_source", where);
  }
  row.ground_truth_json = ground_truth_of(members);
  row.truth = plain(row.ground_truth_json);
  for (const char* key : kSolutionKeys) {
    const auto found = object.find(key);
    if (!row.solution && found != object.end() && found->is_string())
      row.solution = found->get<std::string>();
  }
  return row;
}

/// The worker pool, which is made when it is first used.
class Pool {
 public:
  explicit Pool(const proto::ExternalSection& section)
      : config_{section.command(), section.workers(), section.timeout_s(),
                section.start_timeout_s(), section.retries()} {}
  WorkerPool& get() {
    if (!pool_) pool_ = std::make_unique<WorkerPool>(config_);
    return *pool_;
  }
  WorkerPool* if_made() { return pool_.get(); }

 private:
  WorkerPoolConfig config_;
  std::unique_ptr<WorkerPool> pool_;
};

class ExternalEpisode final : public Episode {
 public:
  ExternalEpisode(const Row& row, Split split, const SampleId& id, Pool& pool)
      : row_(row), split_(split), id_(id), pool_(pool) {}

  const std::vector<text::ChatMessage>& messages() const override { return row_.prompt.messages; }
  const text::OrderedJson& tools() const override { return row_.prompt.tools; }
  const std::string& prompt() const override { return row_.prompt.text; }
  const std::string& data_source() const override { return row_.data_source; }
  std::string truth() const override { return row_.truth; }

  StepResult step(const std::string& response) override {
    submit(response, 0);
    for (;;) {
      if (auto result = try_result()) return *result;
      pool_.get().poll(kLongWait);
    }
  }

  void submit(const std::string& response, int64_t tokens_left) override {
    ExternalRequest request;
    request.episode = fmt::format("{}/{}/{}/{}", split_ == Split::kTrain ? "train" : "val",
                                  id_.step, id_.prompt_index, id_.sample_index);
    request.split = split_;
    request.turn = turn_;
    request.row_json = row_.line;
    request.ground_truth_json = row_.ground_truth_json;
    request.data_source = row_.data_source;
    request.prompt = row_.prompt.text;
    request.messages_json = row_.messages_json;
    request.turns_json = turns_;
    request.response = response;
    request.tokens_left = tokens_left;
    request.state_json = state_;
    response_ = response;
    answer_ = std::make_shared<ExternalAnswer>();
    request_ = pool_.get().submit(
        request_rest(request),
        [answer = answer_](const std::vector<JsonMember>& members) {
          *answer = read_answer(members);
        },
        fmt::format("{} (episode {}, response \"{}\")", row_.where, request.episode,
                    printable(response, kShownResponse)));
  }

  std::optional<StepResult> try_result() override {
    ORRERY_CHECK(request_ != nullptr, "no turn of {} was submitted", row_.where);
    if (request_->state == WorkerPool::State::kInWork) return std::nullopt;
    const bool dropped = request_->state == WorkerPool::State::kDropped;
    request_.reset();
    if (dropped) {
      StepResult none;
      none.dropped = true;
      return none;
    }
    if (!answer_->result.done) {
      ++turn_;
      turns_ += turn_json("assistant", response_) + turn_json("user", answer_->result.observation);
      state_ = std::move(answer_->state_json);
    }
    return std::move(answer_->result);
  }

 private:
  const Row& row_;
  Split split_;
  SampleId id_;
  Pool& pool_;
  int turn_ = 0;
  std::string turns_, state_ = "null", response_;
  std::shared_ptr<ExternalAnswer> answer_;  // of the request, which may outlive the episode
  std::shared_ptr<const WorkerPool::Request> request_;
};

class External final : public Environment {
 public:
  explicit External(const proto::DataSection& data)
      : rows_(data, "external", parse_row), pool_(data.external()) {}

  uint64_t size(Split split) const override { return rows_.of(split).size(); }

  std::unique_ptr<Episode> reset(Split split, uint64_t index) const override {
    return begin(split, index, {});
  }
  std::unique_ptr<Episode> begin(Split split, uint64_t index, const SampleId& id) const override {
    return std::make_unique<ExternalEpisode>(row(split, index), split, id, pool_);
  }

  std::string where(Split split, uint64_t index) const override { return row(split, index).where; }
  DataRow data_row(Split split, uint64_t index) const override {
    return data_row_at(row(split, index).where);
  }

  std::optional<Demonstration> demonstration(uint64_t index) const override {
    const auto& train = rows_.of(Split::kTrain);
    if (index >= train.size() || !train[index].solution) return std::nullopt;
    return Demonstration{train[index].prompt.text, *train[index].solution};
  }

  void warm_up() const override { pool_.get().warm_up(); }
  void check_starts() const override {
    const auto end = std::chrono::steady_clock::now() + kTrial;
    while (std::chrono::steady_clock::now() < end) {
      pool_.get().warm_up();
      pool_.get().poll(std::chrono::milliseconds(20));
    }
  }
  bool poll(std::chrono::milliseconds timeout) const override { return pool_.get().poll(timeout); }
  void cancel() const override {
    if (WorkerPool* pool = pool_.if_made()) pool->cancel();
  }
  std::string take_failure_text() const override {
    WorkerPool* pool = pool_.if_made();
    return pool != nullptr ? pool->take_failure_text() : "";
  }

 private:
  const Row& row(Split split, uint64_t index) const {
    const auto& all = rows_.of(split);
    if (index >= all.size()) {
      fail("item {}: data.{} has {} rows", index,
           split == Split::kVal ? "val_files" : "train_files", all.size());
    }
    return all[index];
  }

  RowFiles<Row> rows_;
  mutable Pool pool_;
};

}  // namespace

std::unique_ptr<Environment> make_external(const proto::DataSection& data) {
  return std::make_unique<External>(data);
}

}  // namespace orrery::actors
