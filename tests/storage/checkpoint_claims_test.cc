// What a manifest claims of tensors and files, and what it may not.
#include <gmock/gmock.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "storage/checkpoint.h"
#include "tests/storage/checkpoint_fixture.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing_support::open_error;
using testing_support::rewrite_manifest;

TEST_F(CheckpointTest, ManifestThatLiesIsRejected) {
  const fs::path path = save(4, buffers(4), {300});  // in the embedding, of 37 x 12
  const std::string good = read_file(path / kManifestFile);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    rewrite_manifest(path, text);
    const std::string error = open_error(path);
    EXPECT_THAT(error, Not(HasSubstr("\n")));
    return error;
  };
  EXPECT_EQ(with("grpo", "sft"), "");
  EXPECT_THAT(with("rank_0001_of_0002.h5", "../rank_0001_of_02.h5"), HasSubstr("name"));
  EXPECT_THAT(with("tokenizer/tokenizer.json", "tokenizer/../../../x"),
              HasSubstr("tokenizer file"));
  EXPECT_THAT(with("\"hidden_size\": 12", "\"hidden_size\": 16"), HasSubstr("tensors"));
  EXPECT_THAT(with("\"hidden_size\": 12", "\"hidden_size\": -1"), HasSubstr("hidden_size"));
  EXPECT_THAT(with("\"step\": 4", "\"step\": -4"), HasSubstr("step"));
  EXPECT_THAT(with("\"step\": 4", "\"step\": 1e99"), HasSubstr("step"));
  EXPECT_THAT(with("{", "["), HasSubstr("JSON"));
}

TEST_F(CheckpointTest, SlicesThatDoNotCoverTheTensorsAreNamed) {
  const fs::path path = save(4, buffers(4), {300});
  const nlohmann::json good = nlohmann::json::parse(read_file(path / kManifestFile));
  using Json = nlohmann::json;
  // `change` is given the slices of the policy in each file.
  const auto with = [&](const std::function<void(Json&, Json&)>& change) {
    Json manifest = good;
    change(manifest["files"][0]["slices"]["policy"], manifest["files"][1]["slices"]["policy"]);
    rewrite_manifest(path, manifest.dump());
    const std::string error = open_error(path);
    EXPECT_THAT(error, Not(HasSubstr("\n")));
    return error;
  };
  const std::string embedding = "model.embed_tokens.weight", norm = "model.norm.weight";
  EXPECT_EQ(with([](Json&, Json&) {}), "");
  EXPECT_THAT(with([&](Json& a, Json&) { a[embedding][0][1] = 301; }),
              HasSubstr("manifest.json: policy model.embed_tokens.weight: rank_0001_of_0002.h5 "
                        "holds [300, 444) where a slice from element 301 was expected"));
  EXPECT_THAT(with([&](Json& a, Json&) { a[embedding][0][1] = 299; }),
              HasSubstr("rank_0001_of_0002.h5 holds [300, 444) where a slice from element 299"));
  EXPECT_THAT(with([&](Json&, Json& b) { b[embedding][0][1] = 443; }),
              HasSubstr("policy model.embed_tokens.weight: its slices end at element 443 of 444, "
                        "in rank_0001_of_0002.h5"));
  EXPECT_THAT(with([&](Json&, Json& b) { b[embedding][0][1] = 445; }),
              HasSubstr("end at element 445 of 444"));
  EXPECT_THAT(with([&](Json&, Json& b) { b.erase(norm); }),
              HasSubstr("policy model.norm.weight: no file holds element 0 of 12"));
  EXPECT_THAT(with([&](Json& a, Json&) {
                a[norm] = {{0, 12}};
              }),
              HasSubstr("policy model.norm.weight: rank_000"));
  EXPECT_THAT(with([&](Json& a, Json&) {
                a[embedding] = {{0, 200}, {100, 300}};
              }),
              HasSubstr("the slices of policy model.embed_tokens.weight in rank_0000_of_0002.h5 do "
                        "not rise at [100, 300)"));
  EXPECT_THAT(with([&](Json& a, Json&) { a[embedding][0] = {0, 0}; }), HasSubstr("do not rise"));
  EXPECT_THAT(with([&](Json& a, Json&) { a[embedding] = Json::array(); }),
              HasSubstr("a list of [begin, end] is needed"));
  EXPECT_THAT(with([&](Json& a, Json&) {
                a["x\ny"] = {{0, 1}};
              }),
              HasSubstr("rank_0000_of_0002.h5 holds slices of policy \"x\\ny\", which modules does "
                        "not list"));
  EXPECT_THAT(with([&](Json& a, Json&) { a = 3; }), HasSubstr("an object of tensors is needed"));
  for (const Json& pair : {Json{0, "300"}, Json{0, 300, 301}, Json{-1, 300}, Json{0, 0.5},
                           Json{0, 1e300}, Json(7), Json{0, std::string(999, 'x')}}) {
    EXPECT_THAT(with([&](Json& a, Json&) { a[embedding][0] = pair; }),
                HasSubstr("files: slices of rank_0000_of_0002.h5: \"policy\" "
                          "\"model.embed_tokens.weight\" has "));
  }
  Json elsewhere = good;
  elsewhere["files"][0]["slices"]["critic"]["x"] = {{0, 1}};
  rewrite_manifest(path, elsewhere.dump());
  EXPECT_THAT(open_error(path),
              HasSubstr("slices of the module \"critic\", which modules does not"));
  elsewhere["files"][0].erase("slices");
  rewrite_manifest(path, elsewhere.dump());
  EXPECT_THAT(open_error(path), HasSubstr("slices is absent; an object of modules is needed"));
}

TEST_F(CheckpointTest, ModulesThatAreNoneAreRefused) {
  const fs::path path = save(4, buffers(4));
  const nlohmann::json good = nlohmann::json::parse(read_file(path / kManifestFile));
  using Json = nlohmann::json;
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json manifest = good;
    change(manifest["modules"]);
    rewrite_manifest(path, manifest.dump());
    const std::string error = open_error(path);
    EXPECT_THAT(error, Not(HasSubstr("\n")));
    return error;
  };
  const auto first = [](Json& modules) -> Json& { return modules[0]["tensors"][0]; };
  EXPECT_EQ(with([](Json&) {}), "");
  EXPECT_THAT(with([](Json& m) { m = 3; }), HasSubstr("modules is 3; a list of at least one"));
  EXPECT_THAT(with([](Json& m) { m = Json::array(); }), HasSubstr("a list of at least one"));
  EXPECT_THAT(with([](Json& m) { m.push_back(m[0]); }), HasSubstr("policy is there twice"));
  EXPECT_THAT(with([](Json& m) { m[0]["name"] = "actor"; }),
              HasSubstr("has no module \"policy\"; its modules are actor"));
  for (const char* name : {"", "a/b", "a b", "..", "a\n", "a.b"})
    EXPECT_THAT(with([&](Json& m) { m[0]["name"] = name; }),
                HasSubstr("letters, digits, '_' and '-' are needed"));
  EXPECT_THAT(with([](Json& m) { m[0]["trainable"] = 1; }), HasSubstr("trainable"));
  EXPECT_THAT(with([](Json& m) { m[0]["trainable"] = false; }), HasSubstr("the tensors of its"));
  EXPECT_THAT(with([](Json& m) { m[0].erase("tensors"); }), HasSubstr("a list of tensors"));
  EXPECT_THAT(with([&](Json& m) { first(m)["name"] = "a/b"; }), HasSubstr("letters, digits, '.'"));
  EXPECT_THAT(with([&](Json& m) { first(m)["name"] = std::string(257, 'a'); }),
              HasSubstr("1 to 256 letters, digits, '.'"));
  EXPECT_THAT(with([&](Json& m) { first(m)["name"] = "."; }), HasSubstr("letters, digits, '.'"));
  EXPECT_THAT(with([&](Json& m) {
                first(m)["shape"] = {36, 12};
              }),
              HasSubstr("the tensors of its"));
  EXPECT_THAT(with([&](Json& m) { first(m)["shape"] = {0, 12}; }), HasSubstr("shape has 0; sizes"));
  EXPECT_THAT(with([&](Json& m) {
                first(m)["shape"] = {INT64_MAX, INT64_MAX};
              }),
              HasSubstr("shape has"));
  EXPECT_THAT(with([&](Json& m) { first(m)["shape"] = Json::array(); }), HasSubstr("a shape of 1"));
  EXPECT_THAT(with([&](Json& m) { first(m)["dtype"] = "bf16"; }),
              HasSubstr("model.embed_tokens.weight: its dtype is \"bf16\"; this program reads "
                        "\"f32\""));
  EXPECT_THAT(with([&](Json& m) { m[0]["tensors"][1] = first(m); }), HasSubstr("is there twice"));
}

TEST_F(CheckpointTest, AnotherVersionIsRefusedWithWhatCanBeRead) {
  const fs::path path = save(4, buffers(4));
  const std::string good = read_file(path / kManifestFile);
  const auto with = [&](int version) {
    nlohmann::json manifest = nlohmann::json::parse(good);
    manifest["format_version"] = version;
    rewrite_manifest(path, manifest.dump());
    return open_error(path);
  };
  const std::string run = (folder_ / "run").string();
  for (const int version : {1, 4, 99}) {
    EXPECT_EQ(with(version),
              fmt::format("{} is of format version {}; this program reads version 3, "
                          "and converts version 2",
                          path.string(), version));
  }
  EXPECT_EQ(with(2), fmt::format("{} is of format version 2; this program reads version 3: convert "
                                 "it with orrery ckpt convert {} {}_v3",
                                 path.string(), run, run));
  const fs::path apart = folder_ / "a b" / "step_000004";
  fs::create_directories(apart.parent_path());
  fs::rename(path, apart);
  EXPECT_THAT(open_error(apart),
              testing::EndsWith(fmt::format("orrery ckpt convert '{}' '{}'", apart.string(),
                                            (folder_ / "a b/v3/step_000004").string())));
  fs::rename(apart, path);
  // From inside, a relative path has not the names that the command needs.
  const fs::path before = fs::current_path();
  const std::pair<const char*, const char*> places[] = {
      {"run", "checkpoints/step_000004"},
      {"run", "./checkpoints/step_000004"},
      {"run/checkpoints", "step_000004"},
      {"run/checkpoints/step_000004", "."},
      {"run/checkpoints/step_000004/tokenizer", ".."}};
  for (const auto& [place, relative] : places) {
    fs::current_path(folder_ / place);
    EXPECT_THAT(open_error(relative),
                testing::EndsWith(fmt::format("orrery ckpt convert {} {}_v3", run, run)))
        << place << " " << relative;
  }
  fs::current_path(folder_);
  EXPECT_THAT(open_error("run/checkpoints/step_000004"),
              testing::EndsWith("orrery ckpt convert run run_v3"));
  fs::current_path(before);
}

}  // namespace
}  // namespace orrery::storage
