"""plan: what it promises, checked against counting by hand."""
import json
import os
import pathlib
import unittest

from planning import ROOT, STRATEGIES, PlanTest
from program import PROGRAM, needs, start

needs("numpy", "h5py")

import h5py
import numpy as np

from dimensions import datasets
from oracle import visible
from tensors import random_tensors, write

SEED = 1234


class Plan(PlanTest):
    def test_pairs_are_those_of_the_mask_at_any_number_of_ranks(self):
        masks = ["full", "causal", "window:9,0", "window:3,5+sink:2", "causal+window:7,0+sink:3", "prefix:12+causal",
                 "window:2,2+global:0,31,40-42", "causal+documents", "documents+window:4,4"]
        for number, mask in enumerate(masks):
            for ranks in [1, 3, 8, 60]:
                for tokens, each in [(53, 20), (5, 2)]:
                    if "global" in mask and tokens < 43:
                        continue
                    with self.subTest(mask=mask, ranks=ranks, tokens=tokens):
                        partition = ["contiguous", "zigzag", "striped", "balanced"][(number + ranks) % 4]
                        more = ["--document-tokens", each] if "documents" in mask else []
                        page, plan = self.plan("--tokens", tokens, "--mask", mask, "--ranks", ranks, "--partition", partition, *more)
                        documents = [*range(0, tokens, each), tokens]
                        pairs = int(visible(mask, tokens, tokens, documents).sum())
                        self.assertEqual(plan["pairs"], pairs)
                        self.assertEqual(sum(step["pairs"] for step in plan["steps"]), pairs)
                        self.assertIn(f"visible pairs   {pairs:,} ", page)
                        self.assertGreaterEqual(plan["imbalance"], 1)

    def test_pairs_of_cross_attention(self):
        for tokens, keys in [(13, 61), (61, 13), (0, 7), (7, 0)]:
            for mask in ["full", "causal", "window:8,0+sink:2"]:
                with self.subTest(lengths=(tokens, keys), mask=mask):
                    _, plan = self.plan("--tokens", tokens, "--keys", keys, "--mask", mask, "--ranks", 3)
                    self.assertEqual(plan["pairs"], int(visible(mask, tokens, keys).sum()))

    def test_every_strategy_is_legal_or_has_a_reason(self):
        for ranks in [1, 2, 6, 8]:
            page, plan = self.plan("--tokens", "4Ki", "--ranks", ranks, "--query-heads", 6, "--kv-heads", 2)
            self.assertEqual([row["name"] for row in plan["strategies"]], STRATEGIES)
            for row in plan["strategies"]:
                self.assertTrue(row["verdict"])
                self.assertEqual(row["verdict"].startswith("legal: "), row["grid"] != "-", row)
                self.assertEqual(row["legal"], row["grid"] != "-", row)
                self.assertNotIn("<-", row["verdict"])
                self.assertEqual(row["chosen"], row["name"] == plan["strategy"])
            self.assertEqual(page.count("<- this plan"), 1)
            for row in plan["strategies"]:
                self.assertRegex(page, rf"(?m)^    {row['name']} ")
            for promised in ["visible pairs", "imbalance", "exchange", "memory", " per rank", "busiest/mean", "step"]:
                self.assertIn(promised, page)

    def test_explain_gives_the_reason_of_every_refusal(self):
        page, plan = self.plan("--tokens", "4Ki", "--ranks", 7, "--query-heads", 6, "--explain")
        self.assertEqual([row["name"] for row in plan["legality"]], STRATEGIES)
        legality = {row["name"]: row for row in plan["legality"]}
        for row in plan["strategies"]:
            legal = row["verdict"].startswith("legal: ")
            self.assertEqual(legality[row["name"]]["forward"] == "yes", legal)
            if not legal:
                self.assertEqual(legality[row["name"]]["why"], row["verdict"])
                self.assertIn("ranks = 7", row["verdict"])
        self.assertEqual(legality["tree"]["backward"], "as ring")
        self.assertIn("what is legal, and why", page)

    def test_nodes_are_mapped_and_what_crosses_them_is_counted(self):
        page, plan = self.plan("--tokens", 64, "--mask", "full", "--ranks", 8, "--ranks-per-node", 4, "--strategy", "double-ring",
                               "--query-heads", 1, "--channels", 8, "--partition", "contiguous")
        self.assertEqual(plan["nodes"], [{"first_rank": 0, "last_rank": 3}, {"first_rank": 4, "last_rank": 7}])
        self.assertEqual(plan["node_bytes_total"], 8 * 8 * 16 * 4)  # one jump: every block of 8 rows crosses once
        self.assertIn("0: ranks 0-3, 1: ranks 4-7; an inner ring of 4 stays inside a node", page)

    def test_gradients_of_a_tree_are_drawn_as_the_ring_they_run_as(self):
        page, plan = self.plan("--ranks", 4, "--strategy", "tree", "--partition", "zigzag", "--pass", "backward")
        _, ring = self.plan("--ranks", 4, "--strategy", "ring", "--partition", "zigzag", "--pass", "backward")
        self.assertIn("backward, as a ring over the same shards", page)
        self.assertEqual(plan["backward_as_ring"]["visits"], ring["visits"])
        self.assertEqual([step["rows_moved"] for step in plan["backward_as_ring"]["steps"]], [step["rows_moved"] for step in ring["steps"]])
        self.assertAlmostEqual(plan["backward_seconds"], ring["backward_seconds"])

    def test_the_twin_holds_what_was_resolved(self):
        _, plan = self.plan("--tokens", 60, "--keys", 80, "--ranks", 4, "--strategy", "ring", "--partition", "contiguous", "--mask", "full",
                            "--query-heads", 6, "--kv-heads", 2, "--channels", 16, "--dtype", "bf16")
        expected = {"tokens": 60, "keys": 80, "query_heads": 6, "kv_heads": 2, "channels": 16, "value_channels": 16, "dtype": "bf16",
                    "softmax_scale": 0.25, "mask": "full", "pass": "forward", "ranks": 4, "ranks_per_node": 4, "prices": "nominal",
                    "version": self.succeeds("--version").stdout.split()[1]}
        self.assertEqual({name: plan[name] for name in expected}, expected)
        self.assertEqual(sum(plan["memory_bytes"].values()), plan["memory_bytes_per_rank"])
        self.assertTrue(plan["visits"]["complete"])
        self.assertEqual(plan["visits"]["by_seat_and_step"],
                         [[{"blocks_of": [(seat - step) % 4], "pairs": 15 * 20} for step in range(4)] for seat in range(4)])

    def test_file_bytes_are_those_of_the_files(self):
        random = np.random.default_rng(SEED)
        for dtype, documents in [("f32", None), ("bf16", [0, 10, 30])]:
            for backward in [False, True]:
                with self.subTest(dtype=dtype, backward=backward):
                    tensors = random_tensors(random, 30, 30, 6, 3, 16, 8, dout=True)
                    path = write(self.scratch / "in.h5", dtype, *([documents] if documents else []), **tensors)
                    output = self.scratch / "out.h5"
                    mask = ["--mask", "documents" if documents else "causal"]
                    self.succeeds("attend", path, "--output", output, "--overwrite", *mask, *(["--backward"] if backward else []))
                    page, plan = self.plan(path, "--ranks", 2, *mask, "--pass", "backward" if backward else "forward")
                    for key, file in [("read", path), ("written", output)]:
                        bytes_of = dict(plan["file_bytes"][key])
                        total = bytes_of.pop("total")
                        with h5py.File(file) as opened:
                            stored = {name: opened[name].id.get_storage_size() for name in datasets(opened) if name != "dout" or backward}
                        self.assertEqual(bytes_of, stored)
                        self.assertEqual(total, sum(stored.values()))
                    self.assertRegex(page, r"(?m)^  files           attend reads .* and writes .* \(out, lse")
                    shape = ["--tokens", 30, "--query-heads", 6, "--kv-heads", 3, "--channels", 16, "--value-channels", 8, "--dtype", dtype,
                             "--ranks", 2, "--pass", "backward" if backward else "forward"]
                    if not documents:
                        _, made_up = self.plan(*shape)
                        self.assertEqual(made_up["file_bytes"], plan["file_bytes"])

    def test_traces_take_memory_and_files(self):
        random = np.random.default_rng(SEED)
        path, output = write(self.scratch / "in.h5", "f32", **random_tensors(random, 300, 300, 4, 2, 8, 8)), self.scratch / "out.h5"
        for level in ["none", "summary", "standard", "edges"]:
            with self.subTest(level=level):
                options = ["--trace", level, "--top-k", 5, "--map-blocks", 16]
                self.succeeds("attend", path, "--output", output, "--overwrite", *options)
                page, plan = self.plan(path, "--ranks", 2, *options)
                stored = []
                with h5py.File(output) as file:
                    if level != "none":
                        file["trace"].visititems(lambda _, it: stored.append(it.id.get_storage_size()) if isinstance(it, h5py.Dataset) else None)
                self.assertEqual(plan["file_bytes"]["written"].get("trace", 0), sum(stored))
                self.assertEqual(plan["memory_bytes"]["traces"] > 0, level != "none")
                self.assertEqual("without the pass that collects traces" in page, level != "none")

    def test_configuration_files_of_other_commands_serve_a_plan(self):
        for name, tokens in [("run-text", 65536), ("attend-decode", 65536), ("attend-long-window", 65536), ("bench-strategies", 4096),
                             ("bench-blocks", 8192)]:
            with self.subTest(file=name):
                _, plan = self.plan("--config", ROOT / "configs" / f"{name}.ini")
                self.assertEqual((plan["tokens"], plan["pass"]), (tokens, "forward"))
        config = self.scratch / "job.ini"
        config.write_text("backward = true\noutput = grads.h5\noverwrite = true\ntokens = 1Ki\n")
        _, plan = self.plan("--config", config)
        self.assertEqual((plan["tokens"], plan["pass"]), (1024, "backward"))
        for text, words in [("tokens = 1Ki\nouptut = x.h5\n", ["ouptut", "line 2"]), ("backward = yes\n", ["yes", "line 1"]),
                            ("tokens = some\n", ["some", "line 1"])]:
            config.write_text(text)
            self.refuses(2, "job.ini", *words, command=["plan", "--config", config])

    def test_one_configuration_file_serves_attend_and_plan(self):
        random = np.random.default_rng(SEED)
        path = write(self.scratch / "in.h5", "f32", **random_tensors(random, 64, 64, 4, 4, 8, 8))
        config = self.scratch / "shared.ini"
        timeline = self.scratch / "shared.json"
        config.write_text("mask = causal\nstrategy = ulysses\npartition = zigzag\ndtype = bf16\nsoftmax-scale = 0.3\nranks = 2\nthreads = 1\n"
                          "device = cpu\nkernel = reference\ntransport = threads\ntrace = summary\nprogress = none\ntimeout = 30\n"
                          f"timeline = {timeline}\n")
        self.succeeds("attend", path, "--config", config, "--output", self.scratch / "out.h5", "--overwrite")
        self.assertEqual(json.loads(timeline.read_text())["otherData"]["times"], "measured")
        _, plan = self.plan(path, "--config", config)
        self.assertEqual(json.loads(timeline.read_text())["otherData"]["times"], "predicted")
        self.assertEqual([plan["strategy"], plan["partition"], plan["dtype"], plan["softmax_scale"]], ["ulysses", "zigzag", "bf16", 0.3])
        shown = self.succeeds("plan", "--config", config, "--print-config").stdout
        for line in ["kernel = reference", "device = cpu", "transport = threads", "threads = 1", "progress = none", "trace = summary"]:
            self.assertRegex(shown, rf"(?m)^{line} .*shared.ini, line")
        for option, value, *words in [("--kernel", "none", "there is no kernel 'none'"), ("--device", "tpu"), ("--transport", "tcp"),
                                      ("--progress", "bar"), ("--trace", "some"), ("--threads", "0"), ("--threads", "4097", "4096"),
                                      ("--top-k", "2000", "1024")]:
            self.refuses(2, *(words or [option]), command=["plan", "--ranks", 2, "--trace", "full", option, value])
        self.assertIn("Not used by a plan", self.succeeds("plan", "--help").stdout)

    def test_a_shape_that_makes_no_sense_is_refused(self):
        random = np.random.default_rng(SEED)
        path = write(self.scratch / "no_sense.h5", "f32", **random_tensors(random, 30, 30, 2, 2, 8, 8))
        for option in ["--tokens", "--keys", "--query-heads", "--kv-heads", "--channels", "--value-channels", "--document-tokens"]:
            self.refuses(2, option, str(path), "must not be given beside an input", command=["plan", path, option, 8])
        self.refuses(2, "--document-tokens", "needs the mask term documents", "causal", command=["plan", "--document-tokens", 100])
        self.refuses(2, "--mask", "documents needs --document-tokens N", command=["plan", "--mask", "causal+documents"])
        self.refuses(2, "needs a dataset documents", command=["plan", path, "--mask", "documents"])

    def test_packed_documents_move_less_than_whole_blocks(self):
        _, plan = self.plan("--tokens", "64Ki", "--mask", "documents", "--document-tokens", "16Ki", "--ranks", 8, "--partition",
                            "contiguous", "--strategy", "ring")
        self.assertGreaterEqual(plan["whole_ring_bytes_total"], 4 * plan["exchange_bytes_total"])

    def test_the_legal_strategies_run(self):
        random = np.random.default_rng(SEED)
        path = write(self.scratch / "in.h5", "f32", **random_tensors(random, 40, 40, 4, 2, 8, 8))
        for ranks in [1, 2, 3, 4, 6]:
            _, plan = self.plan(path, "--ranks", ranks)
            for row in plan["strategies"]:
                with self.subTest(ranks=ranks, **row):
                    command = ["attend", path, "--output", self.scratch / "out.h5", "--overwrite", "--ranks", ranks, "--strategy",
                               row["name"]]
                    if row["verdict"].startswith("legal: "):
                        self.succeeds(*command)
                    else:
                        self.refuses(2, row["name"], command=command)

    def test_an_input_gives_the_shape(self):
        random = np.random.default_rng(SEED)
        path = write(self.scratch / "shape.h5", "bf16", [0, 10, 30], **random_tensors(random, 30, 30, 6, 3, 16, 8))
        page, plan = self.plan(path, "--mask", "causal+documents", "--ranks", 2)
        self.assertEqual(plan["pairs"], 10 * 11 // 2 + 20 * 21 // 2)
        self.assertIn("30 queries x 30 keys, 6:3 heads, 16:8 channels, bf16", page)

    def test_a_ring_moves_every_block_to_everybody(self):
        # full attention on a ring of P: each rank receives the K/V rows of the P - 1 others, once
        for ranks in [2, 4, 5]:
            _, plan = self.plan("--tokens", 60, "--mask", "full", "--strategy", "ring", "--ranks", ranks, "--partition",
                                "contiguous", "--query-heads", 4, "--kv-heads", 2, "--channels", 8, "--value-channels", 16)
            row = 2 * (8 + 16) * 4
            self.assertEqual(plan["exchange_bytes_total"], 60 * (ranks - 1) * row)
            self.assertEqual(plan["exchange_bytes_into_busiest_rank"], 60 * (ranks - 1) // ranks * row)

    def test_memory_is_what_attend_takes(self):
        """Informative: the figure is about the arrays, and may be off by what a process needs besides."""
        if b"__asan_init" in pathlib.Path(PROGRAM).read_bytes() or b"__tsan_init" in pathlib.Path(PROGRAM).read_bytes():
            self.skipTest("a sanitizer keeps memory of its own")
        tokens, heads, channels = 30000, 8, 64
        random = np.random.default_rng(SEED)
        arrays = {name: random.random((tokens, heads, channels), np.float32) for name in "qkv"}
        path = self.scratch / "large.h5"
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
        options = ["--mask", "window:15,0", "--ranks", 2]
        _, plan = self.plan(path, *options)
        process = start("attend", path, "--output", self.scratch / "large-out.h5", *options)
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, process.stderr.read())
        process.communicate()
        predicted, peak = 2 * plan["memory_bytes_per_rank"], usage.ru_maxrss * 1024
        base = 150 << 20  # program, libraries, staging buffers
        self.assertGreater(peak, 0.7 * predicted)
        self.assertLess(peak, 1.5 * predicted + base)


if __name__ == "__main__":
    unittest.main()
