// `orrery ckpt diff`.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "storage/checkpoint_report.h"
#include "tools/ckpt_actions.h"
#include "tools/ckpt_text.h"

namespace orrery::tools {
namespace {

using nlohmann::ordered_json;

ordered_json array_diff_json(const storage::ArrayDiff& d) {
  return {{"equal", d.differing == 0},
          {"differing", d.differing},
          {"max_abs", number_json(d.max_abs)},
          {"max_rel", number_json(d.max_rel)}};
}

/// One line that answers the question.
std::string diff_verdict(const storage::CheckpointDiff& d, int64_t step_a, int64_t step_b) {
  if (d.equal_tensors()) {
    return step_a == step_b ? "identical"
                            : fmt::format("identical tensors, steps {} and {}", step_a, step_b);
  }
  const auto count = [&](auto&& field) {
    return std::count_if(d.tensors.begin(), d.tensors.end(),
                         [&](const storage::TensorDiff& t) { return (t.*field).differing != 0; });
  };
  std::string text =
      fmt::format("of {} tensors in both, {} differ in weights, {} in adam_m, {} in adam_v",
                  d.tensors.size(), count(&storage::TensorDiff::weights),
                  count(&storage::TensorDiff::adam_m), count(&storage::TensorDiff::adam_v));
  const auto add_modules = [&](const std::vector<std::string>& names, const char* which) {
    if (!names.empty())
      text += fmt::format("; only the {} has the module(s) {}", which, fmt::join(names, ", "));
  };
  add_modules(d.modules_only_a, "first");
  add_modules(d.modules_only_b, "second");
  const auto add = [&](const std::vector<std::string>& names, const char* what) {
    if (!names.empty())
      text += fmt::format("; {} {} ({}{})", names.size(), what, names[0],
                          names.size() > 1 ? ", ..." : "");
  };
  add(d.only_a, "only in the first");
  add(d.only_b, "only in the second");
  add(d.reshaped, "of other shape");
  return text;
}

}  // namespace

void ckpt_diff(const CkptOptions& options) {
  const storage::Checkpoint a = open_good(options.path), b = open_good(options.other);
  const storage::CheckpointDiff d = storage::diff_checkpoints(a, b);
  if (options.json) {
    ordered_json out = {{"a", a.folder().string()},
                        {"b", b.folder().string()},
                        {"steps", {a.info().step, b.info().step}},
                        {"identical", d.equal_tensors() && a.info().step == b.info().step},
                        {"only_a", d.only_a},
                        {"only_b", d.only_b},
                        {"reshaped", d.reshaped},
                        {"modules_only_a", d.modules_only_a},
                        {"modules_only_b", d.modules_only_b}};
    out["tensors"] = ordered_json::array();
    for (const storage::TensorDiff& t : d.tensors) {
      out["tensors"].push_back({{"name", t.name},
                                {"weights", array_diff_json(t.weights)},
                                {"adam_m", array_diff_json(t.adam_m)},
                                {"adam_v", array_diff_json(t.adam_v)}});
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "weights", "max abs", "max rel", "adam_m", "adam_v"}};
  const auto cell = [](const storage::ArrayDiff& x, int64_t size) {
    return x.differing == 0 ? std::string("equal")
                            : fmt::format("{} of {} differ", x.differing, size);
  };
  for (const storage::TensorDiff& t : d.tensors) {
    int64_t size = 1;
    for (const int64_t n : t.shape) size *= n;
    rows.push_back({t.name, cell(t.weights, size), fmt::format("{:.3g}", t.weights.max_abs),
                    fmt::format("{:.3g}", t.weights.max_rel), cell(t.adam_m, size),
                    cell(t.adam_v, size)});
  }
  print_table(rows, {true, true, false, false, true, true});
  fmt::print("{}\n", diff_verdict(d, a.info().step, b.info().step));
}

}  // namespace orrery::tools
