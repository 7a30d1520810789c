#include "rollout/draw_record.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace orrery::rollout {

std::string draw_record_text(const DrawRecord& record) {
  // A float as a double and back is the same float.
  const nlohmann::ordered_json object = {{"seed", record.seed},
                                         {"temperature", double{record.sampling.temperature}},
                                         {"top_k", record.sampling.top_k},
                                         {"top_p", double{record.sampling.top_p}},
                                         {"min_p", double{record.sampling.min_p}},
                                         {"weight_version", record.weight_version},
                                         {"weights", record.weights}};
  return object.dump();
}

DrawRecord draw_record_from_text(std::string_view text, const std::string& where) {
  DrawRecord record;
  try {
    const nlohmann::json object = nlohmann::json::parse(text);
    record.seed = object.at("seed").get<uint64_t>();
    record.sampling.temperature = static_cast<float>(object.at("temperature").get<double>());
    record.sampling.top_k = object.at("top_k").get<int32_t>();
    record.sampling.top_p = static_cast<float>(object.at("top_p").get<double>());
    record.sampling.min_p = static_cast<float>(object.at("min_p").get<double>());
    record.weight_version = object.at("weight_version").get<uint64_t>();
    record.weights = object.at("weights").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    fail("{}: attribute drawn is not what a run writes: {}", where, error.what());
  }
  const kernels::SamplingParams& s = record.sampling;
  const auto is_share = [](float value) { return value >= 0 && value <= 1; };
  if (!kernels::is_temperature(s.temperature) || !is_share(s.top_p) || !is_share(s.min_p)) {
    fail("{}: attribute drawn has temperature {}, top_p {}, min_p {}, which nothing samples with",
         where, s.temperature, s.top_p, s.min_p);
  }
  return record;
}

}  // namespace orrery::rollout
