"""A model that says what it is told: tests put any text into the real command's mouth.

    model = ScriptedModel(folder, special=["<eos>"], words=["<q0>", "#### 42"])
    model.say("<q0>", "#### 42"); model.say("#### 42", "<eos>")
    model.write(eos_token="<eos>")
    orrery generate --model folder --prompt "<q0>" --temperature 0     # "#### 42"

One token after another, by a table: after token a comes follower[a]; of several followers each is
as likely as the others. The tokenizer has the 256 bytes (ids 0 to 255), then `special` and `words`
as added tokens, in that order. The model is a Llama of one layer whose attention and MLP are zero:
embeddings are one-hot, so its head's column a, scaled, is what follows a. Needs Python's standard
library only.
"""
import json
import math
import pathlib
import struct

LOGIT = 40.0  # of what comes next; everything else has 0


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(256 + len(alphabet) - len(printable))
    return alphabet


def added_token(index, content, special, **more):
    return {"id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special, **more}


class ScriptedModel:
    def __init__(self, folder, special=("<eos>",), words=()):
        self.folder = pathlib.Path(folder)
        self.tokens = [*((content, True) for content in special), *((content, False) for content in words)]
        self.ids = {content: 256 + index for index, (content, _) in enumerate(self.tokens)}
        self.followers = {}  # id -> ids
        self.default = None  # what follows a token of which nothing is said

    def id(self, token):
        """Of an added token, or of a single byte given as text."""
        return self.ids[token] if token in self.ids else ord(token)

    def say(self, after, *then):
        """After token `after` comes one of `then`."""
        self.followers[self.id(after)] = [self.id(token) for token in then]

    def say_all(self, first, *rest):
        """A chain: rest[0] after first, rest[1] after rest[0], ..."""
        chain = [first, *rest]
        for after, then in zip(chain, chain[1:]):
            self.say(after, then)

    def tokenizer(self):
        alphabet = byte_alphabet()
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {"version": "1.0", "truncation": None, "padding": None,
                "added_tokens": [added_token(256 + i, content, special) for i, (content, special) in enumerate(self.tokens)],
                "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
                "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                          "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                          "vocab": {alphabet[byte]: byte for byte in range(256)}, "merges": []}}

    def write(self, tokenizer_config=None, generation_config=None, config=None, files=None,
              tokenizer=None, context=4096, **named):
        """The folder. `named`: entries of tokenizer_config.json (eos_token="<eos>",
        chat_template=...). `config`: entries of config.json; `files`: further files, name -> JSON
        or text; `tokenizer`: changes the tokenizer.json in place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        vocabulary = 256 + len(self.tokens)
        hidden = (vocabulary + 63) // 64 * 64
        files = dict(files or {})
        files["config.json"] = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16,
            "vocab_size": vocabulary, "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": False, "torch_dtype": "float32", "hidden_act": "silu", **(config or {})}
        layout = self.tokenizer()
        if tokenizer:
            tokenizer(layout)
        files["tokenizer.json"] = layout
        files["tokenizer_config.json"] = {**named, **(tokenizer_config or {})}
        if generation_config is not None:
            files["generation_config.json"] = generation_config
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (self.folder / name).write_text(text, encoding="utf-8")
        self._write_weights(vocabulary, hidden)
        return self.folder

    def _write_weights(self, vocabulary, hidden):
        layer = "model.layers.0."
        shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden),
                  "model.norm.weight": (hidden,), layer + "input_layernorm.weight": (hidden,),
                  layer + "post_attention_layernorm.weight": (hidden,), layer + "self_attn.q_proj.weight": (16, hidden),
                  layer + "self_attn.k_proj.weight": (16, hidden), layer + "self_attn.v_proj.weight": (16, hidden),
                  layer + "self_attn.o_proj.weight": (hidden, 16), layer + "mlp.gate_proj.weight": (16, hidden),
                  layer + "mlp.up_proj.weight": (16, hidden), layer + "mlp.down_proj.weight": (hidden, 16)}
        header, data = {"__metadata__": {"format": "pt"}}, bytearray()
        for name, shape in shapes.items():
            size = 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
            if name.endswith("norm.weight"):
                data += struct.pack("<f", 1.0) * shape[0]
            else:
                data += bytes(size)

        def put(name, row, column, value):
            struct.pack_into("<f", data,
                             header[name]["data_offsets"][0] + 4 * (row * hidden + column), value)

        for token in range(vocabulary):
            put("model.embed_tokens.weight", token, token, 1.0)
            # RMSNorm makes the one-hot vector sqrt(hidden) long.
            for follower in self.followers.get(
                    token, [] if self.default is None else [self.id(self.default)]):
                put("lm_head.weight", follower, token, LOGIT / math.sqrt(hidden))
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (self.folder /
         "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
