// Which modules a learner takes.
#include "learners/learner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/learners/tiny_model.h"
#include "tests/support/scratch.h"

namespace orrery::learners {
namespace {

using testing::HasSubstr;
using testing_support::error_of;
using testing_support::test_context;
using testing_support::tiny_config;

TEST(Learner, TrainsTrainableModulesAndComparesWithFrozenOnes) {
  const Context ctx = test_context();
  const auto comm = comm::make_local_communicator();
  models::Transformer policy(tiny_config("llama"), ctx.device, DType::kF32),
      reference(tiny_config("llama"), ctx.device, DType::kF32, 0, models::kReference);
  const LearnerConfig config{1, 64, false};
  EXPECT_THAT(error_of([&] { Learner(ctx, reference, *comm, config); }),
              HasSubstr("a learner of the module 'reference', which is not trainable"));
  Learner learner(ctx, policy, *comm, config);
  learner.set_reference(&reference);
  learner.set_reference(nullptr);
  EXPECT_THAT(error_of([&] { learner.set_reference(&policy); }),
              HasSubstr("the module 'policy' as a reference, and it is trainable"));
}

TEST(Learner, IsOfTheRanksOfItsMesh) {
  const Context ctx = test_context();
  const auto comm = comm::make_local_communicator();
  models::Transformer policy(tiny_config("llama"), ctx.device, DType::kF32);
  const LearnerConfig of_two{2, 64, false, comm::Mesh({{comm::Axis::kDp, 2}})};
  EXPECT_THAT(error_of([&] { Learner(ctx, policy, *comm, of_two); }),
              HasSubstr("a mesh of 2 for 1 rank(s)"));
}

}  // namespace
}  // namespace orrery::learners
