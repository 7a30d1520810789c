#include "actors/envs/arithmetic.h"

#include <algorithm>
#include <cstdlib>

#include "actors/envs/number_scanner.h"
#include "actors/envs/plain_text.h"
#include "actors/envs/single_turn.h"
#include "actors/envs/text.h"
#include "core/error.h"
#include "core/rng.h"

namespace orrery::actors {
namespace {

constexpr uint32_t kHeldOutShare = 5;  // one pair of operands in five is held out
constexpr uint32_t kMaxDraws = 1000;

struct Problem {
  int64_t a = 0, b = 0;
  char operation = '+';
};

class Arithmetic final : public Environment {
 public:
  Arithmetic(const proto::ArithmeticSection& config, uint64_t seed) : config_(config), seed_(seed) {
    for (int64_t i = 0; i < config.digits(); ++i) limit_ *= 10;
  }

  uint64_t size(Split) const override { return 0; }

  std::unique_ptr<Episode> reset(Split split, uint64_t index) const override {
    const Problem problem = draw(split, index);
    const std::string question = config_.question_in_words() ? words(problem) : bare(problem);
    const std::string expected = answer(problem);
    const bool in_words = config_.question_in_words();
    return std::make_unique<SingleTurnEpisode>(
        question, "arithmetic",
        [expected, in_words](const std::string& response) {
          bool correct = false;
          if (in_words) {
            const auto found = last_number(plain_text(response));
            correct = found && found == read_number(expected);
          } else {
            correct = strip(response) == expected;
          }
          StepResult result;
          result.reward = correct ? 1.0f : 0.0f;
          result.extra["correct"] = correct ? 1 : 0;
          return result;
        },
        expected);
  }

  std::vector<std::string> reward_parts() const override { return {"correct"}; }

  std::optional<Demonstration> demonstration(uint64_t index) const override {
    const Problem problem = draw(Split::kTrain, index);
    const float draw = uniform_float(philox_block(seed_, RngPurpose::kData, index, 0)[0]);
    const bool flawed = draw < static_cast<float>(config_.flawed_fraction());
    return Demonstration{config_.question_in_words() ? words(problem) : bare(problem),
                         flawed ? without_carries(problem) : answer(problem)};
  }

 private:
  /// Draws the index-th problem of a split, until the pair belongs to the split.
  Problem draw(Split split, uint64_t index) const {
    for (uint32_t attempt = 0; attempt < kMaxDraws; ++attempt) {
      const auto purpose_index = index * 2 + (split == Split::kVal ? 1 : 0);
      const PhiloxBlock bits =
          philox_block(seed_, RngPurpose::kEnvironment, purpose_index, attempt);
      Problem problem;
      // At most 9 digits, so that 32 bits times the limit are below 2^63.
      problem.a = (int64_t{bits[0]} * limit_) >> 32;
      problem.b = (int64_t{bits[1]} * limit_) >> 32;
      switch (config_.operation()) {
        case proto::ArithmeticSection::ADD:
          break;
        case proto::ArithmeticSection::SUBTRACT:
          problem.operation = '-';
          break;
        case proto::ArithmeticSection::MULTIPLY:
          problem.operation = '*';
          break;
        case proto::ArithmeticSection::MIXED:
          problem.operation = "+-*"[bits[2] % 3];
          break;
      }
      const int64_t pair = problem.a * limit_ + problem.b;
      const PhiloxBlock hash =
          philox_block(seed_, RngPurpose::kShuffle, static_cast<uint64_t>(pair), 0xA717u);
      const bool held_out = hash[0] % kHeldOutShare == 0;
      if (held_out == (split == Split::kVal)) return problem;
    }
    fail("arithmetic: no {} problem found for item {}; use more digits",
         split == Split::kVal ? "held-out" : "training", index);
  }

  std::string padded(int64_t value, int64_t width) const {
    return config_.zero_pad() ? fmt::format("{:0{}}", value, width) : std::to_string(value);
  }

  std::string bare(const Problem& p) const {
    return padded(p.a, config_.digits()) + p.operation + padded(p.b, config_.digits()) + "=";
  }

  static std::string words(const Problem& p) {
    const char* sign = p.operation == '*' ? "times" : (p.operation == '+' ? "plus" : "minus");
    return fmt::format("What is {} {} {}? Answer with the number only.", p.a, sign, p.b);
  }

  std::string answer(const Problem& p) const {
    const int64_t value =
        p.operation == '+' ? p.a + p.b : (p.operation == '-' ? p.a - p.b : p.a * p.b);
    if (config_.question_in_words()) return std::to_string(value);
    if (p.operation == '+') return padded(value, config_.digits() + 1);
    if (p.operation == '*') return padded(value, 2 * config_.digits());
    if (!config_.zero_pad()) return std::to_string(value);
    return (value < 0 ? "-" : "+") + padded(std::abs(value), config_.digits());
  }

  /// The answer of a pupil who forgets every carry or borrow: digit by digit, modulo
  /// ten.
  std::string without_carries(const Problem& p) const {
    if (p.operation == '*') return answer({p.a, p.b % 10, '*'});  // only the first partial product
    int64_t result = 0, scale = 1;
    for (int64_t a = p.a, b = p.b; scale < limit_; a /= 10, b /= 10, scale *= 10) {
      const int64_t digit =
          p.operation == '+' ? (a % 10 + b % 10) % 10 : (a % 10 - b % 10 + 10) % 10;
      result += digit * scale;
    }
    if (config_.question_in_words()) return std::to_string(result);
    if (p.operation == '+') return padded(result, config_.digits() + 1);
    return config_.zero_pad() ? "+" + padded(result, config_.digits()) : std::to_string(result);
  }

  proto::ArithmeticSection config_;
  uint64_t seed_;
  int64_t limit_ = 1;
};

}  // namespace

std::unique_ptr<Environment> make_arithmetic(const proto::ArithmeticSection& config,
                                             uint64_t seed) {
  return std::make_unique<Arithmetic>(config, seed);
}

}  // namespace orrery::actors
