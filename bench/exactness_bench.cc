// What exactness costs end to end: one decode step and one training step of a model of
// 135M parameters, beside the best path without it that is at hand, the same step with
// its matrix products by oneDNN. Attention, norms and the rest have no faster version
// here, so products are the whole difference:
//
//   cost = step / (step - our products + oneDNN's products) - 1
//
// A turn runs the whole step, then all its products by us and by oneDNN, layer after
// layer with every layer's own weights, in changing order; the ratios are medians over
// turns. oneDNN gets its weights packed in the layout it prefers for each product
// beforehand, for free, also those of backward (a second copy).
//
//   bench_exactness [--threads 1,2] [--turns 7] [--layers 30]
//                   [--cases decode:1,decode:8,decode:64,train:8x256]
#include <omp.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "bench/dnnl_product.h"
#include "bench/turns.h"
#include "comm/communicator.h"
#include "core/error.h"
#include "core/host_image.h"
#include "kernels/lm_head.h"
#include "kernels/numerics.h"
#include "kernels/sampling.h"
#include "learners/learner.h"
#include "models/transformer.h"

namespace orrery::bench {
namespace {

constexpr int64_t kContext = 256;  ///< tokens before the one that a decode step computes

struct Options {
  std::vector<int> threads = {1, 2};
  std::vector<std::string> cases = {"decode:1", "decode:8", "decode:64", "train:8x256"};
  int64_t turns = 7;
  int64_t layers = 30;
  bool json = false;
};

/// SmolLM2-135M's shape.
models::ModelConfig model_config(int64_t layers) {
  models::ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_hidden_layers = layers;
  config.num_attention_heads = 9;
  config.num_key_value_heads = 3;
  config.head_dim = config.rope.head_dim = 64;
  config.vocab_size = 49152;
  config.max_position_embeddings = 2048;
  config.tie_word_embeddings = true;
  return config;
}

/// The products of a step in its order, by us and by oneDNN, on the same operands.
class Products {
 public:
  Products(const Context& ctx, const models::Transformer& model, int64_t rows, bool train)
      : ctx_(ctx), train_(train) {
    const models::ModelConfig& c = model.config();
    const int64_t widest = std::max(2 * c.intermediate_size, c.qkv_size());
    // Head and loss go in chunks of rows, the gradient of a product has the size of its
    // operand.
    head_rows_ = train ? kernels::lm_head_chunk_rows(ctx.device, c.vocab_size, rows) : rows;
    x_ = random_buffer(rows * widest, 1);
    y_ = random_buffer(std::max(rows * widest, head_rows_ * c.vocab_size), 2);
    if (train)
      gradients_ =
          Buffer::zeroed({}, static_cast<size_t>(model.table().flat_size()) * sizeof(float));
    for (const models::Block& block : model.blocks()) {
      add(model, block.qkv(), rows);
      add(model, block.o(), rows);
      add(model, block.gate_up(), rows);
      add(model, block.down(), rows);
    }
    for (int64_t begin = 0; begin < rows; begin += head_rows_)
      add(model, model.lm_head(), std::min(head_rows_, rows - begin));
  }

  void ours() {
    for (Product& p : products_) {
      kernels::matmul_forward(ctx_, {.y = y(p), .x = x(p), .weight = p.weight});
      if (!train_) continue;
      kernels::matmul_backward_input(ctx_, {.dx = x(p), .dy = y(p), .weight = p.weight});
      kernels::matmul_backward_weight(ctx_, {.dw = p.gradient, .dy = y(p), .x = x(p)});
    }
  }
  void theirs() {
    for (Product& p : products_) {
      for (DnnlProduct& product : p.dnnl) product.run();
    }
  }

 private:
  struct Product {
    kernels::PackedWeight weight;
    Mat<float> gradient;  // training
    int64_t rows;
    std::vector<DnnlProduct> dnnl;  // forward; training: input's gradient, weight's gradient
  };

  Mat<float> x(const Product& p) const { return {x_.span<float>().data(), p.rows, p.weight.k}; }
  Mat<float> y(const Product& p) const { return {y_.span<float>().data(), p.rows, p.weight.n}; }

  void add(const models::Transformer& model, const models::Linear& linear, int64_t rows) {
    const kernels::PackedWeight& weight = linear.packed();
    products_.push_back({weight, {}, rows, {}});
    Product& p = products_.back();
    const float* plain = linear.weight().mat(model.parameters()).data;
    float *x_data = x_.span<float>().data(), *y_data = y_.span<float>().data();
    p.dnnl.emplace_back(rows, weight.n, weight.k, x_data, false, plain, true, y_data, true, false);
    if (!train_) return;
    p.gradient = linear.weight().mat(gradients_.vec<float>());
    p.dnnl.emplace_back(rows, weight.k, weight.n, y_data, false, plain, false, x_data, true, false);
    p.dnnl.emplace_back(weight.n, weight.k, rows, y_data, true, x_data, false, p.gradient.data,
                        false, true);
  }

  Context ctx_;
  int64_t head_rows_ = 0;
  bool train_;
  Buffer x_, y_, gradients_;
  std::vector<Product> products_;
};

/// One token for each of `batch` sequences that have kContext tokens: forward, head,
/// sampling.
class DecodeStep {
 public:
  DecodeStep(const Context& ctx, const models::Transformer& model, int64_t batch)
      : ctx_(ctx),
        model_(model),
        cache_(model.config(), model.compute_dtype(), {}, batch * kBlocks),
        tables_(static_cast<size_t>(batch)),
        tokens_(static_cast<size_t>(batch), 7),
        positions_(static_cast<size_t>(batch), static_cast<int32_t>(kContext)),
        output_rows_(static_cast<size_t>(batch)),
        drawn_(static_cast<size_t>(batch)),
        sampling_(static_cast<size_t>(batch)),
        uniforms_(static_cast<size_t>(batch), 0.5f) {
    std::iota(output_rows_.begin(), output_rows_.end(), 0);
    std::vector<int32_t> prompt(kContext), prompt_positions(kContext);
    std::iota(prompt.begin(), prompt.end(), 0);
    std::iota(prompt_positions.begin(), prompt_positions.end(), 0);
    for (int64_t i = 0; i < batch; ++i) {
      std::vector<int32_t>& table = tables_[static_cast<size_t>(i)];
      for (int64_t b = 0; b < kBlocks; ++b) table.push_back(static_cast<int32_t>(i * kBlocks + b));
      const kernels::KvSegment prefill{0, kContext, 0, table};
      const models::BatchPlan plan = models::plan_forward(
          ctx, model, {prompt, prompt_positions, std::span(&prefill, 1), {}}, cache_, arena_);
      models::transformer_forward(ctx, model, plan, cache_,
                                  Mat<float>(nullptr, 0, model.config().hidden_size), arena_);
      segments_.push_back({i, 1, kContext, table});
    }
  }

  void run() {
    arena_.reset();
    const auto batch = static_cast<int64_t>(tokens_.size());
    const Mat<float> hidden = arena_.mat<float>(batch, model_.config().hidden_size);
    const models::BatchPlan plan = models::plan_forward(
        ctx_, model_, {tokens_, positions_, segments_, output_rows_}, cache_, arena_);
    models::transformer_forward(ctx_, model_, plan, cache_, hidden, arena_);
    const Mat<float> logits = arena_.mat<float>(batch, model_.config().vocab_size);
    models::lm_head_forward(ctx_, model_, logits, hidden);
    kernels::sample_forward(ctx_, {.ids = {drawn_.data(), batch},
                                   .logits = logits,
                                   .params = {sampling_.data(), batch},
                                   .uniform = {uniforms_.data(), batch}});
  }

 private:
  static constexpr int64_t kBlocks = kContext / kernels::kKvBlock + 1;
  Context ctx_;
  const models::Transformer& model_;
  models::KvCache cache_;
  Arena arena_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<kernels::KvSegment> segments_;
  std::vector<int32_t> tokens_, positions_, output_rows_, drawn_;
  std::vector<kernels::SamplingParams> sampling_;
  std::vector<float> uniforms_;
};

/// A learner's step on `sequences` responses of `length` tokens, each of which is
/// learned from.
class TrainStep {
 public:
  TrainStep(const Context& ctx, models::Transformer& model, int64_t sequences, int64_t length)
      : comm_(comm::make_local_communicator()),
        learner_(ctx, model, *comm_, {.gradient_shards = 1, .max_token_len = sequences * length}),
        tokens_(static_cast<size_t>(sequences * (length + 1))),
        mask_(static_cast<size_t>(length), 1),
        sequences_(sequences) {
    for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<int32_t>(i * 131 % 49152);
  }

  void run() {
    std::vector<learners::Tree> trees;
    for (int64_t i = 0; i < sequences_; ++i) {
      const auto all =
          std::span(tokens_).subspan(static_cast<size_t>(i) * (mask_.size() + 1), mask_.size() + 1);
      learners::Leaf leaf;
      leaf.tokens = all.subspan(1);
      leaf.loss_mask = mask_;
      leaf.weight = 1.0f / static_cast<float>(tokens_.size());
      trees.push_back({all.first(1), {}});
      trees.back().leaves.push_back(std::move(leaf));
    }
    const learners::Objective objective = learners::sft_objective();
    learner_.update(trees, objective, {.lr = 0.0f, .weight_decay = 0.0f}, 1.0);
  }

 private:
  std::unique_ptr<comm::Communicator> comm_;
  learners::Learner learner_;
  std::vector<int32_t> tokens_;
  std::vector<uint8_t> mask_;
  int64_t sequences_;
};

nlohmann::json measure(const std::string& name, int threads, int64_t turns,
                       const std::function<void()>& step, Products& products) {
  const std::function<void()> runs[] = {step, [&] { products.ours(); }, [&] { products.theirs(); }};
  std::vector<double> times[3], ratios, costs;
  for (const auto& run : runs) run();  // memory is touched
  // A turn of one step would be mostly clock for the smallest.
  const auto calls =
      static_cast<int64_t>(std::max(1.0, 0.02 / std::max(seconds(threads, step, 1), 1e-6)));
  for (int64_t i = 0; i < turns; ++i) {
    for (size_t r = 0; r < 3; ++r) {
      const size_t which = (r + static_cast<size_t>(i)) % 3;
      times[which].push_back(seconds_of_turn(threads, runs[which], calls));
    }
    const double whole = times[0].back(), ours = times[1].back(), theirs = times[2].back();
    ratios.push_back(ours / theirs);
    costs.push_back(whole / (whole - ours + theirs) - 1);
  }
  return {{"case", name},
          {"threads", threads},
          {"turns", turns},
          {"step_ms", median(times[0]) * 1e3},
          {"products_ms", median(times[1]) * 1e3},
          {"onednn_products_ms", median(times[2]) * 1e3},
          {"products_over_onednn", median(ratios)},
          {"cost_percent", median(costs) * 100}};
}

nlohmann::json run_case(const std::string& name, int threads, const Options& options) {
  omp_set_num_threads(threads);  // oneDNN's team
  const Context ctx{.threads = threads};
  models::Transformer model(model_config(options.layers), {}, DType::kF32);
  HostImage weights(ctx, model.write_parameters());
  models::initialize_parameters(model.config(), model.table(), 1, weights.values());
  weights.commit();
  model.pack(ctx);
  long long a = 0, b = 0;
  if (std::sscanf(name.c_str(), "decode:%lld", &a) == 1 && a >= 1 && a <= 4096) {
    DecodeStep step(ctx, model, a);
    Products products(ctx, model, a, /*train=*/false);
    return measure(
        name, threads, options.turns, [&] { step.run(); }, products);
  }
  if (std::sscanf(name.c_str(), "train:%lldx%lld", &a, &b) == 2 && a >= 1 && a <= 4096 && b >= 2 &&
      b <= 2048) {
    TrainStep step(ctx, model, a, b);
    Products products(ctx, model, a * b, /*train=*/true);
    return measure(
        name, threads, options.turns, [&] { step.run(); }, products);
  }
  fail_usage(
      "case '{}' is none: write decode:BATCH (at most 4096) or train:SEQUENCESxTOKENS (4096 x "
      "2048)",
      name);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Decode and training steps of a model of 135M parameters beside the same with oneDNN's "
      "products");
  app.add_option("--threads", options.threads, "team sizes, a list")
      ->delimiter(',')
      ->check(CLI::Range(1, 256));
  app.add_option("--cases", options.cases, "decode:BATCH and train:SEQUENCESxTOKENS, a list")
      ->delimiter(',');
  app.add_option("--turns", options.turns, "of each case")->check(CLI::Range(1, 1000));
  app.add_option("--layers", options.layers, "fewer than 30: a quick look at a smaller model")
      ->check(CLI::Range(1, 30));
  app.add_flag("--json", options.json, "one JSON array instead of lines");
  CLI11_PARSE(app, argc, argv);
  kernels::require_instruction_sets();
  nlohmann::json all = nlohmann::json::array();
  for (const int threads : options.threads) {
    for (const std::string& name : options.cases) {
      all.push_back(run_case(name, threads, options));
      const nlohmann::json& r = all.back();
      if (options.json) continue;
      std::printf(
          "%-12s %d thread(s): step %9.2f ms; its products %9.2f ms, "
          "by oneDNN %9.2f ms (ours / oneDNN's %.3f); the step costs %+.1f %%\n",
          name.c_str(), threads, r["step_ms"].get<double>(), r["products_ms"].get<double>(),
          r["onednn_products_ms"].get<double>(), r["products_over_onednn"].get<double>(),
          r["cost_percent"].get<double>());
      std::fflush(stdout);
    }
  }
  if (options.json) std::printf("%s\n", all.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace orrery::bench

int main(int argc, char** argv) {
  return orrery::bench::bench_main("bench_exactness", orrery::bench::run, argc, argv);
}
