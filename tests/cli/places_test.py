"""Inputs whose datasets lie in groups, have other names, put heads first or hold a batch give the very bits of plain ones."""
import json
import shlex
import unittest

from program import MPIRUN, needs

needs("numpy", "h5py")

import h5py
import numpy as np

from attending import AttendTest
from refusals import Refused
from tensors import TYPES, random_tensors, write

SEED = 91
NAMES = {"q": "query", "k": "key", "v": "value", "dout": "grad/out", "documents": "offsets"}
# group, other names, heads first, place in a batch
PLACES = [("", False, True, None), ("layer0/attn", False, False, None), ("", True, False, None), ("", False, False, 0),
          ("a", True, True, 2), ("a/b", True, False, 1), ("", False, True, 1)]


def arrange(path, plain, group="", renamed=False, heads_first=False, batch=None, chunks=None):
    """The tensors of a plain file, laid out otherwise; a batch has three sequences, of which the others are noise."""
    with h5py.File(plain) as source, h5py.File(path, "w") as file:
        base = file.require_group(group) if group else file
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        for name, dataset in source.items():
            values, kind = dataset[()], dataset.id.get_type()
            if name != "documents":
                values = np.swapaxes(values, 0, 1) if heads_first else values
                if batch is not None:
                    noise = np.random.default_rng(SEED).standard_normal((3, *values.shape)).astype(values.dtype)
                    noise[batch] = values
                    values = noise
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if chunks and name != "documents":
                properties.set_chunk(tuple(min(*pair) for pair in zip(values.shape, chunks)))
                properties.set_deflate(1)
            made = h5py.h5d.create(base.id, (NAMES[name] if renamed else name).encode(), kind, h5py.h5s.create_simple(values.shape),
                                   properties, links)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))
    return path


def options_of(group="", renamed=False, heads_first=False, batch=None, chunks=None):
    options = ["--group", group] if group else []
    options += ["--names", ",".join(f"{tensor}={name}" for tensor, name in NAMES.items())] if renamed else []
    options += ["--layout", "heads-first"] if heads_first else []
    return options + (["--batch", batch] if batch is not None else [])


class SameBits(AttendTest):
    def plain(self, dtype="f32", queries=37, keys=37, heads=(6, 3), documents=(0, 11, 37)):
        tensors = random_tensors(np.random.default_rng(SEED), queries, keys, *heads, 16, 24, dout=True)
        return write(self.scratch / "plain.h5", dtype, documents, **tensors)

    def same(self, path, places, *options, **how):
        one = self.attend(self.scratch / "plain.h5", *options, **how)
        other = self.attend(path, *options, *options_of(*places), name="other.h5", **how)
        self.assertEqual(set(one), set(other))
        for name in one:
            if name != "attributes":
                self.assertEqual((one[name].shape, one[name].tobytes()), (other[name].shape, other[name].tobytes()), name)
        return other["attributes"]

    def test_of_every_place_and_type_on_one_to_eight_ranks(self):
        number = 0
        for dtype in ["f32", "bf16", "f64", "f16"]:
            self.plain(dtype)
            for places in PLACES:
                number += 1
                ranks = 1 + number % 8
                options = ["--mask", ["causal+documents", "window:9,3", "full"][number % 3], "--backward", "--trace", "full",
                           "--partition", ["zigzag", "striped", "contiguous"][number % 3], "--ranks", ranks]
                chunks = [None, (5, 4, 3, 9), None, (1, 3, 64, 24)][number % 4]
                with self.subTest(dtype=dtype, places=places, ranks=ranks, chunks=chunks):
                    path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", *places, chunks=chunks)
                    self.same(path, places, *options)
                    self.assertIn("verdict: ok", self.succeeds("verify", self.scratch / "other.h5").stdout)

    @unittest.skipUnless(MPIRUN, "mpirun is not here")
    def test_of_processes(self):
        self.plain("bf16")
        places = ("a", True, True, 2)
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", *places)
        for ranks in [2, 3]:
            self.same(path, places, "--backward", "--mask", "causal+documents", ranks=ranks)

    def test_of_queries_and_keys_of_other_lengths(self):
        self.plain(queries=9, keys=41, documents=None)
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", heads_first=True, batch=1)
        for ranks in [1, 3]:
            self.same(path, ("", False, True, 1), "--backward", "--ranks", ranks)

    def test_of_more_rows_than_are_read_at_once(self):
        self.plain(queries=5000, keys=5000, heads=(4, 4), documents=None)
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", heads_first=True)
        self.same(path, ("", False, True, None), "--mask", "window:3", "--ranks", 2)

    def test_what_was_read_stands_in_the_result(self):
        self.plain()
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", "a", True, True, 2)
        attributes = self.same(path, ("/a/", True, True, 2), "--ranks", 2)
        self.assertEqual({name: attributes[f"input_{name}"] for name in ["group", "layout", "batch"]},
                         {"group": "a", "layout": "heads-first", "batch": 2})
        self.assertEqual(dict(pair.split("=") for pair in attributes["input_names"].split(",")), NAMES)
        plain = self.attend(self.scratch / "plain.h5")["attributes"]
        self.assertEqual([name for name in plain if name.startswith("input_")], ["input_hash"])

    def test_other_options_do_not_matter_to_a_cache(self):
        self.plain(documents=None)
        places = ("a", True, True, 2)
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", *places)
        results = []
        for name, input, options in [("one", self.scratch / "plain.h5", []), ("two", path, options_of(*places))]:
            cache = self.scratch / f"{name}.h5"
            for _ in range(2):
                results.append(self.attend(input, "--append", cache, "--ranks", 2, *options)["out"].tobytes())
            self.succeeds("verify", self.scratch / "out.h5")
            with h5py.File(cache) as file:
                results += [file["k"][()].tobytes(), file["v"][()].tobytes()]
        self.assertEqual(results[:4], results[4:])

    def test_documents_may_be_of_each_sequence(self):
        self.plain()
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", batch=1)
        options = ["--mask", "documents", "--ranks", 2]
        alone = self.attend(self.scratch / "plain.h5", *options)["out"].tobytes()
        with h5py.File(path, "a") as file:
            del file["documents"]
            file["documents"] = np.array([[0, 5, 37], [0, 11, 37], [0, 1, 37]])
        self.assertEqual(self.attend(path, *options, "--batch", 1)["out"].tobytes(), alone)
        self.succeeds("verify", self.scratch / "out.h5")
        self.assertNotEqual(self.attend(path, *options, "--batch", 0)["out"].tobytes(), alone)
        with h5py.File(path, "a") as file:
            del file["documents"]
            file["documents"] = np.array([[0, 11, 37]])
        command = ["attend", path, *options, "--batch", 1, "--output", self.scratch / "none.h5"]
        self.refuses(5, "documents", "must have a row for sequence 1", command=command)
        with h5py.File(self.scratch / "plain.h5", "a") as file:
            del file["documents"]
            file["documents"] = np.array([[0, 11, 37]])
        self.refuses(5, "documents", "must be [n + 1]", command=["attend", self.scratch / "plain.h5", *options, "--output", self.scratch / "none.h5"])

    def test_plan_knows_them(self):
        self.plain("bf16")
        places = ("a", True, True, 2)
        path = arrange(self.scratch / "arranged.h5", self.scratch / "plain.h5", *places)
        plans = []
        for input, options in [(self.scratch / "plain.h5", []), (path, options_of(*places))]:
            twin = self.scratch / "plan.json"
            self.succeeds("plan", input, "--ranks", 3, "--mask", "causal+documents", "--pass", "backward", "--json", twin, *options)
            plans.append(json.loads(twin.read_text()))
        for name in ["tokens", "query_heads", "kv_heads", "channels", "value_channels", "dtype", "mask", "visits", "file_bytes"]:
            self.assertEqual(plans[0][name], plans[1][name], name)


class Refusals(Refused):
    def heads_first(self, **places):
        return arrange(self.room / "other.h5", self.tensors(), heads_first=True, **places)

    def test_missing_datasets_are_found_elsewhere(self):
        plain = self.tensors()
        deep = arrange(self.room / "deep.h5", plain, "layer0/attn")
        self.attend(5, "deep.h5 has no dataset q; it has layer0/attn/q: --group layer0/attn", input=deep, options=["--ranks", 2])
        self.one_sentence(5, "it has layer0/attn/q: --group layer0/attn", command=["plan", deep])
        named = arrange(self.room / "named.h5", plain, "a", True)
        self.attend(5, "named.h5 has no dataset q; it has a/query: --group a --names k=key,q=query,v=value", input=named)
        self.attend(5, "has no dataset b/q; it has a/query: --group a ", input=named, options=["--group", "b"])
        self.attend(5, "has no dataset a/q; it has a/query: --names k=key,q=query,v=value", input=named, options=["--group", "a"])
        self.attend(5, "has no dataset x/q; it has q: --group /", input=plain, options=["--group", "x"])
        self.attend(5, "has no dataset none; it has q: leave out --names q=none", input=plain, options=["--names", "q=none"])
        self.attend(5, "must have a dataset a/dout [tokens, heads, channels]: this group holds grad", input=named,
                    options=["--group", "a", "--names", "q=query,k=key,v=value", "--backward"])
        with h5py.File(deep, "a") as file:
            del file["layer0/attn/k"]
        self.attend(5, "must have a dataset q [tokens, heads, channels]: it holds layer0", input=deep)
        self.attend(5, "must have a dataset x/q [tokens, heads, channels]: it has no group x, and holds layer0", input=deep,
                    options=["--group", "x"])

    def test_the_suggestion_works(self):
        for group in ["a", "a room/of's own"]:
            named = arrange(self.room / "named.h5", self.tensors(), group, True)
            said = self.refuses(5, "--names", command=["attend", named, "--output", self.output]).stderr
            self.succeeds("attend", named, "--output", self.output, "--overwrite", *shlex.split(said[said.index("--group"):]))

    def test_printed_configurations_can_be_used(self):
        path, shown = self.tensors(), self.room / "shown.ini"
        shown.write_text(self.succeeds("plan", path, "--print-config").stdout)  # defaults of a shape are no wish for it
        self.succeeds("plan", path, "--config", shown)
        shown.write_text(self.succeeds("attend", path, "--print-config").stdout)
        self.succeeds("bench", "exchange", "--ranks", 2, "--repeats", 1, "--config", shown)

    def test_axes_that_are_others(self):
        plain, batch = self.tensors(), arrange(self.room / "batch.h5", self.tensors(), batch=1)
        self.attend(5, "dataset q of ", "[3, 12, 4, 8]", "--batch N", input=batch)
        self.attend(5, "dataset q of ", "must be", "[batch, tokens, heads, channels]", "[12, 4, 8]", "--batch is for", input=plain,
                    options=["--batch", 0])
        self.attend(5, "dataset q of ", "holds 3 sequences", "no sequence 3", input=batch, options=["--batch", 3, "--ranks", 2],
                    ranks=self.processes())
        other = self.heads_first()
        with h5py.File(other, "a") as file:
            del file["v"]
            file["v"] = np.zeros((2, 11, 8), "f4")
        self.attend(5, "dataset v of", "[kv_heads of k, keys, value_channels]", "[2, 11, 8]", "should be [2, 12, 8]", input=other,
                    options=["--layout", "heads-first"])
        with h5py.File(batch, "a") as file:
            del file["k"]
            file["k"] = np.zeros((2, 12, 2, 9), "f4")
        self.attend(5, "dataset k of", "[batch, keys, kv_heads, channels of q]", "should be [2, 12, 2, 8]", input=batch,
                    options=["--batch", 1])

    def test_numbers_that_are_none_have_their_place(self):
        other = self.heads_first(group="a")
        with h5py.File(other, "a") as file:
            file["a/q"][2, 5, 3] = np.nan
        options = ["--layout", "heads-first", "--group", "a"]
        self.attend(5, "dataset a/q of", "token 5, head 2, channel 3 is NaN", input=other, options=options)
        with h5py.File(other, "a") as file:
            file["a/q"][2, 5, 3] = 1e6
        self.attend(5, "a/q", "must fit the range of f16: token 5, head 2, channel 3 is 1e+06", input=other,
                    options=[*options, "--dtype", "f16"])

    def test_options_that_say_nothing(self):
        path = self.tensors()
        for words, options in [(["pairs TENSOR=DATASET", "'x=y'"], ["--names", "x=y"]), (["'q'"], ["--names", "q"]),
                               (["'k='"], ["--names", "q=a,k="]), (["it has ''"], ["--names", "q=a,"]), (["each tensor once", "q twice"], ["--names", "q=a,q=b"]),
                               (["--layout"], ["--layout", "nhd"]), (["--batch"], ["--batch", "-1"])]:
            self.attend(2, *words, input=path, options=options)
        self.one_sentence(2, "--layout", "is for an input", command=["plan", "--tokens", 64, "--layout", "heads-first"])

    def test_a_result_whose_attributes_make_no_sense(self):
        path = self.tensors()
        for name, value, words in [("input_layout", "nhd", ["input_layout", "'nhd'"]), ("input_names", "x=y", ["input_names", "x=y"]),
                                   ("input_batch", -1, ["input_batch", "-1"]), ("input_batch", 1, ["dataset q of", "[12, 4, 8]"])]:
            self.succeeds("attend", path, "--output", self.output, "--overwrite")
            with h5py.File(self.output, "a") as file:
                file.attrs[name] = value
            self.one_sentence(5, *words, command=["verify", self.output])


if __name__ == "__main__":
    unittest.main()
