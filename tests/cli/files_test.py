"""Files written at one number of ranks and read at another; inputs as other programs write them; verify."""
import json
import shutil
import unittest

from program import MPIRUN, ProgramTest, annulus, needs

needs("numpy", "h5py")

import h5py
import numpy as np

from dimensions import datasets, is_scale
from oracle import Attention, visible
from tensors import random_tensors, rounded, write

SEED = 99


class Foreign(ProgramTest):
    def attend(self, path, *options, ranks=0):
        output = self.scratch / "out.h5"
        self.succeeds("attend", path, "--output", output, "--overwrite", *options, ranks=ranks)
        with h5py.File(output, "r") as file:
            return file["out"][()], file["lse"][()]

    def test_chunks_compression_and_byte_order_do_not_matter(self):
        random = np.random.default_rng(SEED)
        arrays = random_tensors(random, 57, 57, 4, 2, 16, 8)
        plain = write(self.scratch / "plain.h5", "f32", **arrays)
        expected = self.attend(plain, "--ranks", 3, "--partition", "zigzag")
        judge = Attention(*(rounded(arrays[name], "f32") for name in "qkv"), visible("causal", 57, 57))
        np.testing.assert_allclose(expected[0], judge.out, atol=1e-6 * np.abs(judge.out).max())
        ways = {"gzip": {"chunks": (10, 1, 5), "compression": "gzip", "shuffle": True, "fletcher32": True},
                "rows": {"chunks": (1, 2, 8)}, "growing": {"chunks": (16, 2, 8), "maxshape": (None, None, None)}}
        for name, how in ways.items():
            for kind in ["<f4", ">f4", ">f8", "<f8"]:
                path = self.scratch / f"{name}.h5"
                with h5py.File(path, "w") as file:
                    for array in "qkv":
                        file.create_dataset(array, data=rounded(arrays[array], "f32").astype(kind), dtype=kind, **how)
                for options, ranks in [(["--ranks", 3], 0), ([], 3 if MPIRUN else 1)]:
                    with self.subTest(seed=SEED, layout=name, type=kind, options=options, ranks=ranks):
                        found = self.attend(path, "--dtype", "f32", "--partition", "zigzag", *options, ranks=ranks if MPIRUN else 0)
                        if ranks != 1:  # the same plan: the same bits
                            np.testing.assert_array_equal(found[0], expected[0])
                            np.testing.assert_array_equal(found[1], expected[1])
                    if kind != ">f4":
                        break

    def test_half_precision_in_big_endian_order(self):
        random = np.random.default_rng(SEED + 1)
        arrays = random_tensors(random, 31, 31, 2, 2, 8, 8)
        little = self.attend(write(self.scratch / "little.h5", "f16", **arrays))
        path = self.scratch / "big.h5"
        with h5py.File(path, "w") as file:
            for name in "qkv":
                file.create_dataset(name, data=arrays[name].astype(">f2"), dtype=">f2")
        np.testing.assert_array_equal(self.attend(path)[0], little[0])

    def test_documents_in_any_width_of_integer(self):
        random = np.random.default_rng(SEED + 2)
        arrays = random_tensors(random, 31, 31, 2, 2, 8, 8)
        plain = self.attend(write(self.scratch / "i64.h5", "f32", [0, 9, 9, 31], **arrays), "--mask", "documents")
        for kind in ["u1", ">i4", "<u8", ">i2"]:
            path = write(self.scratch / "other.h5", "f32", **arrays)
            with h5py.File(path, "a") as file:
                file["documents"] = np.array([0, 9, 9, 31], kind)
            np.testing.assert_array_equal(self.attend(path, "--mask", "documents")[0], plain[0])


class Verified(ProgramTest):
    def result(self, name, *options, ranks=0, dtype="f32", backward=True):
        random = np.random.default_rng(SEED + 3)
        path = write(self.scratch / f"{name}-in.h5", dtype, [0, 20, 45], **random_tensors(random, 45, 45, 4, 2, 16, 8, dout=True))
        output = self.scratch / f"{name}.h5"
        more = ["--backward"] if backward else []
        self.succeeds("attend", path, "--output", output, "--overwrite", *more, *options, ranks=ranks)
        return path, output

    def test_results_of_any_number_of_ranks_pass(self):
        for number, (options, ranks) in enumerate([([], 0), (["--ranks", 3], 0), (["--ranks", 8, "--grid", "2x2x2"], 0),
                                                   ([], 2), ([], 3)]):
            if ranks and not MPIRUN:
                continue
            for dtype in ["f32", "bf16", "f16"][number % 3:][:1]:
                _, output = self.result("any", *options, "--trace", "full", "--mask", "causal+documents", ranks=ranks, dtype=dtype)
                for readers in [0, 2] if MPIRUN else [0]:
                    with self.subTest(written_by=options or ranks, read_by=readers, dtype=dtype):
                        twin = self.scratch / "verdict.json"
                        page = self.succeeds("verify", output, "--all", "--json", twin, ranks=readers).stdout
                        self.assertNotIn("WRONG", page)
                        checked = {line["what"] for line in json.loads(twin.read_text())["lines"]}
                        self.assertLessEqual({"out", "lse", "dq", "dk", "dv", "entropy", "topk_probability"}, checked)
                        self.succeeds("inspect", output, ranks=readers)

    def test_a_wrong_number_is_found(self):
        for name, step in [("out", 1e-3), ("lse", 1e-2), ("dq", 1e-2), ("dk", 1e-2), ("trace/entropy", 1e-2)]:
            _, output = self.result("wrong", "--trace", "summary")
            with h5py.File(output, "a") as file:
                file[name][17] = file[name][17] + step
            with self.subTest(dataset=name):
                self.is_found_wrong(output, name.split("/")[-1])

    def test_numbers_that_are_none_do_not_pass(self):
        _, output = self.result("nan", "--trace", "summary")
        with h5py.File(output, "a") as file:
            file["out"][3, 1, 2] = np.nan
        self.is_found_wrong(output, "out")

    def test_every_dataset_of_a_result_is_looked_at(self):
        path, output = self.result("whole", "--trace", "full", "--mask", "causal+documents")
        with h5py.File(output, "r") as file:
            names = [name for name in datasets(file) if not is_scale(file[name])]
        changed = self.scratch / "changed.h5"
        for name in names:
            shutil.copy(output, changed)
            with h5py.File(changed, "a") as file:
                values = file[name][()]
                at = (1, 2) if name == "trace/block_mass" else (17,)
                if name == "trace/topk_index":  # the key that is most probable, twice
                    values[17, 2, 1] = values[17, 2, 0]
                else:
                    values[at] = values[at] * 1.01 + 0.01
                file[name][...] = values
            with self.subTest(dataset=name):
                self.is_found_wrong(changed, name if name == "trace/lse" else name.split("/")[-1])
        page = self.succeeds("verify", output, "--all").stdout
        self.assertNotIn("not checked", page)

    def test_top_keys_that_are_none_are_found(self):
        path, output = self.result("keys", "--trace", "edges", backward=False)
        with h5py.File(output, "r") as file:
            whole = file["trace/topk_index"][()]
        for place, key in [((20, 0, 0), whole[20, 0, 7]), ((20, 0, 3), 21), ((20, 0, 3), 2**32 - 1), ((3, 0, 4), 0), ((3, 0, 0), 999)]:
            with h5py.File(output, "a") as file:
                values = whole.copy()
                values[place] = key
                file["trace/topk_index"][...] = values
            with self.subTest(place=place, key=key):
                self.is_found_wrong(output, "topk_index")

    def test_what_is_not_looked_at_is_said(self):
        random = np.random.default_rng(SEED + 4)
        path = write(self.scratch / "long.h5", "f32", **random_tensors(random, 2600, 2600, 2, 2, 32, 32, dout=True))
        output, twin = self.scratch / "long-out.h5", self.scratch / "long.json"
        self.succeeds("attend", path, "--output", output, "--backward", "--trace", "standard")
        page = self.succeeds("verify", output, "--rows", 9, "--json", twin).stdout
        names = ["trace/received_mass", "trace/block_mass", "dk", "dv"]
        self.assertIn(f"not checked: {', '.join(names)}; they need every row (--all)\n", page)
        self.assertEqual(json.loads(twin.read_text())["not_checked"], names)

    def test_numbers_that_cancel_pass(self):
        random = np.random.default_rng(SEED + 5)
        plain = random_tensors(random, 40, 40, 2, 2, 64, 64, dout=True)
        cases = {"equal keys": {"k": np.ones((40, 2, 64))}, "equal values": {"v": np.ones((40, 2, 64))},
                 "one key takes all": {"q": 10 * plain["q"], "k": 10 * plain["k"]},
                 "much more": {"q": 30 * plain["q"], "k": 30 * plain["k"]},
                 "values against one another": {"k": np.ones((40, 2, 64)), "v": np.repeat([[[1.1]], [[-1.1]]], 20, 0) * plain["v"][:1]},
                 "small": {"v": 1e-3 * plain["v"], "dout": plain["dout"] / plain["dout"].size}}
        for name, arrays in cases.items():
            path = write(self.scratch / "cancels.h5", "f32", **{**plain, **arrays})
            for dtype in ["f32", "bf16", "f16"]:
                with self.subTest(case=name, dtype=dtype):
                    output = self.scratch / "cancels-out.h5"
                    self.succeeds("attend", path, "--output", output, "--overwrite", "--backward", "--mask", "full", "--dtype", dtype)
                    self.succeeds("verify", output, "--all")

    def test_infinities_are_equal_to_their_like(self):
        random = np.random.default_rng(SEED + 6)
        tensors = random_tensors(random, 30, 30, 2, 2, 8, 8)
        tensors["v"][20, 1, 3] = np.inf
        path, output = write(self.scratch / "infinite.h5", "f32", **tensors), self.scratch / "infinite-out.h5"
        self.succeeds("attend", path, "--output", output)
        with h5py.File(output, "r") as file:
            self.assertTrue(np.isinf(file["out"][20:, 1, 3]).all() and np.isfinite(file["out"][:20]).all())
        self.succeeds("verify", output, "--all")
        for place, wrong in [((22, 1, 3), -np.inf), ((4, 0, 2), 9)]:
            with h5py.File(output, "a") as file:
                right = file["out"][place]
                file["out"][place] = wrong
            with self.subTest(place=place):
                self.is_found_wrong(output, "out")
            with h5py.File(output, "a") as file:
                file["out"][place] = right

    def test_damaged_results_are_named(self):
        _, whole = self.result("sound", "--trace", "full")
        output = self.scratch / "damaged.h5"
        for name, values in {"trace/topk_probability": np.float32(1), "trace/topk_index": np.zeros((45, 4, 7), np.uint32),
                             "trace/lse": np.zeros(45, np.float32), "out": np.zeros((44, 4, 8), np.float32),
                             "lse": np.zeros((45, 4), np.int32), "dk": np.zeros((45, 2, 15), np.float32),
                             "trace/block_mass": np.zeros((4, 45), np.float32)}.items():
            shutil.copy(whole, output)
            with h5py.File(output, "a") as file:
                attributes = dict(file[name].attrs)
                del file[name]
                file[name] = values
                if "block_tokens" in attributes:
                    file[name].attrs["block_tokens"] = attributes["block_tokens"]
            with self.subTest(dataset=name):
                self.refuses(5, "dataset", name, "damaged.h5", command=["verify", output])
        for attribute, value in {"mask": "casual", "dtype": "f23", "softmax_scale": -1.0}.items():
            shutil.copy(whole, output)
            with h5py.File(output, "a") as file:
                file.attrs[attribute] = value
            with self.subTest(attribute=attribute):
                self.refuses(5, attribute, "damaged.h5", command=["verify", output])

    def is_found_wrong(self, output, name):
        done = annulus("verify", output, "--all")
        self.assertEqual((done.returncode, done.stderr), (3, ""), done.stdout)
        self.assertEqual([line.split()[0] for line in done.stdout.splitlines() if line.endswith("WRONG")], [name])

    def test_a_changed_or_missing_input_is_named(self):
        path, output = self.result("changed", backward=False)
        with h5py.File(path, "a") as file:
            file["q"][0, 0, 0] = 7
        self.refuses(5, "changed-in.h5", "changed since", command=["verify", output])
        path.unlink()
        self.refuses(5, "changed-in.h5", command=["verify", output])

    def test_what_is_no_result_is_refused(self):
        path, output = self.result("none", backward=False)
        self.refuses(5, "none-in.h5", command=["verify", path])
        with h5py.File(output, "a") as file:
            file.attrs["status"] = "partial"
        self.refuses(5, "partial", command=["verify", output])
        self.refuses(5, "nowhere.h5", command=["verify", self.scratch / "nowhere.h5"])
        self.refuses(2, "RESULT.h5", command=["verify"])

    def test_the_output_of_attend_can_be_an_input(self):
        # out of one layer as v of the next, read at other numbers of ranks than it was written at
        path, output = self.result("chain", "--ranks", 3, backward=False)
        with h5py.File(path, "r") as source, h5py.File(output, "a") as file:
            v = file["out"][()]
            file["q"] = file["k"] = source["q"][()]
            file.copy("out", "v")
            q = source["q"][()]
        judge = Attention(q, q, v, visible("causal", 45, 45))
        for options, ranks in [([], 0), (["--ranks", 4], 0), ([], 2 if MPIRUN else 0)]:
            second = self.scratch / "second.h5"
            self.succeeds("attend", output, "--output", second, "--overwrite", *options, ranks=ranks)
            with h5py.File(second, "r") as file:
                np.testing.assert_allclose(file["out"][()], judge.out, atol=1e-6 * np.abs(judge.out).max())

    def test_results_of_run_pass_and_say_when_a_text_has_changed(self):
        text, output = self.scratch / "text.txt", self.scratch / "run.h5"
        text.write_text("a rose is a rose is a rose, and so on and so on\n" * 10)
        self.succeeds("run", text, "--output", output, "--ranks", 3)
        for readers in [0, 2] if MPIRUN else [0]:
            self.succeeds("verify", output, ranks=readers)
        text.write_text("another text")
        self.refuses(5, "text.txt", "changed", command=["verify", output])

    def test_inputs_that_were_moved_are_found_where_they_are_now(self):
        texts, output = [self.scratch / f"before-{number}.txt" for number in range(2)], self.scratch / "moved.h5"
        for number, text in enumerate(texts):
            text.write_text(f"a rose is a rose is number {number}\n" * 10)
        self.succeeds("run", *texts, "--output", output)
        moved = [text.rename(self.scratch / f"after-{number}.txt") for number, text in enumerate(texts)]
        self.refuses(5, "before-0.txt", command=["verify", output])
        self.succeeds("verify", output, "--input", moved[0], "--input", moved[1])
        self.refuses(5, "changed", command=["verify", output, "--input", moved[1], "--input", moved[0]])
        self.refuses(2, "--input", "2", command=["verify", output, "--input", moved[0]])
        self.refuses(2, "--cache", "run", command=["verify", output, "--cache", moved[0]])
        path, output = self.result("tensors", backward=False)
        away = path.rename(self.scratch / "one,two.h5")
        self.succeeds("verify", output, "--input", away)
        self.refuses(2, "--cache", "without a cache", command=["verify", output, "--input", away, "--cache", away])


if __name__ == "__main__":
    unittest.main()
