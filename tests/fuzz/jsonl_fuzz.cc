// Input: a JSONL file of training rows, in GSM8K's layout, MATH's or verl's. Read
// strictly and with bad rows skipped; each row's own text is then answered with itself.
// The input as a whole is a response and a ground truth, too.
#include "actors/envs/gsm8k.h"
#include "actors/envs/reward_rule.h"
#include "actors/jsonl.h"
#include "tests/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  static const fuzzing::Scratch scratch;
  const std::string text(reinterpret_cast<const char*>(data), size);
  proto::DataSection section;
  section.set_env(proto::DataSection::GSM8K);
  section.add_train_files(scratch.write("rows.jsonl", text).string());
  for (const auto rule : {proto::GSM8K, proto::MATH_BOXED}) {
    const actors::Grader grader(rule, proto::DataSection::FLEXIBLE, {text, "1/2"});
    grader.grade(text);
    grader.can_be_met(text);
  }
  for (const auto on_error : {proto::DataSection::FAIL, proto::DataSection::SKIP}) {
    section.set_on_error(on_error);
    fuzzing::accepted([&] {
      const std::unique_ptr<actors::Environment> env =
          actors::make_environment(section, /*seed=*/1);
      for (uint64_t item = 0; item < env->size(actors::Split::kTrain); ++item) {
        const std::unique_ptr<actors::Episode> episode = env->reset(actors::Split::kTrain, item);
        const std::optional<actors::Demonstration> teacher = env->demonstration(item);
        const actors::StepResult result =
            episode->step(teacher ? teacher->response : episode->prompt());
        if (!result.done || (result.reward != 0 && result.reward != 1))
          fuzzing::broken("a reward is 0 or 1");
      }
    });
  }
  return 0;
}
