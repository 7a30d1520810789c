// PromptSource::observation_tokens: what a chat template prints between one turn of the
// policy and the next.
#include <algorithm>

#include "actors/envs/text.h"
#include "actors/prompt_source.h"
#include "core/error.h"

namespace orrery::actors {
namespace {

/// Takes the place of the policy's text in the template. The text itself would not do:
/// templates trim it, and some leave out what a model thought in an earlier turn, while
/// the policy's tokens stay as they are.
constexpr const char* kTurn = "ORRERY-TURN";

}  // namespace

std::vector<int32_t> PromptSource::observation_tokens(const Episode& episode,
                                                      const std::string& observation,
                                                      std::optional<int32_t> end_token) const {
  if (!chat_template_) return tokenizer_.encode(observation, /*add_special_tokens=*/false);
  std::vector<text::ChatMessage> conversation = messages(episode);
  std::string turn = kTurn;
  const auto is_in = [&turn](const std::string& text) {
    return text.find(turn) != std::string::npos;
  };
  while (is_in(observation) ||
         std::any_of(conversation.begin(), conversation.end(),
                     [&](const text::ChatMessage& m) { return is_in(m.content); })) {
    turn += "-";  // until no message contains it
  }
  conversation.push_back({"assistant", turn});
  conversation.push_back({"user", observation});
  std::string text;
  try {
    text = chat_template_->render(conversation, chat_options(episode));
  } catch (const Error& error) {
    fail_usage("an observation cannot be the user's message in this chat: {}", error.what());
  }
  const size_t at = text.find(turn);
  if (at == std::string::npos) {
    fail_usage(
        "{}: this chat template does not print what an assistant has said in an earlier turn, "
        "so that no observation can follow it; use a template that does, "
        "or rewards without observations",
        tokenizer_.chat_template_file());
  }
  std::vector<int32_t> ids = tokenizer_.encode(std::string_view(text).substr(at + turn.size()),
                                               /*add_special_tokens=*/false);
  // Some templates print a space before the end of the turn. It is dropped, as the
  // policy's tokens are not changed.
  const auto end = end_token ? std::find(ids.begin(), ids.end(), *end_token) : ids.end();
  const std::vector<int32_t> before(ids.begin(), end);
  if (end != ids.end() && strip(tokenizer_.decode(before, /*skip_special_tokens=*/false)).empty()) {
    ids.erase(ids.begin(), end + 1);
  }
  return ids;
}

}  // namespace orrery::actors
