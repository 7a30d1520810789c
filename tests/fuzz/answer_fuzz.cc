// Input: what a reward program writes on its stdout, and the same as a file of rows for
// it.
#include "actors/envs/external_protocol.h"
#include "actors/worker.h"
#include "tests/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  static const fuzzing::Scratch scratch;
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    fuzzing::accepted([&] {
      const std::vector<actors::JsonMember> members = actors::json_members(line);
      for (const actors::JsonMember& member : members) {
        if (member.value.empty()) fuzzing::broken("a member has a value");
      }
      const actors::ExternalAnswer answer = actors::read_answer(members);
      actors::ExternalRequest request;
      request.row_json = line;
      request.ground_truth_json = "null";
      request.messages_json = "[{}]";
      const std::string turns = actors::turn_json("user", answer.result.observation);
      request.turns_json = turns;
      request.response = line;
      request.state_json = answer.state_json;
      actors::json_members("{\"id\": 1, " + actors::request_rest(request));
    });
  }
  actors::LastLines lines;
  lines.add(text);
  actors::printable(lines.text(), 100);
  proto::DataSection section;
  section.set_env(proto::DataSection::EXTERNAL);
  section.set_on_error(proto::DataSection::SKIP);
  section.add_train_files(scratch.write("rows.jsonl", text).string());
  fuzzing::accepted([&] {
    const std::unique_ptr<actors::Environment> env = actors::make_environment(section, /*seed=*/1);
    for (uint64_t item = 0; item < env->size(actors::Split::kTrain); ++item) {
      env->reset(actors::Split::kTrain, item)->truth();
      env->demonstration(item);
    }
  });
  return 0;
}
