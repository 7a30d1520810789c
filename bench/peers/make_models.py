#!/usr/bin/env python3
"""Writes the models that the peers are measured on: Hugging Face folders and GGUF files with random weights.

    bench/peers/make_models.py build/bench_models

Speed depends on shapes, not on values. Each model has a byte-level BPE tokenizer of its vocabulary's size, so that
what loads one at start has the usual work. Needs nothing but Python; 2 GB of disk. What is there already is kept.
"""
import argparse
import array
import itertools
import json
import pathlib
import random
import struct

SHAPES = {
    # SmolLM2-135M's shape.
    "135m": dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                 intermediate_size=1536, vocab_size=49152),
    "15m": dict(hidden_size=288, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=6,
                intermediate_size=768, vocab_size=32000),
    "8m": dict(hidden_size=288, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=6,
               intermediate_size=768, vocab_size=6400),
}
GGUF_TYPES = {"135m": ("f32", "bf16"), "15m": ("f32",), "8m": ()}
EOS, PAD = "<|endoftext|>", "<|pad|>"
POSITIONS, ROPE_THETA, NORM_EPS = 2048, 100000.0, 1e-5


def hf_config(shape):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", **shape,
        "head_dim": shape["hidden_size"] // shape["num_attention_heads"], "max_position_embeddings": POSITIONS,
        "rope_theta": ROPE_THETA, "rms_norm_eps": NORM_EPS, "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "initializer_range": 0.02,
        "torch_dtype": "float32",
    }


def vocabulary(size):
    """Tokens in order of their ids, and merges: two special tokens, the 256 bytes, then words of 2,
    3, ... letters."""
    printable = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    spare = itertools.count(256)
    tokens = [EOS, PAD] + [chr(b) if b in printable else chr(next(spare)) for b in range(256)]
    merges = []
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = list(letters)
    while True:
        longer = []
        for word in words:
            for letter in letters:
                if len(tokens) == size:
                    return tokens, merges
                tokens.append(word + letter)
                merges.append((word, letter))
                longer.append(word + letter)
        words = longer


def tokenizer_json(tokens, merges):
    special = [{
        "id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True
    } for i in range(2)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: i for i, token in enumerate(tokens)},
                      "merges": [f"{a} {b}" for a, b in merges]}}


def tensors(shape):
    """(Hugging Face name, GGUF name, shape) of every parameter."""
    hidden, ffn, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    yield "model.embed_tokens.weight", "token_embd.weight", (vocab, hidden)
    for i in range(shape["num_hidden_layers"]):
        for theirs, gguf, dims in (
                ("input_layernorm", "attn_norm", (hidden,)), ("self_attn.q_proj", "attn_q", (hidden, hidden)),
                ("self_attn.k_proj", "attn_k", (kv, hidden)), ("self_attn.v_proj", "attn_v", (kv, hidden)),
                ("self_attn.o_proj", "attn_output", (hidden, hidden)),
                ("post_attention_layernorm", "ffn_norm", (hidden,)), ("mlp.gate_proj", "ffn_gate", (ffn, hidden)),
                ("mlp.up_proj", "ffn_up", (ffn, hidden)), ("mlp.down_proj", "ffn_down", (hidden, ffn))):
            yield f"model.layers.{i}.{theirs}.weight", f"blk.{i}.{gguf}.weight", dims
    yield "model.norm.weight", "output_norm.weight", (hidden,)


class Weights:
    """Normal numbers, repeated with a prime period: quick to write, and no two rows alike."""

    def __init__(self):
        generator = random.Random(1)
        values = array.array("f", (generator.gauss(0.0, 0.02) for _ in range(1000003)))
        self.f32 = values.tobytes()
        self.bf16 = array.array("H",
                                self.f32)[1::2].tobytes()  # the upper halves: rounded towards zero

    def write(self, file, count, offset, dtype):
        block, width = (self.bf16, 2) if dtype == "bf16" else (self.f32, 4)
        at, left = offset * width % len(block), count * width
        while left > 0:
            part = block[at:at + left]
            file.write(part)
            left -= len(part)
            at = 0


def count_of(dims):
    return dims[0] * dims[1] if len(dims) == 2 else dims[0]


def write_values(file, weights, all_tensors, dtype, alignment):
    offset = 0
    for _, _, dims in all_tensors:
        count = count_of(dims)
        if len(dims) == 1:
            file.write(array.array("f", [1.0] * count).tobytes())
        else:
            weights.write(file, count, offset, dtype)
        file.write(bytes(-file.tell() % alignment))
        offset += count


def write_safetensors(path, weights, shape):
    header, at = {}, 0
    all_tensors = list(tensors(shape))
    for name, _, dims in all_tensors:
        header[name] = {"dtype": "F32", "shape": list(dims), "data_offsets": [at, at + 4 * count_of(dims)]}
        at += 4 * count_of(dims)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        write_values(file, weights, all_tensors, "f32", 1)


def gguf_string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_entry(key, value):
    """A key with its value: the types are u32 4, i32 5, f32 6, bool 7, string 8, array 9."""
    if isinstance(value, bool):
        return gguf_string(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return gguf_string(key) + struct.pack("<II", 4, value)
    if isinstance(value, float):
        return gguf_string(key) + struct.pack("<If", 6, value)
    if isinstance(value, str):
        return gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    head = gguf_string(key) + struct.pack("<I", 9)
    if isinstance(value[0], str):
        return head + struct.pack("<IQ", 8, len(value)) + b"".join(map(gguf_string, value))
    return head + struct.pack(f"<IQ{len(value)}i", 5, len(value), *value)


def write_gguf(path, weights, shape, tokens, merges, dtype):
    heads = shape["num_attention_heads"]
    entries = {
        "general.architecture": "llama", "general.name": "random weights", "general.alignment": 32,
        "general.file_type": 32 if dtype == "bf16" else 0,
        "llama.block_count": shape["num_hidden_layers"], "llama.context_length": POSITIONS,
        "llama.embedding_length": shape["hidden_size"], "llama.feed_forward_length": shape["intermediate_size"],
        "llama.attention.head_count": heads, "llama.attention.head_count_kv": shape["num_key_value_heads"],
        "llama.rope.dimension_count": shape["hidden_size"] // heads, "llama.rope.freq_base": ROPE_THETA,
        "llama.attention.layer_norm_rms_epsilon": NORM_EPS, "llama.vocab_size": shape["vocab_size"],
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),  # 3: control, 1: normal
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges], "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }
    all_tensors = list(tensors(shape))
    infos, at = [], 0
    for _, name, dims in all_tensors:
        matrix = len(dims) == 2
        kind, width = (30, 2) if matrix and dtype == "bf16" else (0, 4)
        infos.append(
            gguf_string(name) +
            struct.pack(f"<I{len(dims)}QIQ", len(dims), *reversed(dims), kind, at))
        at += -(-count_of(dims) * width // 32) * 32
    with open(path, "wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(all_tensors), len(entries)))
        for key, value in entries.items():
            file.write(gguf_entry(key, value))
        file.write(b"".join(infos))
        file.write(bytes(-file.tell() % 32))
        write_values(file, weights, all_tensors, dtype, 32)


def publish(path, write):
    """Writes beside `path` and renames, so that a file with this name is whole."""
    if path.exists():
        return
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.rename(path)
    print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder to write to")
    parser.add_argument("--shapes", default=",".join(SHAPES),
                        help="which of them (default: %(default)s)")
    parser.add_argument("--no-gguf", action="store_true", help="leave llama.cpp's files out")
    options = parser.parse_args()
    names = options.shapes.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"--shapes {','.join(unknown)}: the shapes are {', '.join(SHAPES)}")
    weights = Weights()
    for name in names:
        shape, folder = SHAPES[name], options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        tokens, merges = vocabulary(shape["vocab_size"])
        texts = {
            "config.json": hf_config(shape), "generation_config.json": {"eos_token_id": 0, "pad_token_id": 1},
            "tokenizer.json": tokenizer_json(tokens, merges),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": PAD,
                                      "model_max_length": POSITIONS, "clean_up_tokenization_spaces": False},
        }
        for file, content in texts.items():
            (folder / file).write_text(json.dumps(content))
        publish(folder / "model.safetensors", lambda path: write_safetensors(path, weights, shape))
        for dtype in () if options.no_gguf else GGUF_TYPES[name]:
            publish(options.out / f"{name}-{dtype}.gguf",
                    lambda path: write_gguf(path, weights, shape, tokens, merges, dtype))


if __name__ == "__main__":
    main()
