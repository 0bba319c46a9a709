"""run with trained transformers: every kind against whole maps in float64, over ranks, masks and types; and what is refused."""
import json
import math
import struct
import unittest
import unittest.mock

from program import MPIRUN, ProgramTest, needs

needs("numpy", "h5py")

import h5py
import numpy as np

import tiny_transformers as tf

EPSILON = 2.0 ** -24
# A few hundred f32 roundings on the way through three layers, each of them relative to numbers of about the largest size: 100 eps
# of the largest were not reached by any kind (the worst had 25).
F32 = 100 * EPSILON
BF16 = 0.06  # rounded again before every product: 2^-9 each


class ModelTest(ProgramTest):
    def ids(self, tokens=61, seed=3):
        return np.random.default_rng(seed).integers(0, tf.VOCABULARY, tokens)

    def write_ids(self, *documents, name="ids"):
        paths = []
        for n, ids in enumerate(documents):
            paths.append(self.scratch / f"{name}{n}.txt")
            paths[-1].write_text(" ".join(map(str, ids)) + "\n")
        return paths

    def run_model(self, folder, paths, *more, **how):
        output = self.scratch / "out.h5"
        self.succeeds("run", *paths, "--model", folder, "--tokens", "ids", "--output", output, "--overwrite",
                      "--activations", "residual,out,mlp,q,k,v", "--top-k", "64", *more, **how)
        with h5py.File(output) as file:
            found = {}
            file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
            found["/"] = dict(file.attrs)
        return found

    def near(self, what, found, exact, bound):
        self.assertEqual(found.shape, exact.shape, what)
        error = np.abs(found - exact).max() / max(1.0, np.abs(exact).max())
        self.assertLessEqual(error, bound, what)

    def check(self, model, found, exact, ids, bound):
        tokens = len(ids)
        for n in range(model.layers):
            at = f"layers/{n:03}/"
            for name in ("residual", "out", "mlp", "q", "k", "v"):
                self.near(at + name, found[at + name], exact[name][n], bound)
            p, traces = exact["p"][n], at + "attention/"
            with np.errstate(divide="ignore", invalid="ignore"):
                entropy = -np.where(p > 0, p * np.log(p), 0).sum(-1).T
            # entropies and probabilities shift by what scores are off, which grow with products of two rounded numbers
            for name, value in [("entropy", entropy), ("max_probability", p.max(-1).T), ("sink_mass", p[..., :4].sum(-1).T),
                                ("received_mass", p.sum(1).T)]:
                self.near(traces + name, found[traces + name], value, 10 * bound)
            distance = np.abs(np.arange(tokens)[None, :] - np.arange(tokens)[:, None])
            self.near(traces + "mean_distance", found[traces + "mean_distance"], (p * distance).sum(-1).T, 10 * bound)
            kept = min(64, tokens)
            best = -np.sort(-p, -1)[..., :kept].transpose(1, 0, 2)
            self.near(traces + "topk_probability", found[traces + "topk_probability"][..., :kept], best, 10 * bound)
        if model.causal:
            logits = exact["logits"]
            top = logits.max(-1)
            lse = top + np.log(np.exp(logits - top[:, None]).sum(-1))
            log_p = logits - lse[:, None]
            entropy = -(np.exp(log_p) * log_p).sum(-1) / math.log(2)
            self.near("predictions/entropy", found["predictions/entropy"], entropy, 10 * bound)
            self.near("predictions/probability", found["predictions/probability"], np.exp(log_p.max(-1)), 10 * bound)
            chosen = log_p[np.arange(tokens), found["predictions/ids"]]
            self.near("predictions/ids", chosen, log_p.max(-1), 10 * bound)
            return log_p
        self.assertNotIn("predictions/bits", found)

    def check_bits(self, found, log_p, ids, offsets, bound):
        last = {end - 1 for end in offsets[1:]}
        for token in range(len(ids)):
            bits = found["predictions/bits"][token]
            if token in last:
                self.assertTrue(math.isnan(bits), token)
            else:
                self.assertLessEqual(abs(bits + log_p[token, ids[token + 1]] / math.log(2)), 30 * bound, token)

    def test_every_kind_computes_what_it_does_with_whole_maps(self):
        for kind in tf.KINDS:
            with self.subTest(kind):
                model, ids = tf.make(kind, self.scratch / kind), self.ids()
                exact = tf.forward(model, ids)
                for ranks in (1, 3):
                    found = self.run_model(self.scratch / kind, self.write_ids(ids), "--ranks", ranks)
                    log_p = self.check(model, found, exact, ids, F32)
                    if model.causal:
                        self.check_bits(found, log_p, ids, [0, len(ids)], F32)
                    np.testing.assert_array_equal(found["tokens/ids"], ids)
                    np.testing.assert_array_equal(found["tokens/position"], np.arange(len(ids)))
                done = self.succeeds("verify", self.scratch / "out.h5", "--all")
                self.assertIn("verdict: ok", done.stdout)

    def test_documents_begin_anew_and_see_only_themselves(self):
        for kind in ("qwen3", "gpt2"):
            with self.subTest(kind):
                model = tf.make(kind, self.scratch / kind)
                parts = [self.ids(23, 1), self.ids(1, 2), self.ids(37, 3)]
                ids, offsets = np.concatenate(parts), [0, 23, 24, 61]
                of = np.repeat([0, 1, 2], [23, 1, 37])
                positions = np.concatenate([np.arange(len(part)) for part in parts])
                exact = tf.forward(model, ids, positions, of[:, None] == of[None, :])
                found = self.run_model(self.scratch / kind, self.write_ids(*parts), "--mask", "causal+documents", "--ranks", 2,
                                       "--strategy", "ulysses")
                self.check_bits(found, self.check(model, found, exact, ids, F32), ids, offsets, F32)
                np.testing.assert_array_equal(found["tokens/document"], of)
                np.testing.assert_array_equal(found["tokens/position"], positions)

    def test_processes_strategies_and_partitions_agree(self):
        self.needs_mpirun()
        model, ids = tf.make("gemma3_text", self.scratch / "many"), self.ids(47)
        exact = tf.forward(model, ids)
        for strategy, partition in [("ring", "zigzag"), ("ulysses", "striped"), ("all-gather", "contiguous")]:
            found = self.run_model(self.scratch / "many", self.write_ids(ids), "--strategy", strategy, "--partition", partition,
                                   ranks=2)
            self.check(model, found, exact, ids, F32)

    def test_more_ranks_than_tokens_and_one_token(self):
        model = tf.make("llama", self.scratch / "few")
        for tokens in (1, 3):
            ids = self.ids(tokens)
            found = self.run_model(self.scratch / "few", self.write_ids(ids), "--ranks", 5)
            self.check(model, found, tf.forward(model, ids), ids, F32)

    def test_files_of_16_bits_in_shards_computed_in_f32(self):
        for dtype in ("BF16", "F16"):
            model, ids = tf.make("qwen3", self.scratch / dtype, dtype=dtype, shards=3), self.ids(40)
            found = self.run_model(self.scratch / dtype, self.write_ids(ids))
            self.check(model, found, tf.forward(model, ids), ids, F32)
            self.assertEqual(len(found["/"]["model_files"]), 5)  # config, index, three shards

    def test_bf16_is_near_and_its_attention_exact_for_its_q_k_and_v(self):
        model, ids = tf.make("llama3", self.scratch / "half", dtype="BF16"), self.ids(50)
        found = self.run_model(self.scratch / "half", self.write_ids(ids), "--dtype", "bf16", "--ranks", 2)
        exact = tf.forward(model, ids)
        for n in range(model.layers):
            self.near("residual", found[f"layers/{n:03}/residual"], exact["residual"][n], BF16)
        done = self.succeeds("verify", self.scratch / "out.h5", "--all", "--json", self.scratch / "verdict.json")
        lines = json.loads((self.scratch / "verdict.json").read_text())["lines"]
        self.assertEqual({line["where"] for line in lines if line["what"] == "entropy"}, {"layer 0", "layer 1", "layer 2"})
        self.assertIn("verdict: ok", done.stdout)

    def test_layers_and_activations_are_kept_as_asked_for(self):
        tf.make("llama", self.scratch / "kept")
        output = self.scratch / "kept.h5"
        run = ["run", *self.write_ids(self.ids(20)), "--model", self.scratch / "kept", "--tokens", "ids", "--output", output,
               "--overwrite"]
        self.succeeds(*run, "--layers", "1", "--activations", "none")
        with h5py.File(output) as file:
            self.assertEqual(list(file["layers"]), ["001"])
            self.assertEqual([name for name in file["layers/001"] if name not in ("document", "byte_begin", "position")],
                             ["attention"])
        done = self.succeeds("verify", output)
        self.assertIn("not checked: attention of 1 layer", done.stdout)
        self.succeeds(*run, "--layers", "0,2", "--activations", "residual,q", "--trace", "none")
        with h5py.File(output) as file:
            self.assertEqual(list(file["layers"]), ["000", "002"])
            self.assertIn("q", file["layers/002"])
            self.assertNotIn("attention", file["layers/000"])
            self.assertEqual(file["layers/000/q"].shape, (20, 4, 12))

    def test_kept_queries_keys_and_values_are_what_attend_reads(self):
        model, ids = tf.make("llama", self.scratch / "qkv"), self.ids(33)
        found = self.run_model(self.scratch / "qkv", self.write_ids(ids))
        (self.scratch / "out.h5").rename(self.scratch / "kept-qkv.h5")
        self.succeeds("attend", self.scratch / "kept-qkv.h5", "--group", "layers/001", "--mask", "causal", "--output",
                      self.scratch / "again.h5", "--overwrite")
        with h5py.File(self.scratch / "again.h5") as file:
            self.near("out", file["out"][()].reshape(33, -1), found["layers/001/out"], F32)

    def test_attend_takes_the_scale_of_the_model_and_names_its_mask(self):
        model, ids = tf.make("gemma3_text", self.scratch / "own"), self.ids(33)
        found = self.run_model(self.scratch / "own", self.write_ids(ids))
        (self.scratch / "out.h5").rename(self.scratch / "own.h5")
        attend = ["attend", self.scratch / "own.h5", "--group", "layers/002", "--output", self.scratch / "again.h5", "--overwrite"]
        self.assertIn("own mask in this layer is causal+window:6,0", self.succeeds(*attend).stdout)
        self.assertNotIn("own mask", self.succeeds(*attend, "--mask", "causal+window:6,0").stdout)
        with h5py.File(self.scratch / "again.h5") as file:
            self.near("out", file["out"][()].reshape(33, -1), found["layers/002/out"], F32)

    def test_files_of_the_model_are_not_replaced(self):
        tf.make("llama", self.scratch / "safe", shards=2)
        (self.scratch / "safe.txt").write_text("a text")
        for name in ("tokenizer.json", "config.json", "model.safetensors.index.json", "model-00002-of-00002.safetensors"):
            kept = (self.scratch / "safe" / name).read_bytes()
            for options in (["--output", self.scratch / "safe" / name],
                            ["--output", self.scratch / "x.h5", "--timeline", self.scratch / "safe" / name]):
                self.refuses(2, options[-2], name, command=["run", self.scratch / "safe.txt", "--model", self.scratch / "safe",
                                                            "--overwrite", *options])
            self.assertEqual((self.scratch / "safe" / name).read_bytes(), kept)

    def test_positions_that_depend_on_lengths_are_not_shared_by_documents(self):
        folder = self.scratch / "dynamic"
        tf.make("llama", folder)
        config = json.loads((folder / "config.json").read_text())
        config.update(max_position_embeddings=32, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
        (folder / "config.json").write_text(json.dumps(config))
        run = ["run", "--overwrite", "--tokens", "ids", "--model", folder, "--mask", "causal+documents", "--output",
               self.scratch / "x.h5"]
        self.refuses(2, "dynamic", "20 to 40", command=[*run, *self.write_ids(self.ids(40), self.ids(20))])
        self.succeeds(*run, *self.write_ids(self.ids(30), self.ids(20)))

    def test_verify_finds_what_is_wrong_and_where(self):
        tf.make("qwen3", self.scratch / "wrong")
        for name, word in [("layers/001/residual", "residual"), ("layers/002/attention/entropy", "entropy"),
                           ("predictions/bits", "predictions/bits"), ("tokens/ids", "tokens/ids")]:
            found = self.run_model(self.scratch / "wrong", self.write_ids(self.ids(30)))
            with h5py.File(self.scratch / "out.h5", "r+") as file:
                place = (2,) * file[name].ndim
                file[name][place] = found[name][place] + (1 if name == "tokens/ids" else 0.01)
            done = self.refuses_nothing_but("verify", self.scratch / "out.h5", "--all", code=3)
            self.assertTrue(any(line.split()[0] == word and "WRONG" in line for line in done.stdout.splitlines()),
                            f"{name}\n{done.stdout}")

    def refuses_nothing_but(self, *command, code):
        from program import annulus
        done = annulus(*command)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def test_texts_are_read_by_the_models_tokenizer(self):
        model = tf.make("qwen3", self.scratch / "texts")
        texts = ["One text, and \u00fcber \u4e00.\r\n", "", "a second\0 one"]
        paths = []
        for n, text in enumerate(texts):
            paths.append(self.scratch / f"text{n}.txt")
            paths[-1].write_bytes(text.encode())
        output = self.scratch / "texts.h5"
        done = self.succeeds("run", *paths, "--model", self.scratch / "texts", "--output", output, "--overwrite", "--ranks", 2)
        codes = [[256, *text.encode()] for text in texts]
        ids = np.concatenate(codes)
        with h5py.File(output) as file:
            np.testing.assert_array_equal(file["tokens/ids"][()], ids)
            np.testing.assert_array_equal(file["tokens/document"][()], np.repeat([0, 1, 2], [len(code) for code in codes]))
            words = file["tokens/vocabulary"].asstr()[()]
            self.assertEqual([words[ord("a")], words[0], words[256], words[255]], ["a", "\\x00", "<s>", "\\xff"])
            bits = file["predictions/bits"][()]
            self.assertAlmostEqual(file["predictions"].attrs["bits_per_token"], np.nanmean(bits), 4)
        exact = tf.forward(model, ids)
        with h5py.File(output) as file:
            self.near("residual", file["layers/002/residual"][()], exact["residual"][2], F32)
        self.assertIn("next token", done.stdout)
        self.assertIn("verdict: ok", self.succeeds("verify", output).stdout)

    def test_names_of_the_hub_are_looked_up_in_its_cache(self):
        hub, ids = self.scratch / "hub", self.write_ids(self.ids(9))
        home = hub / "models--Some--Thing-1B"
        tf.make("llama", home / "snapshots" / "0123abc")
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("0123abc")
        run = ["run", *ids, "--tokens", "ids", "--output", self.scratch / "hub.h5", "--overwrite", "--model"]
        with unittest.mock.patch.dict("os.environ", {"HF_HUB_CACHE": str(hub)}):
            self.succeeds(*run, "Some/Thing-1B")
            self.succeeds("verify", self.scratch / "hub.h5")
            for name in ("Some/Other", "Some/Thing-1B/x", "../Thing-1B"):
                self.refuses(2, "--model", "hf download", name, command=[*run, name])

    def test_what_does_not_fit_together_is_refused(self):
        folder = self.scratch / "bad"
        tf.make("llama", folder)
        ids = self.write_ids(self.ids(12))
        run = ["run", *ids, "--tokens", "ids", "--output", self.scratch / "bad.h5", "--overwrite", "--model"]
        config = json.loads((folder / "config.json").read_text())

        def with_config(**changes):
            (folder / "config.json").write_text(json.dumps({k: v for k, v in {**config, **changes}.items() if v is not ...}))

        for words, changes in [(["model_type", "t5"], dict(model_type="t5")),
                               (["num_hidden_layers", "missing"], dict(num_hidden_layers=...)),
                               (["num_hidden_layers", "-1"], dict(num_hidden_layers=-1)),
                               (["num_hidden_layers", "1e+99"], dict(num_hidden_layers=1e99)),
                               (["num_key_value_heads", "divide"], dict(num_key_value_heads=3)),
                               (["embed_tokens", "[260, 40]", "[260, 41]"], dict(hidden_size=41)),
                               (["q_proj", "[48, 40]"], dict(head_dim=14)),
                               (["rope_scaling", "llama3"], dict(rope_scaling={"rope_type": "spiral"})),
                               (["hidden_act", "mish"], dict(hidden_act="mish")),
                               (["quantization_config"], dict(quantization_config={"bits": 4})),
                               (["embed_tokens", "[260, 40]"], dict(vocab_size=261)),
                               (["layers.3", "there is no tensor"], dict(num_hidden_layers=4))]:
            with_config(**changes)
            with self.subTest(changes):
                self.refuses(5, *words, command=[*run, folder])
        with_config()
        (folder / "config.json").write_text("{")
        self.refuses(5, "config.json", "JSON", command=[*run, folder])
        with_config()
        for code, words, more in [(2, ["mask", "prefix:3"], ["--mask", "prefix:3"]),
                                  (2, ["--layers", "3"], ["--layers", "0-3"]),
                                  (2, ["--activations", "keys"], ["--activations", "keys"]),
                                  (2, ["--contexts"], ["--contexts", "1,2"]),
                                  (2, ["--softmax-scale"], ["--softmax-scale", "2"])]:
            with self.subTest(more):
                self.refuses(code, *words, command=[*run, folder, *more])
        self.refuses(2, "--model", "is no folder", command=[*run, self.scratch / "nowhere"])
        self.refuses(2, "--activations", "trained", command=["run", *ids, "--output", self.scratch / "x.h5", "--activations", "q"])
        (folder / "tokenizer.json").unlink()
        self.refuses(5, "tokenizer.json", command=["run", *ids, "--output", self.scratch / "x.h5", "--model", folder])
        (self.scratch / "high.txt").write_text("1 2 260\n")
        self.refuses(5, "high.txt", "vocabulary", "260", command=["run", self.scratch / "high.txt", *run[2:], folder])
        (self.scratch / "word.txt").write_text("1 two 3\n")
        self.refuses(5, "word.txt", command=["run", self.scratch / "word.txt", *run[2:], folder])
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
        self.refuses(5, "model.safetensors", command=[*run, folder])
        self.assertFalse((self.scratch / "bad.h5").exists())

    def test_positions_that_were_not_learned_are_refused(self):
        tf.make("gpt2", self.scratch / "short")
        self.refuses(2, "256", "300", command=["run", *self.write_ids(self.ids(300)), "--model", self.scratch / "short",
                                               "--tokens", "ids", "--output", self.scratch / "x.h5"])


if __name__ == "__main__":
    unittest.main()
