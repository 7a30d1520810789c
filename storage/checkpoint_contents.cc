#include "storage/checkpoint_contents.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::storage {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxName = 256;  // characters

/// Whether the text can name an object of an HDF5 file: it is letters, digits and
/// `others`, not too many, and not dots alone.
bool is_name(std::string_view text, std::string_view others) {
  return text.size() <= kMaxName && text.find_first_not_of('.') != std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return is_letter(c) || is_digit(c) || others.find(c) != std::string_view::npos;
         });
}

StoredTensor read_tensor(const json& value, const std::string& where) {
  const JsonObject object(value, where);
  StoredTensor tensor;
  tensor.name = object.text("name");
  if (!is_name(tensor.name, "._-"))
    object.reject("name",
                  fmt::format("1 to {} letters, digits, '.', '_' and '-' are needed", kMaxName));
  const std::string of = fmt::format("{}: {}", where, tensor.name);
  const json* shape = object.find("shape");
  if (shape == nullptr || !shape->is_array() || shape->empty() || shape->size() > kMaxDimensions)
    fail("{}: a shape of 1 to {} sizes is needed", of, kMaxDimensions);
  tensor.size = 1;
  for (const json& item : *shape) {
    const int64_t size = json_integer(item).value_or(0);
    if (size < 1 || size > kMaxElements / tensor.size) {
      fail("{}: shape has {}; sizes from 1, whose product is at most {}, are needed", of,
           json_excerpt(item), kMaxElements);
    }
    tensor.shape.push_back(size);
    tensor.size *= size;
  }
  const std::string dtype = object.text("dtype");
  if (dtype != kStoredType) {
    fail("{}: its dtype is {}; this program reads \"{}\"", of, json_excerpt(json(dtype)),
         kStoredType);
  }
  return tensor;
}

StoredModule read_module(const json& value, const std::string& where) {
  const JsonObject object(value, where);
  StoredModule module;
  module.name = object.text("name");
  if (!is_name(module.name, "_-"))
    object.reject("name", fmt::format("1 to {} letters, digits, '_' and '-' are needed", kMaxName));
  module.trainable = object.boolean("trainable");
  const std::string of = fmt::format("{}: {}", where, module.name);
  const json* tensors = object.find("tensors");
  if (tensors == nullptr || !tensors->is_array() || tensors->empty())
    fail("{}: a list of tensors is needed", of);
  std::set<std::string> names;
  for (const json& item : *tensors) {
    module.tensors.push_back(read_tensor(item, of));
    if (!names.insert(module.tensors.back().name).second)
      fail("{}: {} is there twice", of, module.tensors.back().name);
  }
  return module;
}

/// The elements of one tensor that files hold.
struct Cover {
  const StoredTensor* tensor = nullptr;
  std::vector<std::pair<Extent, const CheckpointFileEntry*>> slices;
};

/// Sorts them. `what`: "manifest.json: policy model.norm.weight".
void check_tensor(const std::string& what, Cover& cover) {
  std::sort(cover.slices.begin(), cover.slices.end(),
            [](const auto& a, const auto& b) { return a.first.begin < b.first.begin; });
  int64_t cursor = 0;
  for (const auto& [slice, file] : cover.slices) {
    if (slice.begin != cursor) {
      fail("{}: {} holds [{}, {}) where a slice from element {} was expected", what, file->name,
           slice.begin, slice.end, cursor);
    }
    cursor = slice.end;
  }
  const int64_t size = cover.tensor->size;
  if (cover.slices.empty()) fail("{}: no file holds element 0 of {}", what, size);
  if (cursor != size) {
    fail("{}: its slices end at element {} of {}, in {}", what, cursor, size,
         cover.slices.back().second->name);
  }
}

}  // namespace

StoredModule stored_module(const models::ParameterTable& table) {
  StoredModule module{table.module().name, table.module().trainable, {}};
  for (const models::Parameter& p : table.parameters())
    module.tensors.push_back({p.name, p.shape, p.size});
  return module;
}

const StoredModule& find_module(std::span<const StoredModule> modules, std::string_view name,
                                const std::string& where) {
  std::string known;
  for (const StoredModule& module : modules) {
    if (module.name == name) return module;
    known += (known.empty() ? "" : ", ") + module.name;
  }
  fail("{} has no module {}; its modules are {}", where, json_excerpt(json(std::string(name))),
       known);
}

void check_cover(const std::string& where, std::span<const StoredModule> modules,
                 std::span<const CheckpointFileEntry> files) {
  std::vector<std::vector<Cover>> covers;  // of each module's tensors
  std::unordered_map<std::string_view, size_t> module_index;
  std::vector<std::unordered_map<std::string_view, size_t>> tensor_index(modules.size());
  for (size_t m = 0; m < modules.size(); ++m) {
    module_index.emplace(modules[m].name, m);
    covers.emplace_back();
    for (const StoredTensor& tensor : modules[m].tensors) {
      tensor_index[m].emplace(tensor.name, covers[m].size());
      covers[m].push_back({&tensor, {}});
    }
  }
  for (const CheckpointFileEntry& file : files) {
    for (const auto& [module, tensors] : file.slices) {
      const auto m = module_index.find(module);
      if (m == module_index.end())
        fail("{}: {} holds slices of the module {}, which modules does not list", where, file.name,
             json_excerpt(json(module)));
      for (const auto& [tensor, slices] : tensors) {
        const auto t = tensor_index[m->second].find(tensor);
        if (t == tensor_index[m->second].end())
          fail("{}: {} holds slices of {} {}, which modules does not list", where, file.name,
               module, json_excerpt(json(tensor)));
        Cover& cover = covers[m->second][t->second];
        int64_t end = 0;
        for (const Extent& slice : slices) {
          if (slice.begin < end || slice.end <= slice.begin)
            fail("{}: the slices of {} {} in {} do not rise at [{}, {})", where, module, tensor,
                 file.name, slice.begin, slice.end);
          end = slice.end;
          cover.slices.emplace_back(slice, &file);
        }
      }
    }
  }
  for (size_t m = 0; m < modules.size(); ++m) {
    for (Cover& cover : covers[m])
      check_tensor(fmt::format("{}: {} {}", where, modules[m].name, cover.tensor->name), cover);
  }
}

ordered_json modules_json(std::span<const StoredModule> modules) {
  ordered_json list = ordered_json::array();
  for (const StoredModule& module : modules) {
    ordered_json tensors = ordered_json::array();
    for (const StoredTensor& t : module.tensors)
      tensors.push_back({{"name", t.name}, {"shape", t.shape}, {"dtype", kStoredType}});
    list.push_back(
        {{"name", module.name}, {"trainable", module.trainable}, {"tensors", std::move(tensors)}});
  }
  return list;
}

ordered_json slices_json(const HeldModules& slices) {
  ordered_json out = ordered_json::object();
  for (const auto& [module, tensors] : slices) {
    for (const auto& [tensor, held] : tensors) {
      ordered_json& list = out[module][tensor] = ordered_json::array();
      for (const Extent& slice : held) list.push_back({slice.begin, slice.end});
    }
  }
  return out;
}

std::vector<StoredModule> read_modules(const JsonObject& manifest) {
  const json* list = manifest.find("modules");
  if (list == nullptr || !list->is_array() || list->empty())
    manifest.reject("modules", "a list of at least one is needed");
  std::vector<StoredModule> modules;
  std::set<std::string> names;
  for (const json& value : *list) {
    modules.push_back(read_module(value, manifest.where() + ": modules"));
    if (!names.insert(modules.back().name).second)
      fail("{}: modules: {} is there twice", manifest.where(), modules.back().name);
  }
  return modules;
}

HeldModules read_slices(const JsonObject& file) {
  const json* modules = file.find("slices");
  if (modules == nullptr || !modules->is_object())
    file.reject("slices", "an object of modules is needed");
  const std::string where = fmt::format("{}: slices of {}", file.where(), file.text("name"));
  HeldModules held;
  for (const auto& [module, tensors] : modules->items()) {
    if (!tensors.is_object())
      fail("{}: {} is {}; an object of tensors is needed", where, json_excerpt(json(module)),
           json_excerpt(tensors));
    for (const auto& [tensor, list] : tensors.items()) {
      const std::string what =
          fmt::format("{} {}", json_excerpt(json(module)), json_excerpt(json(tensor)));
      if (!list.is_array() || list.empty())
        fail("{}: {} has {}; a list of [begin, end] is needed", where, what, json_excerpt(list));
      std::vector<Extent>& slices = held[module][tensor];
      for (const json& pair : list) {
        const bool two = pair.is_array() && pair.size() == 2;
        const auto begin = two ? json_integer(pair[0]) : std::nullopt;
        const auto end = two ? json_integer(pair[1]) : std::nullopt;
        if (!begin || !end || *begin < 0 || *end > kMaxElements) {
          fail("{}: {} has {}; a list of [begin, end], from 0 to {}, is needed", where, what,
               json_excerpt_nested(pair), kMaxElements);
        }
        slices.push_back({*begin, *end});
      }
    }
  }
  return held;
}

}  // namespace orrery::storage
