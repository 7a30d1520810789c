#include "actors/environment.h"

#include "actors/envs/arithmetic.h"
#include "actors/envs/constraint.h"
#include "actors/envs/external.h"
#include "actors/envs/gsm8k.h"
#include "core/error.h"

namespace orrery::actors {

std::string Environment::where(Split split, uint64_t index) const {
  return fmt::format("{} item {}", split == Split::kTrain ? "training" : "held-out", index);
}

DataRow Environment::data_row(Split /*split*/, uint64_t /*index*/) const { return {}; }

std::unique_ptr<Environment> make_environment(const proto::DataSection& data, uint64_t seed) {
  switch (data.env()) {
    case proto::DataSection::ARITHMETIC:
      return make_arithmetic(data.arithmetic(), seed);
    case proto::DataSection::GSM8K:
      return make_gsm8k(data);
    case proto::DataSection::CONSTRAINT:
      return make_constraint(data.constraint(), seed);
    case proto::DataSection::EXTERNAL:
      return make_external(data);
  }
  fail_usage("data.env: unknown environment {}", int{data.env()});
}

}  // namespace orrery::actors
