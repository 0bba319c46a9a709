"""Files and options that cannot work end soon, on all ranks, with the contract's exit code and one sentence."""
import json
import shutil
import unittest

from program import needs

needs("numpy", "h5py")

import h5py
import numpy as np

from refusals import SEED, Refused


class BadFiles(Refused):
    def test_files_that_are_not_there_or_not_hdf5(self):
        self.attend(5, "nowhere.h5", input=self.room / "nowhere.h5", ranks=self.processes())
        text = self.room / "text.h5"
        text.write_text("these are words\n" * 100)
        empty = self.room / "empty.h5"
        empty.touch()
        for path in [text, empty, self.room]:
            self.attend(5, path.name, input=path, options=["--ranks", 2])
            self.one_sentence(5, path.name, command=["inspect", path])
            self.one_sentence(5, path.name, command=["plan", path])

    def test_truncated_files(self):
        path = self.tensors(queries=400, keys=400)
        whole = path.read_bytes()
        cut = self.room / "cut.h5"
        for part in [0.02, 0.3, 0.6, 0.95, 0.999]:
            cut.write_bytes(whole[:int(part * len(whole))])
            self.attend(5, "cut.h5", input=cut)
        self.attend(5, "cut.h5", input=cut, ranks=self.processes())

    def test_missing_datasets(self):
        path = self.tensors()
        for name in ["q", "k", "v"]:
            lacking = self.room / f"lacking_{name}.h5"
            shutil.copy(path, lacking)
            with h5py.File(lacking, "a") as file:
                del file[name]
                file["hidden"] = np.zeros((3, 2))
            self.attend(5, f"dataset {name} ", "hidden [3, 2] f64", input=lacking, options=["--ranks", 2])
        lacking = self.room / "lacking_dout.h5"
        shutil.copy(path, lacking)
        with h5py.File(lacking, "a") as file:
            del file["dout"]
        self.attend(5, "dataset dout ", input=lacking, options=["--backward"])

    def test_wrong_shapes(self):
        zeros = np.zeros
        cases = {"q": zeros((12, 32)), "k": zeros((12, 2, 9)), "v": zeros((11, 2, 8)), "dout": zeros((12, 4, 9))}
        for name, values in cases.items():
            path = self.tensors(f"wrong_{name}.h5", **{name: values})
            self.attend(5, f"dataset {name} ", input=path, options=["--backward", "--ranks", 2])
        path = self.tensors("wrong_v_heads.h5", v=zeros((12, 1, 8)))
        self.attend(5, "dataset v ", input=path)
        path = self.tensors("scalar.h5", q=zeros(()))
        self.attend(5, "dataset q ", input=path)
        path = self.tensors("batch.h5", q=zeros((2, 12, 4, 8)))
        self.attend(5, "dataset q ", "[2, 12, 4, 8]", "batch", input=path)
        path = self.tensors("no_channels.h5", q=zeros((12, 4, 0)), k=zeros((12, 2, 0)))
        self.attend(5, "channels", input=path)

    def test_heads_that_do_not_divide(self):
        path = self.tensors(heads=6, kv_heads=4)
        self.attend(5, "6", "4", "divide", input=path, ranks=self.processes())

    def test_types_that_are_no_floats(self):
        path = self.tensors()
        with h5py.File(path, "a") as file:
            del file["k"]
            file["k"] = np.zeros((12, 2, 8), np.int32)
        self.attend(5, "dataset k ", "i32", input=path)
        with h5py.File(path, "a") as file:
            del file["k"]
            file["k"] = np.zeros((12, 2, 8), np.complex128)
        self.attend(5, "k", input=path)

    def test_a_group_where_a_dataset_should_be(self):
        path = self.tensors()
        with h5py.File(path, "a") as file:
            del file["q"]
            file.create_group("q")
        self.attend(5, "'q'", input=path)

    def test_numbers_that_are_none(self):
        random = np.random.default_rng(SEED + 1)
        for name, shape in {"q": (12, 4, 8), "k": (12, 2, 8), "v": (12, 2, 8), "dout": (12, 4, 8)}.items():
            values = random.standard_normal(shape)
            token, head, channel = (int(random.integers(size)) for size in shape)
            values[token, head, channel] = np.nan
            for dtype in ["f32", "bf16", "f16", "f64"]:
                path = self.tensors("nan.h5", dtype=dtype, **{name: values})
                self.attend(5, f"dataset {name} ", f"token {token}, head {head}, channel {channel} ", "NaN", input=path,
                            options=["--backward", "--ranks", 3])
        self.attend(5, "dataset dout ", "NaN", input=path, options=["--backward"], ranks=self.processes()[1:])

    def test_infinities_that_cancel(self):
        values = np.random.default_rng(SEED + 2).standard_normal((12, 4, 8))
        values[7, 2, 3:5] = np.inf, -np.inf
        ones = np.ones((12, 2, 8))
        for kernel in ["auto", "reference"]:
            self.attend(1, "token 7, head 2 ", "not a number", input=self.tensors(q=values, k=ones),
                        options=["--ranks", 3, "--kernel", kernel])
        self.attend(1, "token 7, head 2 ", "not a number", input=self.tensors(q=values, k=ones), ranks=self.processes()[1:])

    def test_numbers_beyond_the_range_of_the_type(self):
        random = np.random.default_rng(SEED + 3)
        large = random.standard_normal((12, 2, 8))
        large[5, 1, 3] = 1e6
        self.attend(5, "'v'", "token 5, head 1, channel 3 ", "1e+06", "f16", input=self.tensors(v=large),
                    options=["--dtype", "f16", "--ranks", 3])
        large[5, 1, 3] = -1e300
        self.attend(5, "'k'", "token 5, head 1, channel 3 ", "-1e+300", "f32", input=self.tensors(dtype="f64", k=large),
                    ranks=self.processes())
        large[5, 1, 3] = -np.inf  # is what it says it is
        self.succeeds("attend", self.tensors(q=np.ones((12, 4, 8)), k=large), "--output", self.output, "--dtype", "bf16")
        self.output.unlink()

    def test_scores_and_values_that_overflow(self):
        huge = {"q": np.full((12, 4, 8), 1e20), "k": np.full((12, 2, 8), 1e20)}
        self.attend(1, "token 0, head 0 ", "a score", "overflows", input=self.tensors(**huge))
        values = np.ones((12, 2, 8))
        values[2, 1, 4], values[7, 1, 4] = np.inf, -np.inf
        self.attend(1, "token 0, head 2 ", "not a number", input=self.tensors(v=values), options=["--mask", "full"],
                    ranks=self.processes())

    def test_document_offsets_that_make_no_sense(self):
        for offsets in [[1, 12], [0, 11], [0, 7, 5, 12], [0, -3, 12], [0, 13, 12], []]:
            path = self.tensors()
            with h5py.File(path, "a") as file:
                file["documents"] = np.array(offsets, np.int64)
            self.attend(5, "offset", input=path, options=["--mask", "causal+documents", "--ranks", 2])
            self.succeeds("attend", path, "--output", self.output, "--mask", "causal")  # nobody asked for them
            self.output.unlink()
        path = self.tensors()
        with h5py.File(path, "a") as file:
            file["documents"] = np.array([0.0, 12.0])
        self.attend(5, "documents", input=path, options=["--mask", "documents"])

    def test_documents_are_asked_for_and_there_are_none(self):
        self.attend(2, "dataset documents", "n + 1", "offsets", input=self.tensors(), options=["--mask", "documents"],
                    ranks=self.processes())


class BadOptions(Refused):
    def test_unknown_and_abbreviated_options(self):
        path = self.tensors()
        for word in ["--no-such", "--bacward", "--strat", "-o", "--out"]:
            self.attend(2, word, input=path, options=[word], ranks=self.processes()[:1])
        self.attend(2, "--trac", input=path, options=["--trac", "full"], ranks=self.processes())
        self.attend(2, "--output", input=path, options=["--output", "twice.h5"])
        self.one_sentence(2, "--output", command=["attend", path])
        self.one_sentence(2, "INPUT", command=["attend", "--output", self.output])
        self.one_sentence(2, "extra.h5", command=["attend", path, "extra.h5", "--output", self.output])

    def test_values_that_are_not_allowed(self):
        path = self.tensors()
        for option, value in [
                ("--mask", "casual"), ("--mask", ""), ("--mask", "causal+"), ("--mask", "+causal"), ("--mask", "window"),
                ("--mask", "window:a"), ("--mask", "window:3,-5"), ("--mask", "sink:-1"), ("--mask", "global:3-1"),
                ("--mask", "global:99"), ("--mask", "causal:3"), ("--dtype", "f64"), ("--dtype", "float"), ("--strategy", "star"),
                ("--strategy", "gather"), ("--grid", "2x2"), ("--grid", "0x1x1"), ("--grid", "2x1x1"), ("--partition", "diagonal"),
                ("--kernel", "abacus"), ("--device", "tpu"), ("--transport", "pigeon"), ("--trace", "some"), ("--top-k", "0"),
                ("--top-k", "2000"), ("--softmax-scale", "0"), ("--softmax-scale", "nan"), ("--ranks", "0"), ("--ranks", "-2"),
                ("--ranks", "two"), ("--ranks", "100000"), ("--threads", "0"), ("--threads", "1000000"), ("--timeout", "-1"),
                ("--weights", "1,2"), ("--map-blocks", "0"), ("--map-blocks", "5000"), ("--progress", "bar")]:
            traces = [] if option == "--trace" else ["--trace", "full"]
            self.attend(2, option.removeprefix("--"), input=path, options=[option, value, *traces])
        self.attend(2, "mask", "casual", input=path, options=["--mask", "casual"], ranks=self.processes())

    def test_terms_that_need_equal_lengths(self):
        path = self.tensors(queries=7, keys=12)
        for mask in ["prefix:3", "global:1", "documents"]:
            self.attend(2, mask.split(":")[0], "7", "12", input=path, options=["--mask", mask])

    def test_grids_and_strategies_that_do_not_fit_the_ranks(self):
        path = self.tensors()
        self.attend(2, "grid", "1x3x1", "4", input=path, options=["--grid", "1x3x1", "--ranks", "4"])
        self.attend(2, "grid", "ulysses", input=path, options=["--grid", "1x4x1", "--strategy", "ulysses", "--ranks", "4"])
        self.attend(2, "grid", "1x3x1", "2", input=path, options=["--grid", "1x3x1"], ranks=self.processes()[1:])

    def test_ranks_that_contradict_mpirun(self):
        self.needs_mpirun()
        self.attend(2, "--ranks 3", "2", input=self.tensors(), options=["--ranks", "3"], ranks=(2,))
        self.attend(2, "threads", "2", input=self.tensors(), options=["--transport", "threads"], ranks=(2,))

    def test_what_this_build_or_machine_cannot_do(self):
        path = self.tensors()
        twin = self.scratch / "info.json"
        self.succeeds("info", "--json", twin)
        info = json.loads(twin.read_text())
        if info["cuda_missing"]:  # no GPU, and auto takes the CPU: the other tests do so all the time
            self.assertEqual(info["gpus"], [])
            self.attend(2, "cuda", input=path, options=["--device", "cuda"], ranks=self.processes())
            self.attend(2, "nccl", input=path, options=["--transport", "nccl"], ranks=self.processes())
        self.attend(2, "mpirun", input=path, options=["--transport", "mpi"])
        for kernel in info["kernels"]:
            if kernel["name"].startswith("tiled-") and "f32" not in kernel["dtypes"]:
                self.attend(2, kernel["name"], input=path, options=["--kernel", kernel["name"]])

    def test_config_files(self):
        path, config = self.tensors(), self.room / "job.ini"
        for text, word in [("tokns = 3\n", "tokns"), ("top-k = many\n", "many"), ("no line\n", "line 1")]:
            config.write_text(text)
            self.attend(2, "job.ini", word, input=path, options=["--config", config])
        self.one_sentence(2, "nowhere.ini", command=["attend", path, "--config", self.room / "nowhere.ini"])


if __name__ == "__main__":
    unittest.main()
