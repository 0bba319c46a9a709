"""Small transformers with random weights as Hugging Face stores them, and what they compute, in float64 and with whole N x N maps.

KINDS names them. make(kind, folder) writes config.json, model.safetensors and a tokenizer.json of bytes; forward(model, ids, ...)
computes. Written from the descriptions of the architectures, apart from the program; each kind was compared with the `transformers`
package (5.24) once. For a try:  python3 tests/cli/tiny_transformers.py KIND FOLDER
"""
import json
import pathlib
import struct
import sys

import numpy as np

VOCABULARY = 260  # a token for each byte, and four special ones
TYPES = {"F32": (np.float32, 4), "BF16": (None, 2), "F16": (np.float16, 2)}


def rounded(values, dtype):
    """The values as a file of this type holds them: (bytes, what is read back as float64)."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
        bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return bits.tobytes(), (bits.astype(np.uint32) << 16).view(np.float32).astype(float)
    stored = values.astype(TYPES[dtype][0])
    return stored.tobytes(), stored.astype(float)


def write_safetensors(path, tensors, dtype="F32"):
    """Writes name -> array, and returns them as they are read back."""
    header, data, back = {"__metadata__": {"format": "pt"}}, b"", {}
    for name, values in tensors.items():
        packed, back[name] = rounded(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return back


BASE = dict(vocab_size=VOCABULARY, hidden_size=40, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, head_dim=12, rms_norm_eps=1e-5, hidden_act="silu",
            tie_word_embeddings=False)
KINDS = {
    "llama": dict(BASE, rope_theta=5000.0),
    "llama3": dict(BASE, model_type="llama", tie_word_embeddings=True, attention_bias=True, rope_theta=10000.0,
                   rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=32)),
    "mistral": dict(BASE, sliding_window=9),
    "qwen3": dict(BASE),
    "olmo2": dict(BASE, head_dim=10),
    "phi3": dict(BASE, head_dim=10),
    "gemma3_text": dict(BASE, hidden_activation="gelu_pytorch_tanh", sliding_window=7, query_pre_attn_scalar=20,
                        tie_word_embeddings=True, rope_parameters=dict(
                            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                            sliding_attention=dict(rope_type="default", rope_theta=1e4)),
                        layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "gpt_neox": dict(vocab_size=VOCABULARY, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
                     max_position_embeddings=256, rotary_pct=0.4, rotary_emb_base=10000, layer_norm_eps=1e-5,
                     hidden_act="gelu", use_parallel_residual=True, tie_word_embeddings=False),
    "gpt2": dict(vocab_size=VOCABULARY, n_embd=40, n_layer=2, n_head=4, n_positions=256, layer_norm_epsilon=1e-5,
                 activation_function="gelu_new"),
    "modernbert": dict(vocab_size=VOCABULARY, hidden_size=40, intermediate_size=56, num_hidden_layers=4, num_attention_heads=4,
                       max_position_embeddings=256, norm_eps=1e-5, hidden_activation="gelu", local_attention=10,
                       global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0),
}


class Model:
    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        self.kind = config["model_type"]
        self.layers = config.get("num_hidden_layers") or config["n_layer"]
        self.channels = config.get("hidden_size") or config["n_embd"]
        self.heads = config.get("num_attention_heads") or config["n_head"]
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.head_dim = config.get("head_dim", self.channels // self.heads)
        self.causal = self.kind != "modernbert"

    def window(self, layer):
        """(keys before, keys behind) that a layer's queries see; None: all."""
        c = self.config
        if self.kind == "mistral" or (self.kind == "gemma3_text" and c["layer_types"][layer] == "sliding_attention"):
            return c["sliding_window"] - 1, 0
        if self.kind == "modernbert" and layer % c["global_attn_every_n_layers"]:
            return c["local_attention"] // 2, c["local_attention"] // 2
        return None


def shapes(m):
    """name -> shape of all tensors."""
    c, d = m.config, m.channels
    q, kv, inner = m.heads * m.head_dim, m.kv_heads * m.head_dim, c.get("intermediate_size", 4 * d)
    out = {}

    def norm(name, width=d, bias=False):
        out[name + ".weight"] = (width,)
        if bias:
            out[name + ".bias"] = (width,)

    if m.kind == "gpt_neox":
        out["gpt_neox.embed_in.weight"] = out["embed_out.weight"] = (VOCABULARY, d)
        norm("gpt_neox.final_layer_norm", bias=True)
        for at in (f"gpt_neox.layers.{n}." for n in range(m.layers)):
            norm(at + "input_layernorm", bias=True)
            norm(at + "post_attention_layernorm", bias=True)
            for name, shape in [("attention.query_key_value", (3 * q, d)), ("attention.dense", (d, q)),
                                ("mlp.dense_h_to_4h", (inner, d)), ("mlp.dense_4h_to_h", (d, inner))]:
                out[at + name + ".weight"], out[at + name + ".bias"] = shape, shape[:1]
    elif m.kind == "gpt2":
        out["transformer.wte.weight"], out["transformer.wpe.weight"] = (VOCABULARY, d), (c["n_positions"], d)
        norm("transformer.ln_f", bias=True)
        for at in (f"transformer.h.{n}." for n in range(m.layers)):
            norm(at + "ln_1", bias=True)
            norm(at + "ln_2", bias=True)
            for name, shape in [("attn.c_attn", (d, 3 * d)), ("attn.c_proj", (d, d)), ("mlp.c_fc", (d, 4 * d)),
                                ("mlp.c_proj", (4 * d, d))]:
                out[at + name + ".weight"], out[at + name + ".bias"] = shape, shape[1:]
    elif m.kind == "modernbert":
        out["model.embeddings.tok_embeddings.weight"] = (VOCABULARY, d)
        norm("model.embeddings.norm")
        norm("model.final_norm")
        for n in range(m.layers):
            at = f"model.layers.{n}."
            if n:
                norm(at + "attn_norm")
            norm(at + "mlp_norm")
            out[at + "attn.Wqkv.weight"], out[at + "attn.Wo.weight"] = (3 * d, d), (d, d)
            out[at + "mlp.Wi.weight"], out[at + "mlp.Wo.weight"] = (2 * inner, d), (d, inner)
    else:
        out["model.embed_tokens.weight"] = (VOCABULARY, d)
        if not c["tie_word_embeddings"]:
            out["lm_head.weight"] = (VOCABULARY, d)
        norm("model.norm")
        for at in (f"model.layers.{n}." for n in range(m.layers)):
            if m.kind != "olmo2":
                norm(at + "input_layernorm")
            norm(at + "post_attention_layernorm")
            if m.kind in ("olmo2", "gemma3_text"):
                norm(at + "post_feedforward_layernorm")
            if m.kind == "gemma3_text":
                norm(at + "pre_feedforward_layernorm")
            if m.kind in ("qwen3", "gemma3_text"):
                norm(at + "self_attn.q_norm", m.head_dim)
                norm(at + "self_attn.k_norm", m.head_dim)
            if m.kind == "olmo2":
                norm(at + "self_attn.q_norm", q)
                norm(at + "self_attn.k_norm", kv)
            if m.kind == "phi3":
                out[at + "self_attn.qkv_proj.weight"] = (q + 2 * kv, d)
                out[at + "mlp.gate_up_proj.weight"] = (2 * inner, d)
            else:
                for name, rows in [("q", q), ("k", kv), ("v", kv)]:
                    out[at + f"self_attn.{name}_proj.weight"] = (rows, d)
                    if c.get("attention_bias"):
                        out[at + f"self_attn.{name}_proj.bias"] = (rows,)
                out[at + "mlp.gate_proj.weight"] = out[at + "mlp.up_proj.weight"] = (inner, d)
            out[at + "self_attn.o_proj.weight"] = (d, q)
            if c.get("attention_bias"):
                out[at + "self_attn.o_proj.bias"] = (d,)
            out[at + "mlp.down_proj.weight"] = (d, inner)
    return out


def byte_letters():
    """The character for each byte in vocabularies of byte-level BPE: printable ones are themselves, the others follow U+0100."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def tokenizer():
    """A tokenizer.json of single bytes, with <s> before each text."""
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    vocabulary = {letter: n for n, letter in enumerate([*byte_letters(), *special])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level, "decoder": level,
            "added_tokens": [{"id": vocabulary[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for name in special],
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": {"<s>": {"id": "<s>", "ids": [vocabulary["<s>"]], "tokens": ["<s>"]}}},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": []}}


def make(kind, folder, seed=1, dtype="F32", shards=1):
    """Writes a model and returns it as the files hold it."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = dict({"model_type": kind}, **KINDS[kind])
    source = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes(Model(config, {})).items():
        centre = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        tensors[name] = centre + source.standard_normal(shape) * (0.1 if len(shape) == 1 else 0.25)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), ensure_ascii=False))
    if shards == 1:
        return Model(config, write_safetensors(folder / "model.safetensors", tensors, dtype))
    weights, names, index = {}, sorted(tensors), {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[n::shards]}
        weights.update(write_safetensors(folder / file, part, dtype))
        index.update({name: file for name in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return Model(config, weights)


def frequencies(m, layer):
    """Of rotary positions; None: there are none."""
    c = m.config
    if m.kind == "gpt2":
        return None
    turned, base, rules = m.head_dim, c.get("rope_theta", 10000.0), c.get("rope_scaling")
    if m.kind == "gpt_neox":
        turned, base = int(m.head_dim * c["rotary_pct"]), c["rotary_emb_base"]
    if m.kind == "modernbert":
        base = c["local_rope_theta"] if m.window(layer) else c["global_rope_theta"]
    if m.kind == "gemma3_text":
        rules = c["rope_parameters"][c["layer_types"][layer]]
        base = rules["rope_theta"]
    f = base ** (-np.arange(0, turned, 2) / turned)
    if rules and rules["rope_type"] == "linear":
        f = f / rules["factor"]
    if rules and rules["rope_type"] == "llama3":
        waves = rules["original_max_position_embeddings"] * f / (2 * np.pi)
        low, high = rules["low_freq_factor"], rules["high_freq_factor"]
        kept = np.clip((waves - low) / (high - low), 0, 1)
        f = (1 - kept) * f / rules["factor"] + kept * f
    return f


def turned(x, positions, f):
    """x [tokens, heads, channels] turned by its positions: channel c with channel c + half."""
    if f is None:
        return x
    angle = positions[:, None, None] * f
    half, x = len(f), x.copy()
    a, b = x[..., :half].copy(), x[..., half:2 * half].copy()
    x[..., :half], x[..., half:2 * half] = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
    return x


def erf(x):
    """To 1e-13, by its series and its continued fraction."""
    x = np.asarray(x, float)
    small, total, term = np.clip(x, -3, 3), np.zeros_like(x), np.clip(x, -3, 3)
    for n in range(80):
        total = total + term / (2 * n + 1)
        term = -term * small ** 2 / (n + 1)
    large, tail = np.maximum(np.abs(x), 3), np.zeros_like(x)
    for n in range(60, 0, -1):
        tail = n / 2 / (large + tail)
    far = 1 - np.exp(-large ** 2) / np.sqrt(np.pi) / (large + tail)
    return np.where(np.abs(x) < 3, 2 / np.sqrt(np.pi) * total, np.sign(x) * far)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3))),
}
ACTIVATIONS["gelu_pytorch_tanh"] = ACTIVATIONS["gelu_new"]


def forward(m, ids, positions=None, visible=None):
    """What the model computes of some ids: a dict of residual, out, q, k, v, p (lists over layers), and logits.
    visible [tokens, tokens]: pairs that the mask allows; None: all. Causality and windows come besides."""
    c, w, tokens = m.config, m.weights, len(ids)
    positions = np.arange(tokens) if positions is None else np.asarray(positions)
    centred = m.kind in ("gpt_neox", "gpt2", "modernbert")
    epsilon = c.get("rms_norm_eps") or c.get("layer_norm_eps") or c.get("layer_norm_epsilon") or c["norm_eps"]
    act = ACTIVATIONS[c.get("hidden_act") or c.get("hidden_activation") or c["activation_function"]]
    if m.kind == "gemma3_text":
        act = ACTIVATIONS[c["hidden_activation"]]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True) if centred else x
        x = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + epsilon)
        scale = w[name + ".weight"] + (1 if m.kind == "gemma3_text" else 0)
        return x * scale + w.get(name + ".bias", 0)

    def linear(name, x):
        matrix = w[name + ".weight"]
        return x @ (matrix if m.kind == "gpt2" else matrix.T) + w.get(name + ".bias", 0)

    def heads(x, count):
        return x.reshape(tokens, count, m.head_dim)

    prefix = {"gpt_neox": "gpt_neox.layers.", "gpt2": "transformer.h."}.get(m.kind, "model.layers.")
    embedding = {"gpt_neox": "gpt_neox.embed_in", "gpt2": "transformer.wte",
                 "modernbert": "model.embeddings.tok_embeddings"}.get(m.kind, "model.embed_tokens")
    x = w[embedding + ".weight"][np.asarray(ids)]
    if m.kind == "gpt2":
        x = x + w["transformer.wpe.weight"][positions]
    if m.kind == "modernbert":
        x = norm("model.embeddings.norm", x)
    if m.kind == "gemma3_text":
        x = x * np.sqrt(m.channels)
    scale = c["query_pre_attn_scalar"] ** -0.5 if m.kind == "gemma3_text" else m.head_dim ** -0.5
    result = {name: [] for name in ("residual", "out", "q", "k", "v", "p", "mlp")}
    step = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    for n in range(m.layers):
        at, q_width, kv_width = f"{prefix}{n}.", m.heads * m.head_dim, m.kv_heads * m.head_dim
        if m.kind == "gpt_neox":
            both = linear(at + "attention.query_key_value", norm(at + "input_layernorm", x))
            q, k, v = np.moveaxis(both.reshape(tokens, m.heads, 3, m.head_dim), 2, 0)
        else:
            if m.kind == "gpt2":
                both = linear(at + "attn.c_attn", norm(at + "ln_1", x))
            elif m.kind == "modernbert":
                both = linear(at + "attn.Wqkv", norm(at + "attn_norm", x) if n else x)
            elif m.kind == "phi3":
                both = linear(at + "self_attn.qkv_proj", norm(at + "input_layernorm", x))
            else:
                y = x if m.kind == "olmo2" else norm(at + "input_layernorm", x)
                q, k, v = (linear(at + f"self_attn.{name}_proj", y) for name in "qkv")
                if m.kind == "olmo2":
                    q, k = norm(at + "self_attn.q_norm", q), norm(at + "self_attn.k_norm", k)
                both = np.concatenate([q, k, v], -1)
            q, k, v = np.split(both, [q_width, q_width + kv_width], -1)
            q, k, v = heads(q, m.heads), heads(k, m.kv_heads), heads(v, m.kv_heads)
            if m.kind in ("qwen3", "gemma3_text"):
                q, k = norm(at + "self_attn.q_norm", q), norm(at + "self_attn.k_norm", k)
        f = frequencies(m, n)
        q, k = turned(q, positions, f), turned(k, positions, f)
        see = np.ones((tokens, tokens), bool) if visible is None else visible.copy()
        if m.causal:
            see &= step <= 0
        if m.window(n):
            see &= (-m.window(n)[0] <= step) & (step <= m.window(n)[1])
        group = m.heads // m.kv_heads
        s = scale * np.einsum("ihc,jhc->hij", q, np.repeat(k, group, 1))
        s = np.where(see, s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        out = np.einsum("hij,jhc->ihc", p, np.repeat(v, group, 1)).reshape(tokens, -1)
        if m.kind == "gpt_neox":
            more = linear(at + "attention.dense", out)
            y = norm(at + "post_attention_layernorm", x)
            mlp = linear(at + "mlp.dense_4h_to_h", act(linear(at + "mlp.dense_h_to_4h", y)))
            x = x + more + mlp
        elif m.kind == "gpt2":
            x = x + linear(at + "attn.c_proj", out)
            mlp = linear(at + "mlp.c_proj", act(linear(at + "mlp.c_fc", norm(at + "ln_2", x))))
            x = x + mlp
        elif m.kind == "modernbert":
            x = x + linear(at + "attn.Wo", out)
            gate, up = np.split(linear(at + "mlp.Wi", norm(at + "mlp_norm", x)), 2, -1)
            mlp = linear(at + "mlp.Wo", act(gate) * up)
            x = x + mlp
        else:
            more = linear(at + "self_attn.o_proj", out)
            behind = m.kind in ("olmo2", "gemma3_text")
            x = x + (norm(at + "post_attention_layernorm", more) if behind else more)
            before = {"olmo2": None, "gemma3_text": "pre_feedforward_layernorm"}.get(m.kind, "post_attention_layernorm")
            y = norm(at + before, x) if before else x
            if m.kind == "phi3":
                gate, up = np.split(linear(at + "mlp.gate_up_proj", y), 2, -1)
            else:
                gate, up = linear(at + "mlp.gate_proj", y), linear(at + "mlp.up_proj", y)
            mlp = linear(at + "mlp.down_proj", act(gate) * up)
            mlp = norm(at + "post_feedforward_layernorm", mlp) if behind else mlp
            x = x + mlp
        for name, value in dict(residual=x, out=out, q=q, k=k, v=v, p=p, mlp=mlp).items():
            result[name].append(value)
    if m.causal:
        final = {"gpt_neox": "gpt_neox.final_layer_norm", "gpt2": "transformer.ln_f"}.get(m.kind, "model.norm")
        head = w.get("lm_head.weight", w.get("embed_out.weight", w[embedding + ".weight"]))
        result["logits"] = norm(final, x) @ head.T
    return result


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2])
