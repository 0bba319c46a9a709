"""annulus report and inspect: results of models with many layers."""
import json
import re
import unittest

from program import needs

needs("h5py", "numpy")
import h5py  # noqa: E402
import numpy  # noqa: E402

from pages import PageTest  # noqa: E402

TRACES = {"entropy": 5, "mean_distance": 90, "sink_mass": 1, "max_probability": 1}


def write_model(path, layers, heads, tokens=300, kept=4, documents=0, trace="full", residual=0, predictions=True, kind="model"):
    """A result as `run --model` writes it, of made up numbers."""
    random = numpy.random.default_rng(11)
    with h5py.File(path, "w") as file:
        file.attrs.update(model_kind="llama", model="/models/made-up", token_kind=kind, mask="causal")
        place = numpy.arange(tokens)
        file["tokens/ids"] = random.integers(0, 12, tokens).astype("u4")
        file["tokens/position"] = (place % documents if documents else place).astype("u4")
        lengths = random.integers(1, 9, tokens)
        file["tokens/byte_begin"], file["tokens/byte_end"] = lengths.cumsum() - lengths, lengths.cumsum()
        if kind == "model":
            file["tokens/vocabulary"] = [*[f" w{i}" for i in range(10)], "\n", "</script>"]
        if predictions:
            bits = random.exponential(3, tokens).astype("f4")
            bits[-1] = numpy.nan
            if documents:
                bits[documents - 1::documents] = numpy.nan
            file["predictions/bits"], file["predictions/entropy"] = bits, bits
            file["predictions/ids"] = random.integers(0, 12, tokens).astype("u4")
            file["predictions/probability"] = random.random(tokens).astype("f4")
        for layer in layers:
            if residual:
                file[f"layers/{layer:03d}/residual"] = (random.standard_normal((tokens, residual)) * (layer + 1)).astype("f4")
            if trace == "none":
                continue
            group = file.create_group(f"layers/{layer:03d}/attention")
            group.attrs["mask"] = "causal" if layer % 2 else "causal+window:63,0"
            for name, most in {**TRACES, "lse": 3}.items():
                group[name] = (most * random.random((tokens, heads))).astype("f4")
            if trace == "summary":
                continue
            group["received_mass"] = random.random((tokens, heads)).astype("f4")
            group["block_mass"] = random.random((heads, 10, 10)).astype("f4")
            group["block_mass"].attrs["block_tokens"] = -(-tokens // 10)
            keys = numpy.minimum(random.integers(0, tokens, (tokens, heads, kept)), place[:, None, None]).astype("u4")
            keys[:, :, 1] = numpy.maximum(place[:, None] - 1, 0)  # so that roles are seen
            shares = -numpy.sort(-random.random((tokens, heads, kept)))
            keys[5:9, 0, -1] = 2**32 - 1  # unused places
            shares[5:9, 0, -1] = 0
            group["topk_index"], group["topk_probability"] = keys, (shares / shares.sum(-1, keepdims=True) * 0.9).astype("f4")


def roles_of(file, layer):
    """[head] means of shares on the previous token, induction, the first token, itself."""
    ids, position = file["tokens/ids"][:].astype(int), file["tokens/position"][:]
    keys, shares = (file[f"layers/{layer:03d}/attention/topk_{name}"][:] for name in ("index", "probability"))
    keys, query = keys.astype(int), numpy.arange(len(ids))[:, None, None]
    shares = numpy.where(keys < len(ids), shares.astype(float), 0)
    keys = numpy.where(keys < len(ids), keys, 0)
    induces = (keys >= 1) & (position[keys] > 0) & (ids[numpy.maximum(keys - 1, 0)] == ids[query]) & (keys <= query)
    return [numpy.where(role, shares, 0).sum(-1).mean(0) for role in (keys == query - 1, induces, position[keys] == 0, keys == query)]


class LayersReportTest(PageTest):
    def test_overview_is_what_numpy_says(self):
        path, layers, heads = self.scratch / "overview.h5", [1, 2, 3, 7], 5
        write_model(path, layers, heads, documents=70)
        read = self.drawn(path)
        said = "|".join(read.text)
        self.assertIn("Layers 1-3, 7 of 5 heads each", said)
        self.assertIn("|causal+window:63,0|2|", said)
        with h5py.File(path) as file:
            roles = numpy.array([roles_of(file, layer) for layer in layers])  # [layer, role, head]
            for at, layer in enumerate(layers):
                for head in range(heads):
                    numbers = [file[f"layers/{layer:03d}/attention/{name}"][:, head].mean(dtype="f8") for name in TRACES]
                    row = "|".join(f"{number:.4g}" for number in [*numbers, *roles[at, :, head]])
                    self.assertIn(f"|{layer}|{head}|{row}|", said)
        for role in range(4):
            at, head = divmod(int(roles[:, role].argmax()), heads)
            self.assertIn(f"|layer {layers[at]}, head {head}: {roles[at, role, head]:.2f}|", said)
        script = (self.scratch / "script").read_text()
        part = script[script.index("set output 'roles.svg'"):]
        cells = part[part.index("$p1 << END_OF_DATA"):].split("END_OF_DATA")[1].split("\n")  # induction
        numpy.testing.assert_allclose(numpy.array([line.split() for line in cells if line], float), roles[:, 1], rtol=1e-6)

    def test_curves_from_layer_to_layer(self):
        path, layers = self.scratch / "depth.h5", [0, 4, 5]
        write_model(path, layers, 3, residual=16)
        self.drawn(path)
        with h5py.File(path) as file:
            norms = [numpy.sqrt((file[f"layers/{layer:03d}/residual"][:].astype(float) ** 2).mean(1)) for layer in layers]
        for name, of in (("median of tokens", lambda x: numpy.sort(x)[len(x) // 2]), ("largest", numpy.max)):
            numpy.testing.assert_allclose(self.points("residual", name), [[layer, of(x)] for layer, x in zip(layers, norms)], rtol=1e-6)

    def test_what_comes_next_is_what_numpy_says(self):
        path = self.scratch / "next.h5"
        write_model(path, [0], 2, documents=100)
        read = self.drawn(path)
        with h5py.File(path) as file:
            bits, ids, expected = file["predictions/bits"][:].astype(float), file["tokens/ids"][:], file["predictions/ids"][:]
            bytes_of, position = file["tokens/byte_end"][:] - file["tokens/byte_begin"][:], file["tokens/position"][:]
        followed = numpy.isfinite(bits)
        follows = numpy.flatnonzero(followed) + 1
        said = "|".join(read.text)
        for name, value in (("right", f"{100 * (expected[followed] == ids[follows]).mean():.1f} %"), ("bits per token", f"{bits[followed].mean():.3f}"),
                            ("perplexity", f"{2 ** bits[followed].mean():.4g}"), ("bits per byte", f"{bits[followed].sum() / bytes_of[follows].sum():.3f}")):
            self.assertIn(f"{name}|{value}|", said)
        costliest = numpy.nanargmax(bits)
        self.assertIn(f"|{bits[costliest]:.1f}|", said)
        self.assertIn(f"|{costliest + 1:,}|", said)
        classes = numpy.maximum(1, numpy.ceil(numpy.log2(position + 1)))  # tokens of context: 1-2, 3-4, 5-8 ...
        part = (self.scratch / "script").read_text().split("set output 'context.svg'")[1].split("$p0c0 << END_OF_DATA")[1]
        drawn = numpy.array([line.split()[:2] for line in part.split("END_OF_DATA")[0].split("\n") if line], float)
        numpy.testing.assert_allclose(drawn, [[c, bits[followed & (classes == c)].mean()] for c in range(1, 8)], rtol=1e-6)
        self.assertNotIn("bits per byte", "".join(self.ids_page().text))

    def ids_page(self):
        """Of a result that knows no vocabulary."""
        path = self.scratch / "ids.h5"
        write_model(path, [0, 1], 2, kind="ids")
        return self.page(path)[0]

    def test_layers_are_chosen_and_named(self):
        path, figures = self.scratch / "chosen.h5", self.scratch / "figures"
        write_model(path, range(6), 10)
        read, text = self.page(path, "--layers", "2,4", "--heads", "1,9", "--figures", figures)
        names = {file.stem for file in figures.iterdir()}
        detail = {f"{name}-{layer:03d}" for name in [*TRACES, "distances", "maps"] for layer in (2, 4)}
        self.assertEqual(names, {"bits", "context", "roles", "heads", "layers", *detail})
        (data,) = read.data
        self.assertEqual((data["layers"], data["heads"]), ([2, 2, 4, 4], [1, 9, 1, 9]))
        with h5py.File(path) as file:
            for view, (layer, head) in enumerate(zip(data["layers"], data["heads"])):
                keys, shares = (file[f"layers/{layer:03d}/attention/topk_{name}"][data["first"], head] for name in ("index", "probability"))
                self.assertEqual([key for key, _ in data["looks"][0][view]], [key for key, share in zip(keys, shares) if share >= 5e-3])
        self.assertNotIn("></script></span>", text)
        read, _ = self.page(path)
        self.assertEqual(len(set(read.data[0]["layers"])), 4)
        self.assertIn("Of all heads, head", "".join(read.text))
        self.refused("have traces, 0-5: it names 9", path, "--layers", "3,9")
        self.refused("0 to 9: it names 10", path, "--heads", "10")
        self.refused("--layers", path, "--layers", "x")

    def test_whatever_was_recorded_has_a_page(self):
        for name, images, options in [("none", 2, {"trace": "none"}), ("activations", 1, {"trace": "none", "predictions": False, "residual": 8}),
                                      ("summary", 4 + 4 * 3, {"trace": "summary"})]:
            with self.subTest(case=name):
                path = self.scratch / f"{name}.h5"
                write_model(path, [0, 3, 8], 3, **options)
                read, text = self.page(path)
                self.assertEqual(read.images, images)
                self.assertNotIn("NaN", text)
                self.assertEqual("no attention traces" in "".join(read.text), options["trace"] == "none")
        for layers, heads, tokens in [([0], 1, 1), ([0], 3, 2), (range(40), 33, 40), ([999, 1000], 2, 500)]:
            with self.subTest(layers=len(layers), heads=heads, tokens=tokens):
                path = self.scratch / "shape.h5"
                write_model(path, layers, heads, tokens=tokens)
                self.page(path)

    def test_bad_layers_are_one_sentence_or_left_out(self):
        path, group = self.scratch / "bad.h5", "layers/002/attention"

        def replaced(name, value):
            def change(file):
                del file[name]
                file[name] = value
            return change

        for words, change in [("same tokens and heads", replaced(f"{group}/entropy", numpy.zeros((300, 2), "f4"))),
                              ("same tokens and heads", replaced(f"{group}/sink_mass", numpy.zeros((299, 3), "f4"))),
                              ("[token, head]", replaced(f"{group}/entropy", 3.0)),
                              ("[token, head, k]", replaced(f"{group}/topk_index", numpy.zeros((300, 3), "u4"))),
                              ("same tokens and heads", lambda file: [replaced(f"{group}/topk_{name}", numpy.zeros((9, 3, 4), kind))(file)
                                                                      for name, kind in (("index", "u4"), ("probability", "f4"))]),
                              ("[token, channel]", replaced("layers/001/residual", numpy.zeros(5, "f4"))),
                              ("as long as traces", replaced("tokens/position", numpy.arange(5))),
                              ("a value for each token", replaced("predictions/ids", numpy.arange(5)))]:
            write_model(path, range(4), 3, residual=4)
            with h5py.File(path, "r+") as file:
                change(file)
            with self.subTest(words=words):
                self.refused(words, path, code=5)
                self.succeeds("inspect", path)
        write_model(path, range(4), 3, residual=4)
        with h5py.File(path, "r+") as file:
            del file[f"{group}/mean_distance"], file["layers/003/attention/topk_index"], file["layers/001/residual"]
            file["layers/000/attention/entropy"][...] = numpy.nan
            file["layers/001/attention/lse"][...] = -numpy.inf
            file["layers/001/attention/topk_index"][...] = 2**32 - 1
            file["layers/xyz/attention/entropy"] = numpy.zeros((2, 2))
            file["layers/004"] = numpy.zeros(3)
            file["layers/99999999999999999999/x"] = 1
            file["predictions/bits"][3] = numpy.inf
        self.page(path, "--layers", "0,1")
        self.page(path, "--layers", "3")
        self.refused("mean_distance", path, "--layers", "2", code=5)

    def test_inspect_folds_layers_that_hold_the_same(self):
        path, twin = self.scratch / "folded.h5", self.scratch / "folded.json"
        write_model(path, [0, 1, 2, 5], 2, residual=4)
        with h5py.File(path, "r+") as file:
            del file["layers/002/residual"]
            file["layers/002/residual"] = numpy.zeros((300, 5), "f4")
            least = min(file[f"layers/{layer:03d}/residual"][:].min() for layer in (1, 5))
        page = self.succeeds("inspect", path, "--json", twin).stdout
        self.assertIn("layers 1, 5: the same 10 datasets each", page)
        self.assertRegex(page, rf"(?m)^  layers/1, 5/residual +\[300, 4\] f32 +{re.escape(f'{least:.4g}')} ")
        for shown in ("layers/000/residual", "layers/002/residual", "layers/002/attention/entropy"):
            self.assertIn(shown, page)
        self.assertNotIn("layers/001/", page)
        whole = self.succeeds("inspect", path, "--all").stdout
        entries = {entry["path"] for entry in json.loads(twin.read_text())["datasets"]}
        for layer in (0, 1, 2, 5):
            self.assertIn(f"layers/{layer:03d}/attention/lse", whole)
            self.assertIn(f"layers/{layer:03d}/attention/lse", entries)
        self.assertNotIn("the same", whole)


if __name__ == "__main__":
    unittest.main()
