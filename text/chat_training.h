// What a chat model is to learn from an answer: the tokens that it would have to
// generate after the prompt for the conversation to read as its template prints it. A
// template says more than the answer's text: ChatML ends the turn with <|im_end|>, Qwen
// 3 puts an empty thought before it, others a space; a model that is trained on the
// bare text never learns to end its turn.
//
// Thread-safe, as all it reads is immutable.
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
  /// Of each response token, 0: it is not learned (what stands between two assistant's
  /// turns). Empty: all are.
  std::vector<uint8_t> loss_mask;
};

/// Which assistant's messages of a conversation are learned.
enum class LearnedTurns { kLast, kAll };

/// What is learned of a conversation whose last message is the assistant's. Of that
/// message alone:
///
/// prompt: the tokens of the messages before it, rendered with the generation prompt,
/// which generation begins from.
/// response: the whole conversation, rendered without one, from where that prompt ends,
/// up to and including the first token that ends a sequence (Tokenizer::eos_ids). When
/// the template prints none, the tokenizer's first one is added, so that the model
/// learns to stop.
///
/// Of all the assistant's messages (kAll): prompt is that of the first one, response
/// everything from there to the end of the last one, each of them learned as if it were
/// the last, what stands between masked. In the middle of a conversation no token is
/// added where the template prints none that ends a sequence: all that it prints for
/// the message is learned.
///
/// The response's tokens are those of the whole text when they begin with the tokens
/// before; else, because a token would reach over the border (ids in, ids out:
/// generation never takes back a token), those of the text from the border on alone.
///
/// `options`: further variables of the template; add_generation_prompt is set here.
/// Error naming the template's file when it prints the answered conversation otherwise
/// than the prompt begins, or an earlier turn otherwise once the conversation goes on
/// (what to train on is then unknown; the text shows where they part), or when it
/// prints nothing for an answer or ends the sequence before it. REQUIRES: the template
/// is not plain; messages stand before each one that is learned.
ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> conversation, LearnedTurns turns,
                         ChatOptions options = {});

/// The same of `messages` and the assistant's `answer` to them.
ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> messages, const std::string& answer,
                         const ChatOptions& options = {});

/// Error when an assistant's message has inside, in its text or in its calls and
/// thoughts, a token that ends a sequence: generation ends there, so that what follows
/// would not be learned, which is not what its author meant. At the end of the text it
/// may stand.
void check_no_end_inside(const Tokenizer& tokenizer, const ChatMessage& answer);

}  // namespace orrery::text
