"""What cannot work ends soon, on all ranks, with the contract's exit code and one sentence, and leaves nothing behind."""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import time
import unittest

from program import MPIRUN, ProgramTest, needs, patience, start

needs("numpy", "h5py")

import h5py
import numpy as np

from tensors import random_tensors, write

SEED = 777
# What mpirun says about the end of its job, beside what the program says.
MPIRUN_NOTICE = re.compile(r"^(-{20,}|\[.*|Primary job .*|mpirun .*|MPI_ABORT .*|with errorcode .*|NOTE: .*|You may .*|exactly .*|"
                           r"a non-zero exit code.*|Per user-direction.*|  ?Process name: .*|  Exit code: .*|process .*|"
                           r"noticed that .*|.*thus causing.*|the job to be terminated.*|.*the first process to do so was:|)$")


class Refused(ProgramTest):
    def setUp(self):
        self.room = self.scratch / self._testMethodName
        self.room.mkdir()
        self.output = self.room / "out.h5"

    def tensors(self, name="in.h5", queries=12, keys=12, heads=4, kv_heads=2, channels=8, dtype="f32", **more):
        random = np.random.default_rng(SEED)
        arrays = random_tensors(random, queries, keys, heads, kv_heads, channels, channels, dout=True)
        return write(self.room / name, dtype, **{**arrays, **more})

    def one_sentence(self, code, *words, command, ranks=(0,), **how):
        """Ends with the code and one line on stderr, with all the words in it; no file is left that was not there."""
        for count in ranks:
            with self.subTest(command=command[0], words=words, ranks=count):
                before = sorted(self.room.rglob("*"))
                done = self.refuses(code, *words, command=command, ranks=count, **how)
                said = [line for line in done.stderr.splitlines() if not (count and MPIRUN_NOTICE.match(line))]
                self.assertEqual(len(said), 1, f"one sentence\n{done.stderr}")
                self.assertTrue(said[0].startswith("annulus: "), said)
                self.assertEqual(done.stdout, "")
                self.assertEqual(sorted(self.room.rglob("*")), before, "nothing is left behind")

    def attend(self, code, *words, input, options=(), ranks=(0,), **how):
        self.one_sentence(code, *words, command=["attend", input, "--output", self.output, *options], ranks=ranks, **how)

    def processes(self):
        return (0, 2) if MPIRUN else (0,)


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
            self.attend(5, f"dataset {name} ", input=lacking, options=["--ranks", 2])
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

    def test_document_offsets_that_make_no_sense(self):
        for offsets in [[1, 12], [0, 11], [0, 7, 5, 12], [0, -3, 12], [0, 13, 12], []]:
            path = self.tensors()
            with h5py.File(path, "a") as file:
                file["documents"] = np.array(offsets, np.int64)
            for mask in ["causal+documents", "causal"]:
                self.attend(5, "offset", input=path, options=["--mask", mask, "--ranks", 2])
        path = self.tensors()
        with h5py.File(path, "a") as file:
            file["documents"] = np.array([0.0, 12.0])
        self.attend(5, "documents", input=path, options=["--mask", "documents"])

    def test_documents_are_asked_for_and_there_are_none(self):
        self.attend(2, "documents", "offsets", input=self.tensors(), options=["--mask", "documents"], ranks=self.processes())


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
        for line in self.succeeds("info").stdout.splitlines():
            words = line.split()
            if words and words[0].startswith("tiled-") and words[-1] != "runs":
                self.attend(2, words[0], input=path, options=["--kernel", words[0]])

    def test_config_files(self):
        path, config = self.tensors(), self.room / "job.ini"
        for text, word in [("tokns = 3\n", "tokns"), ("top-k = many\n", "many"), ("no line\n", "line 1")]:
            config.write_text(text)
            self.attend(2, "job.ini", word, input=path, options=["--config", config])
        self.one_sentence(2, "nowhere.ini", command=["attend", path, "--config", self.room / "nowhere.ini"])


class BadOutputs(Refused):
    def test_an_existing_file_is_kept(self):
        self.output.write_text("precious")
        self.attend(5, "out.h5", "--overwrite", input=self.tensors(), ranks=self.processes())
        self.assertEqual(self.output.read_text(), "precious")
        self.succeeds("attend", self.tensors(), "--output", self.output, "--overwrite")
        with h5py.File(self.output, "r") as file:
            self.assertEqual(file.attrs["status"], "complete")

    def test_a_failed_overwrite_keeps_what_was_there(self):
        self.output.write_text("precious")
        values = np.full((12, 2, 8), np.nan)
        self.attend(5, "NaN", input=self.tensors(v=values), options=["--overwrite"], ranks=self.processes())
        self.assertEqual(self.output.read_text(), "precious")

    def test_an_input_is_never_replaced(self):
        path, words = self.tensors(), self.room / "words.txt"
        words.write_text("some words\n")
        self.one_sentence(2, "--output", "input", command=["attend", path, "--output", path, "--overwrite"], ranks=self.processes())
        self.one_sentence(2, "--output", "input", command=["run", words, "--output", words, "--overwrite"], ranks=self.processes())
        self.assertEqual(words.read_text(), "some words\n")

    def test_a_timeline_that_cannot_be_written_is_known_before_anything_is_computed(self):
        nowhere = self.room / "no" / "timeline.json"
        self.attend(5, "--timeline", str(nowhere), input=self.tensors(), options=["--timeline", nowhere], ranks=self.processes())

    def test_directories_that_are_missing_or_in_the_way(self):
        path = self.tensors()
        self.output = self.room / "no" / "such" / "out.h5"
        self.attend(5, str(self.output.parent), input=path, ranks=self.processes())
        self.output = self.room / "directory"
        self.output.mkdir()
        self.attend(5, "directory", input=path, options=["--overwrite"], ranks=self.processes())
        text = self.room / "words.txt"
        text.write_text("some words\n")
        self.one_sentence(5, "such", command=["run", text, "--output", self.room / "no" / "such" / "out.h5"])

    def test_directories_that_cannot_be_written(self):
        path = self.tensors()
        self.output = pathlib.Path("/proc/out.h5")
        self.attend(5, "/proc", input=path, ranks=self.processes())
        if os.geteuid() == 0:
            return  # nothing is forbidden to root
        locked = self.room / "locked"
        locked.mkdir(mode=0o500)
        self.output = locked / "out.h5"
        self.attend(5, "locked", input=path, ranks=self.processes())

    def test_twins_that_cannot_be_written(self):
        nowhere = self.room / "no" / "such.json"
        self.one_sentence_on_stderr(5, "such.json", command=["plan", "--tokens", "64", "--json", nowhere])
        self.one_sentence_on_stderr(5, "such.json", command=["info", "--json", nowhere])
        self.one_sentence_on_stderr(5, "such.json", command=["inspect", self.tensors(), "--json", nowhere])

    def one_sentence_on_stderr(self, code, *words, command):
        done = self.refuses(code, *words, command=command)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_a_full_disk(self):
        disk = self.room / "disk"
        disk.mkdir()
        mounted = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode == 0
        if not mounted:
            self.skipTest("a small tmpfs cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", disk])
        self.output = disk / "out.h5"
        path = self.tensors(queries=4000, keys=4000)
        self.attend(4, "disk", input=path, options=["--mask", "causal+window:9,0"], ranks=self.processes())
        words = self.room / "words.txt"
        words.write_text("many different words\n" * 2000)
        self.one_sentence(4, "disk", command=["run", words, "--output", self.output, "--mask", "causal+window:9,0"])


class Sizes(Refused):
    def attends(self, path, *options, ranks=0):
        self.succeeds("attend", path, "--output", self.output, "--overwrite", *options, ranks=ranks, seconds=10)
        return h5py.File(self.output, "r")

    def test_nothing_at_all_works(self):
        for queries, keys in [(0, 0), (0, 5), (5, 0)]:
            path = self.tensors(queries=queries, keys=keys)
            for count in [0, 1, 3] if MPIRUN else [0]:
                for options in [[], ["--ranks", 4]] if count == 0 else [[]]:
                    with self.subTest(queries=queries, keys=keys, ranks=count, options=options):
                        with self.attends(path, "--trace", "full", "--backward", *options, ranks=count) as file:
                            self.assertEqual(file["out"].shape, (queries, 4, 8))
                            self.assertEqual(file["dk"].shape, (keys, 2, 8))
                            self.assertTrue((file["out"][()] == 0).all())
                            self.assertTrue((file["lse"][()] == -np.inf).all())
                            self.assertEqual(file["trace/topk_index"].shape, (queries, 4, 8))

    def test_one_token_sees_itself(self):
        path = self.tensors(queries=1, keys=1)
        with h5py.File(path, "r") as file:
            v = file["v"][()]
        for count in [0, 1, 3] if MPIRUN else [0]:
            with self.attends(path, ranks=count) as file:
                np.testing.assert_array_equal(file["out"][()], np.repeat(v, 2, 1))

    def test_more_ranks_than_tokens_work(self):
        path = self.tensors(queries=3, keys=3)
        with self.attends(path, "--trace", "full", "--backward") as file:
            one = file["out"][()]
        for options, ranks in [(["--ranks", 8], 0), (["--ranks", 17], 0), ([], 4 if MPIRUN else 0)]:
            for partition in ["contiguous", "zigzag", "striped", "balanced"]:
                with self.subTest(options=options, ranks=ranks, partition=partition):
                    with self.attends(path, "--trace", "full", "--backward", "--partition", partition, *options, ranks=ranks) as file:
                        np.testing.assert_allclose(file["out"][()], one, atol=1e-6)

    def test_plans_of_absurd_sizes(self):
        for option in ["--tokens", "--keys", "--query-heads", "--channels", "--ranks", "--document-tokens"]:
            for value in ["1" + "0" * 30, "-1", "1e6", "0x10", "12abc", ""]:
                self.one_sentence(2, option, command=["plan", option, value])
        self.one_sentence(2, "--tokens", command=["plan", "--tokens", "1000000Ti"])
        self.one_sentence(2, "--ranks", command=["plan", "--ranks", "1000000"])
        for tokens in ["1Ti", "100000Ti"]:
            self.one_sentence(2, "2^31", command=["plan", "--tokens", tokens])

    def test_plans_that_are_large_end_soon(self):
        for arguments in [["--tokens", "1Gi", "--ranks", "8"], ["--tokens", "2Gi", "--mask", "full"], ["--tokens", "0"],
                          ["--tokens", "1", "--ranks", "64"], ["--tokens", "1M", "--query-heads", "1M"]]:
            done = self.succeeds("plan", *arguments, seconds=10)
            self.assertNotRegex(done.stdout, r"[ (]-\d", "sizes do not overflow")

    def test_documents_by_the_billion_are_refused(self):
        self.one_sentence(2, "--document-tokens", command=["plan", "--tokens", "1Ti", "--mask", "documents", "--document-tokens", "1"])

    def sparse(self, tokens):
        """A small file that says it has so many tokens: contiguous datasets of zeros that take no place on the disk."""
        path = self.room / "sparse.h5"
        with h5py.File(path, "w") as file:
            for name in "qkv":
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.CONTIGUOUS)
                plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((tokens, 8, 64)), plist)
        return path

    def test_what_does_not_fit_is_refused_before_it_is_tried(self):
        path = self.sparse(2**27)  # 256 GiB per dataset
        if path.stat().st_blocks * 512 > 2**20:
            self.skipTest("this file system has no sparse files")
        self.attend(4, "fit", "free", input=path, options=["--mask", "window:8,0"], ranks=self.processes())
        self.attend(4, "fit", "free", input=path, options=["--mask", "window:8,0", "--ranks", "4"])

    def test_traces_that_do_not_fit_are_refused_before_they_are_tried(self):
        path = self.tensors(queries=9000, keys=9000, heads=512, kv_heads=1, channels=1)
        self.attend(4, "fit", input=path, options=["--mask", "window:1,0", "--trace", "standard", "--map-blocks", "4096"])


class Killed(Refused):
    def test_a_killed_rank_ends_the_job(self):
        self.needs_mpirun()
        # Long enough to be alive when it is killed: about 10^11 operations.
        path = self.tensors(queries=20000, keys=20000, heads=4, kv_heads=4, channels=64)
        process = start("attend", path, "--output", self.output, "--mask", "full", "--kernel", "reference", ranks=3)
        deadline = time.monotonic() + patience(20)
        while time.monotonic() < deadline and not list(self.room.glob("out.h5.partial-*")):
            self.assertIsNone(process.poll(), "it must not end before it is killed")
            os.sched_yield()
        children = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
        ranks = [int(pid) for of_thread in children for pid in of_thread.read_text().split()]
        self.assertEqual(len(ranks), 3, "three ranks run")
        ends = [os.pidfd_open(pid) for pid in ranks]
        os.kill(ranks[1], signal.SIGKILL)
        process.communicate(timeout=patience(10))
        for end in ends:
            self.assertTrue(select.select([end], [], [], patience(10))[0], "no rank lives on")
            os.close(end)
        self.assertNotEqual(process.returncode, 0)
        self.assertFalse(self.output.exists(), "nothing has the final name")


if __name__ == "__main__":
    unittest.main()
