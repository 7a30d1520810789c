// What a chat model is to learn from an answer: the tokens that it would have to generate after the prompt
// for the conversation to read as its template prints it. A template says more than the answer's text: ChatML
// ends the turn with <|im_end|>, Qwen 3 puts an empty thought before it, others a space; a model that is
// trained on the bare text never learns to end its turn.
//
// Thread-safe, as all it reads is immutable.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/chat_template.h"
#include "models/tokenizer.h"

namespace orrery {

struct ChatExample {
  std::vector<int32_t> prompt, response;
};

/// prompt: the tokens of render(messages) with the generation prompt, which generation begins from.
/// response: render(messages and the assistant's `answer`, no generation prompt) from where that prompt ends,
/// up to and including the first token that ends a sequence (Tokenizer::eos_ids). When the template prints
/// none, the tokenizer's first one is added, so that the model learns to stop.
///
/// The response's tokens are those of the whole conversation when they begin with the prompt's; else, because
/// a token would reach over the border (ids in, ids out: generation never takes back a token), those of the
/// response's text alone.
///
/// `options`: further variables of the template; add_generation_prompt is set here. Error naming the
/// template's file when it prints the answered conversation otherwise than the prompt begins (what to train
/// on is then unknown; the text shows where they part), or when it prints nothing for an answer or ends the
/// sequence before it. REQUIRES: the template is not plain.
ChatExample chat_example(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                         std::span<const ChatMessage> messages, const std::string& answer,
                         ChatOptions options = {});

}  // namespace orrery
