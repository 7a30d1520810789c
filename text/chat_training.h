// A chat model is to learn from an answer the tokens that it would have to generate
// after the prompt so that the conversation reads as its template prints it. A template
// prints more than the answer's text: ChatML ends the turn with <|im_end|>, Qwen 3 puts
// an empty thought before the text, others put a space. A model that is trained on the
// bare text never learns to end its turn.
//
// Thread-safe, as all arguments are immutable.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace orrery::text {

struct ChatExample {
  std::vector<int32_t> prompt, response;
  /// One per response token: 1 if it is learned, 0 if it stands between two of the
  /// assistant's turns. Empty when all tokens are learned.
  std::vector<uint8_t> loss_mask;
};

/// Which of the assistant's messages in a conversation are learned.
enum class LearnedTurns { kLast, kAll };

/// The example that a conversation gives whose last message is the assistant's.
///
/// With kLast, only that message is learned:
///   - prompt: the tokens of the messages before it, rendered with the generation
///     prompt. Generation would begin after it.
///   - response: the whole conversation, rendered without a generation prompt, from the
///     end of the prompt up to and including the first token that ends a sequence
///     (Tokenizer::eos_ids). If the template prints none, the tokenizer's first one is
///     added, so that the model learns to stop.
///
/// With kAll, all of the assistant's messages are learned: prompt is that of the first
/// one, and response is everything from there to the end of the last one. Each message
/// is learned as if it were the last, and the text between them is masked. Where the
/// template prints no token that ends a sequence after a message in the middle, none is
/// added: everything that it prints for the message is learned.
///
/// The response's ids are those of the whole text if they begin with the ids so far. If
/// they do not, a token would reach across the border; but generation never takes back
/// a token (ids in, ids out), so the text after the border is then encoded alone.
///
/// `options` are further variables of the template; add_generation_prompt is set here.
/// Throws Error naming the template's file
///   - when the answered conversation does not begin with the prompt, or when an
///     earlier turn changes once the conversation goes on: it is then unknown what to
///     train on, and the message shows where the texts part;
///   - when the template prints nothing for an answer or ends the sequence before it.
/// REQUIRES: the template is not plain; messages stand before each one that is learned.
ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> conversation, LearnedTurns turns,
                         ChatOptions options = {});

/// The example for `messages` and the assistant's `answer` to them, with kLast.
ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> messages, const std::string& answer,
                         const ChatOptions& options = {});

/// Throws Error when the assistant's message contains a token that ends a sequence, in
/// its text or in its calls and thoughts. Generation ends at such a token, so the rest
/// would not be learned, which its author cannot have meant. At the end of the text the
/// token is allowed.
void check_no_end_inside(const Tokenizer& tokenizer, const ChatMessage& answer);

}  // namespace orrery::text
