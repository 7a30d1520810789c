#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/timer.h"
#include "experiments/model_source.h"
#include "models/config.h"
#include "rollout/engine.h"
#include "text/chat_template.h"
#include "text/tokenizer_utf8.h"
#include "tools/chat_input.h"
#include "tools/commands.h"
#include "tools/model_options.h"

namespace orrery::tools {
namespace {

struct GenerateOptions {
  ModelOptions model;
  std::vector<std::string> prompts;
  ChatInput input;
  bool json = false, ignore_eos = false, print_prompt = false;
  int64_t max_new_tokens = 128;
  kernels::SamplingParams sampling;
  uint32_t n = 1;
  uint64_t seed = 1;
  std::vector<std::string> stop;
};

std::vector<int32_t> text_tokens(const text::Tokenizer& tokenizer, const std::string& prompt) {
  std::vector<int32_t> ids = tokenizer.encode(prompt, /*add_special_tokens=*/true);
  if (ids.empty() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  if (ids.empty())
    fail_usage(
        "--prompt is empty and this tokenizer has no BOS token to start from; give some text");
  return ids;
}

/// Prints what the model would be asked, and asks nothing: the texts, or with --json a
/// line each with prompt and prompt_ids, or error.
int print_prompts(const GenerateOptions& options, const text::Tokenizer& tokenizer) {
  std::optional<text::ChatTemplate> chat;
  std::vector<Conversation> conversations;
  if (options.input.chat) {
    chat.emplace(tokenizer, template_arguments(options.input.template_args));
    conversations = read_conversations(options.input, options.prompts);
  }
  int exit_code = kExitOk;
  const size_t count = chat ? conversations.size() : options.prompts.size();
  for (size_t i = 0; i < count; ++i) {
    nlohmann::ordered_json row;
    try {
      const std::string text =
          chat ? chat->render(conversations[i].messages, conversations[i].options)
               : options.prompts[i];
      if (!options.json) {
        std::printf("%s\n", text.c_str());
        continue;
      }
      row = {{"prompt", text},
             {"prompt_ids", chat ? tokenizer.encode(text, /*add_special_tokens=*/false)
                                 : text_tokens(tokenizer, text)}};
    } catch (const Error& error) {
      if (!options.json) throw;
      row = {{"error", error.what()}};
      exit_code = kExitFailure;
    }
    std::printf("%s\n", row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
  return exit_code;
}

/// What the option parser does not see.
void check(const GenerateOptions& options) {
  const float t = options.sampling.temperature;
  if (!kernels::is_temperature(t))
    fail_usage("--temperature {}: give 0 (greedy), or at least 1e-6", t);
  const ChatInput& input = options.input;
  if (!input.chat) {
    for (const auto& [name, given] :
         {std::pair<const char*, bool>{"--system", input.system.has_value()},
          {"--template-arg", !input.template_args.empty()},
          {"--chat-template", !input.template_file.empty()},
          {"--messages", !input.messages_file.empty()},
          {"--tools", !input.tools_file.empty()}}) {
      if (given) fail_usage("{} needs --chat", name);
    }
  }
  if (options.prompts.empty() && input.messages_file.empty())
    fail_usage("give a --prompt, or with --chat a file of --messages");
  if (!options.prompts.empty() && !input.messages_file.empty())
    fail_usage("give --prompt or --messages, not both");
  if (input.system && !input.messages_file.empty())
    fail_usage("--system does not go with --messages: write the system message into the file");
  for (const std::string& prompt : options.prompts) {
    if (const size_t bad = text::find_invalid_utf8(prompt); bad != std::string::npos)
      fail_usage("--prompt is not UTF-8: byte {} of {} is malformed", bad, prompt.size());
  }
  for (const std::string& stop : options.stop) {
    if (stop.empty()) fail_usage("--stop is empty; give the text to stop at");
  }
}

using Prompts = std::vector<std::vector<int32_t>>;

/// Usage Error when --chat finds no template.
void check_template(const GenerateOptions& options, const text::Tokenizer& tokenizer,
                    const std::string& model) {
  if (!options.input.chat || !tokenizer.chat_template().empty()) return;
  const bool of_chat =
      options.prompts.empty() || options.input.system || !options.input.tools_file.empty();
  fail_usage(
      "--chat: {} has no chat template; {}", model,
      of_chat
          ? "give one: --chat-template FILE, or a model that has one"
          : "leave --chat out to continue the prompt as text, or give one: --chat-template FILE");
}

Prompts read_prompts(const GenerateOptions& options, const text::Tokenizer& tokenizer) {
  Prompts prompts;
  if (options.input.chat) {
    const text::ChatTemplate chat(tokenizer, template_arguments(options.input.template_args));
    for (const Conversation& one : read_conversations(options.input, options.prompts))
      prompts.push_back(
          tokenizer.encode(chat.render(one.messages, one.options), /*add_special_tokens=*/false));
  } else {
    for (const std::string& prompt : options.prompts)
      prompts.push_back(text_tokens(tokenizer, prompt));
  }
  return prompts;
}

void submit_all(rollout::Engine& engine, const GenerateOptions& options, const Prompts& prompts,
                const text::Tokenizer& tokenizer) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    rollout::GenerateRequest request;
    request.seed = options.seed;
    request.prompt_index = i;
    request.n = options.n;
    request.prompt = prompts[i];
    request.sampling = options.sampling;
    request.max_new_tokens = options.max_new_tokens;
    if (!options.ignore_eos) request.stop_token_ids = tokenizer.eos_ids();
    request.stop_strings = options.stop;
    engine.submit(std::move(request));
  }
}

/// `alone`: there is no other sample that it could be taken for.
void print_sample(const GenerateOptions& options, const Prompts& prompts,
                  const rollout::GenerateResult& result, const std::string& text,
                  double first_token, bool alone) {
  if (options.json) {
    const nlohmann::ordered_json row = {
        {"prompt_index", result.prompt_index},
        {"sample_index", result.sample_index},
        {"prompt_ids", prompts[result.prompt_index]},
        {"ids", result.tokens},
        {"logprobs", result.logprobs},
        {"entropies", result.entropies},
        {"finish_reason", rollout::finish_reason_name(result.finish_reason)},
        {"text", text},
        {"first_token_s", first_token}};
    std::printf("%s\n", row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  const size_t prompt = result.prompt_index;
  if (!alone) std::printf("=== prompt %zu, sample %u\n", prompt, result.sample_index);
  std::printf("%s%s\n", options.input.chat ? "" : options.prompts[prompt].c_str(), text.c_str());
}

/// Samples of all requests by prompt and sample, and when the first token was there.
std::vector<rollout::GenerateResult> run_engine(rollout::Engine& engine, const Timer& timer,
                                                double& first_token) {
  std::vector<rollout::GenerateResult> results;
  while (engine.has_work()) {
    for (rollout::GenerateResult& result : engine.step()) results.push_back(std::move(result));
    if (first_token == 0) first_token = timer.seconds();
  }
  std::sort(results.begin(), results.end(),
            [](const rollout::GenerateResult& a, const rollout::GenerateResult& b) {
              return std::tie(a.prompt_index, a.sample_index) <
                     std::tie(b.prompt_index, b.sample_index);
            });
  return results;
}

int generate(const GenerateOptions& options) {
  check(options);
  const Timer timer;
  const Context ctx = options.model.context();
  const experiments::ModelSource source(options.model.folder, "--model");
  const text::Tokenizer tokenizer = source.tokenizer(options.input.template_file);
  check_template(options, tokenizer, source.name());
  if (options.print_prompt) return print_prompts(options, tokenizer);
  const Prompts prompts = read_prompts(options, tokenizer);
  // Known before the model is built: its RoPE table need not cover the whole context.
  int64_t longest = 0;
  for (const auto& ids : prompts) longest = std::max<int64_t>(longest, std::ssize(ids));
  if (!options.input.chat && !tokenizer.chat_template().empty() && !options.json) {
    spdlog::info("this model has a chat template; --chat asks it as a user would");
  }
  const models::ModelConfig model_config = source.config();
  const int64_t positions = model_config.max_position_embeddings;
  if (longest >= positions) {
    fail_usage("the longest prompt has {} tokens, but {} handles {} positions; shorten it", longest,
               source.name(), positions);
  }
  rollout::EngineConfig config;
  config.max_num_seqs = std::min<int64_t>(std::ssize(prompts) * options.n, 64);
  config.max_model_len = std::min(positions, longest + options.max_new_tokens);
  config.kv_cache_bytes =
      std::max(config.kv_cache_bytes,
               experiments::longest_sequence_bytes(model_config, options.model.compute_dtype(),
                                                   config.max_model_len, "--max-new-tokens"));
  const std::unique_ptr<models::Transformer> model = source.transformer(
      ctx, tokenizer, options.model.compute_dtype(), longest + options.max_new_tokens);
  rollout::Engine engine(ctx, *model, &tokenizer, config);
  submit_all(engine, options, prompts, tokenizer);
  const double ready = timer.seconds();
  double first_token = 0;
  const auto results = run_engine(engine, timer, first_token);
  const double seconds = timer.seconds() - ready;
  size_t tokens = 0;
  for (const rollout::GenerateResult& result : results) {
    tokens += result.tokens.size();
    const std::string text = tokenizer.decode(result.text_tokens(), /*skip_special_tokens=*/true);
    print_sample(options, prompts, result, text, first_token, /*alone=*/results.size() == 1);
  }
  if (!options.json) {
    spdlog::info("{} tokens in {:.2f} s ({:.1f} tokens/s), first token {:.3f} s after the start",
                 tokens, seconds, tokens / std::max(seconds, 1e-9), first_token);
  }
  return kExitOk;
}

}  // namespace

void add_generate_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt with a model");
  command->footer(
      "Example:\n"
      "  orrery generate --model models/SmolLM2-135M-Instruct --chat --prompt \"What is the "
      "capital of France?\" --temperature 0\n"
      "  orrery generate --model runs/quickstart --prompt \"12+34=\"     # a run: "
      "its newest good checkpoint\n"
      "--json prints an object a sample: prompt_ids, ids (new), logprobs, entropies, text.");
  auto options = std::make_shared<GenerateOptions>();
  options->model.add_to(*command);
  add_texts(*command, "--prompt", options->prompts, "Text to continue; may be given several times");
  options->input.add_to(*command);
  command->add_flag("--print-prompt", options->print_prompt,
                    "Print what the model would be asked, the chat template applied, and end");
  command
      ->add_option("--max-new-tokens", options->max_new_tokens, "Tokens to generate at most (128)")
      ->check(whole_number(1, 1 << 24));
  command->add_option("--temperature", options->sampling.temperature, "0: greedy (default 1)")
      ->check(number_in(0, 100));
  command->add_option("--top-k", options->sampling.top_k, "0: off")
      ->check(whole_number(0, INT32_MAX));
  command->add_option("--top-p", options->sampling.top_p, "1: off")->check(number_in(1e-6, 1));
  command->add_option("--min-p", options->sampling.min_p, "0: off")->check(number_in(0, 1));
  command->add_option("-n,--n", options->n, "Samples of each prompt")->check(whole_number(1, 4096));
  command->add_option("--seed", options->seed, "Seed of the samples")->check(whole_number(0));
  add_texts(
      *command, "--stop", options->stop,
      "Stop when this text, or special token (<|im_end|>), appears; may be given several times");
  command->add_flag("--ignore-eos", options->ignore_eos, "Go on after end-of-sequence tokens");
  command->add_flag("--json", options->json, "Print JSON lines");
  command->callback([=, &run] { run = [=] { return generate(*options); }; });
}

}  // namespace orrery::tools
