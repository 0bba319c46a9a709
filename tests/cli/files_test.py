"""Files written at one number of ranks and read at another; inputs as other programs write them; verify."""
import json
import unittest

from program import MPIRUN, ProgramTest, annulus, needs

needs("numpy", "h5py")

import h5py
import numpy as np

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


if __name__ == "__main__":
    unittest.main()
