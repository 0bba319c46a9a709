"""annulus bench: its tables, their twins in CSV and JSON, and what it refuses."""
import csv
import json
import os
import pathlib
import signal
import threading
import time
import unittest

from program import ProgramTest, patience, start

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ["--repeats", 2, "--threads", 1, "--query-heads", 2, "--channels", 16]
ATTENTION = ["tokens", "ranks", "strategy", "partition", "mask", "heads", "dtype", "median_ms", "p99_ms", "tflops_per_rank",
             "percent_of_kernel", "tokens_per_s", "mb_per_rank", "exposed_percent", "imbalance", "peak_mb", "max_error",
             "predicted_ms", "keys", "pass", "trace", "kernel", "channels", "value_channels", "threads", "min_ms", "max_ms"]
TERMINAL = 140  # columns


class BenchTest(ProgramTest):
    def bench(self, *arguments, ranks=0, repeats=2):
        """Runs a small benchmark; returns its lines, its CSV rows and its JSON, which must tell the same."""
        table, document = self.scratch / "b.csv", self.scratch / "b.json"
        small = ["--repeats", repeats, *([] if arguments[0] == "exchange" else SMALL[2:])]
        done = self.succeeds("bench", *arguments, *small, "--csv", table, "--json", document, ranks=ranks)
        self.assertEqual(done.stderr, "", "a short benchmark has no progress to tell of")
        lines = done.stdout.splitlines()
        rows = list(csv.DictReader(table.read_text().splitlines()))
        twin = json.loads(document.read_text())
        heading = lines[max(i for i, line in enumerate(lines) if line == "#" and i + 1 < len(lines) and "verdict" not in lines[i + 1]) + 1]
        shown = [line.split() for line in lines if not line.startswith("#") and "=" not in line]
        self.assertEqual(len(rows), len(twin["results"]))
        self.assertEqual(len(shown), len(rows), done.stdout)
        self.assertEqual(len(heading.lstrip("# ").split()), len(shown[0]))
        for line in done.stdout.splitlines():
            if not line.startswith(("# command", "# verdict")):
                longest = max(len(row.get("mask", "")) for row in rows)
                self.assertLessEqual(len(line), TERMINAL + max(0, longest - len("causal")), line)
        for row, result in zip(rows, twin["results"]):
            for name, text in row.items():
                value = result.get(name)
                if isinstance(value, float):  # the shortest text of a number need not be the same everywhere
                    self.assertEqual(float(text), value, name)
                else:
                    self.assertEqual(text, "" if value is None else value if isinstance(value, str) else json.dumps(value), name)
        self.assertTrue(lines[0].startswith("# annulus "), lines[0])
        self.assertTrue(any(line.startswith("# command: annulus bench ") for line in lines))
        self.assertTrue(any(line.startswith("# verdict: ") for line in lines), lines)
        for word in ["version", "time", "hosts", "processor", "cores", "mpi", "device"]:
            self.assertIn(word, twin["environment"])
        if arguments[0] != "exchange":
            self.assertEqual(twin["arguments"]["channels"], "16")
            for name, value in [("kv-heads", "2"), ("value-channels", "16"), ("softmax-scale", "0.25")]:  # what was used
                self.assertEqual(twin["arguments"][name], value)
            for name in ["tokens", "mask", "dtype", "pass", "kernel"]:
                self.assertIsNotNone(twin["arguments"][name])
        return lines, rows, twin

    def check_attention(self, rows, twin, tokens, ranks):
        """Numbers that follow from one another."""
        for row, result in zip(rows, twin["results"]):
            self.assertEqual((int(row["tokens"]), int(row["ranks"])), (tokens, ranks))
            self.assertEqual(len(result["repetitions_ms"]), 2)
            self.assertLessEqual(result["min_ms"], result["median_ms"])
            self.assertLessEqual(result["median_ms"], result["p99_ms"])
            self.assertLessEqual(result["p99_ms"], result["max_ms"])
            self.assertGreater(result["tflops_per_rank"], 0)
            self.assertAlmostEqual(result["tokens_per_s"], tokens / result["median_ms"] * 1e3, delta=1e-6 * result["tokens_per_s"])
            self.assertTrue(0 <= result["exposed_percent"] <= 100, result)
            self.assertGreaterEqual(result["imbalance"], 0.999)
            self.assertLess(result["max_error"], 1e-4)
            self.assertGreater(result["max_error"], 0)


class Tables(BenchTest):
    def test_strategies_side_by_side(self):
        for options, ranks in [(["--ranks", 4], 0), ([], 4)]:
            if ranks:
                self.needs_mpirun()
            for mask, backward in [("causal", False), ("full", True)]:
                with self.subTest(ranks=ranks, mask=mask):
                    more = ["--pass", "backward"] if backward else []
                    lines, rows, twin = self.bench("strategies", "--tokens", 96, "--mask", mask, *more, *options, ranks=ranks)
                    self.assertLessEqual({"ring", "double-ring", "ulysses", "hybrid"}, {row["strategy"] for row in rows})
                    self.assertEqual(list(rows[0]), ATTENTION)
                    self.assertEqual({row["pass"] for row in rows}, {"backward" if backward else "forward"})
                    self.assertEqual(twin["arguments"]["ranks"], "4")
                    job = [line for line in lines if line.startswith("# job: ")]
                    self.assertEqual(len(job), 1, lines)
                    for word in [rows[0]["pass"], rows[0]["kernel"], "f32", "2:2 heads x 16:16 channels", "1 thread per rank"]:
                        self.assertIn(word, job[0])
                    self.check_attention(rows, twin, 96, 4)
                    self.assertTrue(twin["verdict"]["passed"])
                    # operations: 2 (or 5) x pairs x heads x (channels + value channels)
                    pairs = 96 * 97 / 2 if mask == "causal" else 96 * 96
                    for result in twin["results"]:
                        operations = (5 if backward else 2) * pairs * 2 * 32
                        self.assertAlmostEqual(result["tflops_per_rank"] * result["median_ms"] * 4e9 / operations, 1, places=6)

    def test_the_ring_moves_the_bytes_of_its_closed_form(self):
        _, rows, twin = self.bench("strategies", "--strategy", "ring", "--partition", "contiguous", "--mask", "full", "--tokens",
                                   120, "--ranks", 4)
        # 3 blocks of 30 tokens x 2 heads x (16 + 16) channels x 4 bytes
        self.assertAlmostEqual(twin["results"][0]["mb_per_rank"] * 1e6, 3 * 30 * 2 * 32 * 4, places=3)

    def test_strong_and_weak_scaling_use_fewer_ranks_of_an_mpirun(self):
        for what, tokens in [("strong", [60, 60, 60]), ("weak", [60, 120, 180])]:
            for options, ranks in [(["--ranks", 3], 0), ([], 3)]:
                if ranks:
                    self.needs_mpirun()
                with self.subTest(what=what, ranks=ranks):
                    _, rows, _ = self.bench(what, "--tokens", 60, *options, ranks=ranks)
                    self.assertEqual([int(row["ranks"]) for row in rows], [1, 2, 3])
                    self.assertEqual([int(row["tokens"]) for row in rows], tokens)
                    self.assertEqual(float(rows[0]["efficiency"]), 1.0)

    def test_documents_windows_and_lists_of_tokens(self):
        _, rows, _ = self.bench("strategies", "--strategy", "ring", "--mask", "causal+documents", "--document-tokens", 10,
                                "--tokens", "40,80", "--ranks", 2)
        self.assertEqual([int(row["tokens"]) for row in rows], [40, 80])

    def test_keys_of_another_number_as_in_decoding(self):
        lines, rows, twin = self.bench("strategies", "--tokens", 3, "--keys", 200, "--ranks", 2)
        self.assertIn("200 keys", next(line for line in lines if line.startswith("# job: ")))
        for row, result in zip(rows, twin["results"]):
            self.assertEqual((row["tokens"], row["keys"]), ("3", "200"))
            self.assertLess(result["max_error"], 1e-4)
            pairs = 198 + 199 + 200  # the ends are aligned
            self.assertAlmostEqual(result["tflops_per_rank"] * result["median_ms"] * 2e9 / (2 * pairs * 2 * 32), 1, places=6)
        _, rows, _ = self.bench("kernel", "--tokens", 1, "--keys", 300, "--kv-heads", 2, "--kernel", "tiled-portable", "--dtype", "f32",
                                "--pass", "forward", "--mask", "full")
        self.assertEqual([(row["tokens"], row["keys"]) for row in rows], [("1", "300")])
        self.refuses(2, "--keys", command=["bench", "weak", "--keys", 64, *SMALL])
        self.bench("strong", "--tokens", 32, "--ranks", 1, "--overwrite")  # of tables, too

    def test_overlap_and_exchange(self):
        _, rows, twin = self.bench("overlap", "--tokens", "64,128", "--ranks", 2, "--mask", "full")
        for result in twin["results"]:
            self.assertGreater(result["exchange_ms"], 0)
            self.assertGreaterEqual(result["exposed_ms"], 0)
            self.assertLessEqual(result["compute_ms"], result["median_ms"])
        _, rows, twin = self.bench("overlap", "--tokens", 64, "--ranks", 2, repeats=1)
        (result,) = twin["results"]  # with one repetition, medians are what they are of
        self.assertAlmostEqual(result["exposed_ms"], result["median_ms"] - result["compute_ms"])
        self.assertAlmostEqual(result["exposed_percent"], 100 * result["exposed_ms"] / result["median_ms"])
        for options, ranks in [(["--ranks", 2], 0), ([], 2)]:
            if ranks:
                self.needs_mpirun()
            _, rows, _ = self.bench("exchange", *options, ranks=ranks)
            self.assertEqual([int(row["bytes"]) for row in rows], [8**n for n in range(1, 9)])
            for row in rows:
                self.assertGreater(float(row["gb_per_s"]), 0)

    def test_memory_of_a_case_is_its_own(self):
        _, _, twin = self.bench("strategies", "--mask", "window:15,0", "--tokens", "16Ki,16Ki", "--ranks", 4, "--rows", 0)
        peaks = {}
        for result in twin["results"]:
            peaks.setdefault(result["strategy"], []).append(result["peak_mb"])
        for strategy, (first, again) in peaks.items():
            self.assertLess(abs(again - first), 8, strategy)

    def test_kernels_beside_the_peak(self):
        _, rows, twin = self.bench("kernel", "--tokens", 64, "--dtype", "f32", "--mask", "full")
        self.assertEqual([row["pass"] for row in rows], ["forward", "backward"])
        for result in twin["results"]:
            for name in ["kernel", "dtype", "pass", "mask", "tokens", "query_heads", "kv_heads", "channels", "threads", "median_ms",
                         "gflops", "peak_gflops", "fraction"]:
                self.assertIn(name, result)
            self.assertGreater(result["gflops"], 0)
            self.assertGreater(result["peak_gflops"], 0)
            self.assertTrue(0 < result["fraction"] < 1.5, result)
        self.assertIsNone(twin["verdict"]["passed"], "a measurement is not a check")

    def test_traces_follow_the_pass(self):
        for what, more in [("strategies", ["--strategy", "ring", "--ranks", 2]), ("blocks", []), ("kernel", ["--dtype", "f32", "--pass", "forward"])]:
            with self.subTest(what=what):
                lines, rows, twin = self.bench(what, "--tokens", 300, "--mask", "full", "--trace", "full", "--top-k", 2, *more)
                self.assertEqual({row["trace"] for row in rows}, {"full"})
                for result in twin["results"]:  # pass and traces: 2 x pairs x heads x (channels + value channels + channels)
                    rate = result["gflops"] * 1e9 if what == "kernel" else (result.get("tflops_per_rank") or result["tflops"]) * 1e12
                    operations = 2 * 300 * 300 * 2 * (16 + 16 + 16) / result.get("ranks", 1)
                    self.assertAlmostEqual(rate * result["median_ms"] * 1e-3 / operations, 1, places=6)
                if what != "kernel":
                    self.assertIn("forward pass and traces (full)", "\n".join(lines))

    def test_blocks_of_keys_beside_the_whole(self):
        for more in [[], ["--pass", "backward", "--mask", "window:300,0+sink:3"],
                           ["--mask", "causal+documents", "--document-tokens", 500]]:
            with self.subTest(more=more):
                lines, rows, twin = self.bench("blocks", "--tokens", "300,1100", "--kernel", "tiled-portable", *more)
                self.assertEqual([(int(row["tokens"]), int(row["block_tokens"]), int(row["blocks"])) for row in rows],
                                 [(300, 300, 1), (300, 256, 2), (1100, 1100, 1), (1100, 1024, 2), (1100, 512, 3), (1100, 256, 5)])
                for row, result in zip(rows, twin["results"]):
                    self.assertTrue(0 < result["max_error"] < 1e-4, result)
                    self.assertGreater(float(row["tflops"]), 0)
                    self.assertEqual(row["percent_of_whole"] == "100.0", row["blocks"] == "1")
                    self.assertLessEqual(float(row["min_ms"]), float(row["median_ms"]))
                self.assertTrue(twin["verdict"]["passed"])
                self.assertEqual(sum(line.startswith("# job: ") for line in lines), 1)
        self.needs_mpirun()
        _, rows, _ = self.bench("blocks", "--tokens", 600, ranks=2)
        self.assertEqual(len(rows), 3)

    def test_a_scale_is_used_and_checked(self):
        """One --config serves attend and bench; the float64 oracle has the same scale."""
        config = self.scratch / "shared.ini"
        config.write_text("softmax-scale = 0.5\nmask = full\ntrace = standard\ntop-k = 3\nprogress = none\noutput = out.h5\nstrategy = ring\n")
        errors = {}
        for more in [[], ["--softmax-scale", 0.125]]:
            _, rows, twin = self.bench_scaled(config, *more)
            self.assertTrue(twin["verdict"]["passed"])
            errors[twin["arguments"]["softmax-scale"]] = rows[0]["max_error"]
        self.assertEqual(set(errors), {"0.5", "0.125"})
        self.assertEqual(len(set(errors.values())), 2, "another scale rounds differently")
        self.refuses(5, "in.h5", command=["attend", "in.h5", "--config", config])  # it gets as far as its input

    def bench_scaled(self, config, *more):
        table, document = self.scratch / "s.csv", self.scratch / "s.json"
        done = self.succeeds("bench", "strategies", "--config", config, "--tokens", 64, "--ranks", 2, *SMALL, "--csv", table, "--json",
                             document, *more)
        return done, list(csv.DictReader(table.read_text().splitlines())), json.loads(document.read_text())

    def test_progress_is_told_between_cases(self):
        process = start("bench", "strategies", "--strategy", "ring", "--tokens", ",".join(["512"] * 60), "--ranks", 2, "--threads", 1, "--repeats",
                        100, "--progress", "json")
        end = threading.Timer(patience(60), process.kill)
        end.start()
        try:
            line = json.loads(process.stderr.readline())
        finally:
            process.kill()
            process.communicate()
            end.cancel()
        self.assertEqual(line["progress"], "bench")
        self.assertTrue(0 < line["share"] <= 1, line)

    def test_the_last_case_leaves_a_timeline(self):
        timeline = self.scratch / "t.json"
        _, rows, twin = self.bench("strategies", "--strategy", "ring", "--tokens", 64, "--ranks", 2, "--timeline", timeline)
        events = json.loads(timeline.read_text())["traceEvents"]
        self.assertEqual({event["pid"] for event in events}, {0, 1})
        self.assertGreater(twin["results"][0]["mb_per_rank"], 0)


class Profiles(BenchTest):
    def test_calibrate_writes_what_hardware_reads(self):
        self.needs_mpirun()
        profile = self.scratch / "here.ini"
        command = ["bench", "calibrate", "--tokens", "32,64", "--repeats", 1, "--threads", 1, "--output", profile]
        self.succeeds(*command, ranks=2)
        text = profile.read_text()
        for line in ["name = ", "link.process = ", "link.shared = ", "memory = ", "pass = ", "kernel.f32.forward.full = 32:",
                     "kernel.bf16.backward.causal = 32:", "ranks-per-node = 2", "keys.f32 = ", "keys.bf16 = "]:
            self.assertIn(line, text)
        self.refuses(5, "--output", "--overwrite", command=command)
        self.succeeds(*command, "--overwrite")
        _, _, twin = self.bench("strategies", "--tokens", 96, "--ranks", 2, "--hardware", profile)
        for result in twin["results"]:
            self.assertGreater(result["predicted_ms"], 0)

    def test_calibrate_writes_what_is_read_whatever_is_asked_for(self):
        profile = self.scratch / "some.ini"
        for options in [["--tokens", "64,32,64"], ["--tokens", 32, "--pass", "backward"]]:
            with self.subTest(options=options):
                command = ["bench", "calibrate", "--repeats", 1, "--threads", 1, "--dtype", "f32", "--mask", "causal", *options]
                self.succeeds(*command, "--output", profile, "--overwrite")
                self.succeeds("plan", "--tokens", 64, "--pass", "backward", "--hardware", profile)
        self.refuses(2, "--mask", "full or causal", command=["bench", "calibrate", "--mask", "window:3"])

    def test_shipped_profiles_are_read(self):
        profiles = sorted((ROOT / "configs" / "hardware").glob("*.ini"))
        self.assertGreaterEqual(len(profiles), 3)
        for profile in profiles:
            with self.subTest(profile=profile.name):
                dtype = "bf16" if "kernel.bf16." in profile.read_text() else "f32"
                command = ["bench", "strategies", "--tokens", 64, "--ranks", 2, "--dtype", dtype, "--hardware", profile, *SMALL]
                self.succeeds(*command, "--rows", 0, "--json", self.scratch / "p.json")
                for result in json.loads((self.scratch / "p.json").read_text())["results"]:
                    self.assertGreater(result["predicted_ms"], 0)
                    self.assertIsNone(result["max_error"], "nothing was checked")

    def test_bad_profiles_name_the_file_and_the_line(self):
        good = "name = x\nlink.network = 1e-6, 1e9\nkernel.f32.forward.full = 64:1e9\n"
        for text, words in [(good + "speed = 3\n", ["line 4", "'speed'"]), ("link.network = 1e-6\n", ["line 1", "seconds"]),
                            (good.replace("64:1e9", "64:1e9, 32:1e9"), ["line 3", "ascend"]),
                            (good.replace("1e-6", "nan"), ["line 2", "between 1e-15 and 1e30"]), (good + "name = y\n", ["line 4", "twice"]),
                            ("name = x\n", ["kernel."]), (good.replace("f32", "f64"), ["line 3", "not known"]),
                            (good.replace("1e9\nk", "1e9, 1.5\nk"), ["line 2", "share"]),
                            (good.replace("1e9\nk", "1e9, 1, 65536\nk"), ["line 2", "long messages"]),
                            (good.replace("1e9\nk", "1e9, 1, 65536, 0\nk"), ["line 2", "between 1e-15 and 1e30"]), (good + "network-ports = 0\n", ["line 4", "least"]),
                            (good + "memory = fast\n", ["line 4", "'fast'"]), (good + "memory-bytes = 0\n", ["line 4", "1 to 1e18"]),
                            (good + "memory-bytes = 0.5\n", ["line 4", "1 to 1e18 bytes"]), (good + "memory-bytes = 80XB\n", ["line 4", "memory-bytes", "'80XB'"]),
                            (good + "memory-bytes = 1e9\nmemory-bytes = 1e9\n", ["line 5", "twice"])]:
            with self.subTest(text=text):
                profile = self.scratch / "bad profile.ini"
                profile.write_text(text)
                self.refuses(2, "bad profile.ini", *words, command=["bench", "strong", "--hardware", profile])
        self.refuses(2, "--hardware", "cannot be opened", command=["bench", "strong", "--hardware", self.scratch / "none.ini"])


class Stopping(ProgramTest):
    """Asked to stop, a benchmark ends on all ranks, says so once, and keeps the rows it has."""

    def stopped(self, how, *arguments, ranks=0, one_rank=False, finished=1):
        """Starts a benchmark of so many finished cases and an endless one and asks it to stop in that; one_rank: tells one process of
        mpirun."""
        table, document = self.scratch / "b.csv", self.scratch / "b.json"
        process = start("bench", *arguments, "--kernel", "tiled-portable", "--channels", 64, "--threads", 1, "--csv", table,
                        "--json", document, ranks=ranks)
        end = threading.Timer(60, lambda: os.killpg(process.pid, signal.SIGKILL))
        end.start()
        try:
            while (line := process.stdout.readline()) and line.startswith("#") and finished:
                pass
            time.sleep(1.0)
            self.assertIsNone(process.poll(), "the benchmark is over before it could be stopped")
            asked = time.monotonic()
            if one_rank:
                children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(children[-1]), how)
            else:
                process.send_signal(how)
        finally:
            _, errors = process.communicate()
            end.cancel()
        self.assertEqual(process.returncode, 75, errors)
        self.assertEqual(errors.count(f"stopped on request: {finished} row"), 1, errors)
        self.assertLess(time.monotonic() - asked, patience(15))
        rows = list(csv.DictReader(table.read_text().splitlines()))
        self.assertEqual([row["tokens"] for row in rows], ["64"] * finished)
        self.assertIn("stopped on request", json.loads(document.read_text())["verdict"]["text"])

    def test_within_long_passes(self):
        case = ["--query-heads", 1, "--tokens", "64,16000", "--mask", "full", "--repeats", 100]
        strategies = ["strategies", "--strategy", "ring", *case]
        for how in [signal.SIGUSR1, signal.SIGTERM]:
            with self.subTest(signal=how):
                self.stopped(how, "kernel", "--dtype", "f32", "--pass", "forward", *case)
                self.stopped(how, *strategies, "--ranks", 2)

    def test_between_short_passes(self):
        self.stopped(signal.SIGUSR1, "strategies", "--strategy", "ring", "--tokens", 64, "--ranks", 2, "--repeats", 1_000_000, finished=0)

    def test_processes_stop_together(self):
        self.needs_mpirun()
        case = ["--query-heads", 1, "--tokens", "64,16000", "--mask", "full", "--repeats", 100]
        self.stopped(signal.SIGUSR1, "strategies", "--strategy", "ring", *case, ranks=2)  # mpirun passes this one on
        self.stopped(signal.SIGTERM, "strategies", "--strategy", "ring", *case, ranks=2, one_rank=True)
        # only rank 0 measures: the other one waits, and may be the one that is told
        self.stopped(signal.SIGUSR1, "kernel", "--dtype", "f32", "--pass", "forward", *case, ranks=2)


class Refusals(ProgramTest):
    def test_bad_requests_are_one_sentence(self):
        for words, command in [(["'speed'", "kernel, blocks, strategies"], ["speed"]), (["--tokens", "x"], ["strong", "--tokens", "1Ki,x"]),
                               (["two ranks"], ["exchange"]), (["two ranks"], ["overlap"]), (["--grid"], ["weak", "--grid", "2x1x1"]),
                               (["no kernel 'abacus'"], ["kernel", "--kernel", "abacus", "--dtype", "f32"]),
                               (["divide"], ["strategies", "--query-heads", 3, "--kv-heads", 2]),
                               (["--repeats"], ["strong", "--repeats", 0]), (["kernel", "CPU"], ["kernel", "--device", "cuda"]), (["exchange", "CPU"], ["exchange", "--transport", "nccl"]), (["BENCHMARK"], []),
                               (["--mask", "exchange"], ["exchange", "--ranks", 2, "--mask", "foo"]),
                               (["--rows", "kernel"], ["kernel", "--rows", 2]), (["--ranks", "blocks"], ["blocks", "--ranks", 2]), (["--output", "strong"], ["strong", "--output", "x.ini"]),
                               (["--transport mpi", "mpirun"], ["kernel", "--transport", "mpi"]),
                               (["--document-tokens", "the mask is causal"], ["strong", "--document-tokens", 10]),
                               (["--mask", "--document-tokens N"], ["strong", "--mask", "documents"]),
                               (["--trace", "'all'", "summary"], ["strong", "--trace", "all"]), (["--trace", "calibrate"], ["calibrate", "--trace", "full"]),
                               (["--softmax-scale", "above zero"], ["strong", "--softmax-scale", 0]),
                               (["--threads", "99999", "4096"], ["strong", "--tokens", 128, "--threads", 99999]),
                               (["--threads", "99999999999", "4096"], ["kernel", "--threads", 99999999999])]:
            with self.subTest(command=command):
                self.refuses(2, *words, command=["bench", *command])

    def test_a_profile_without_the_rates_is_refused_at_once(self):
        profile = self.scratch / "bf16.ini"
        profile.write_text("name = half\nlink.process = 1e-6, 1e9\nkernel.bf16.forward.full = 64:1e9\n")
        done = self.refuses(2, "half", "f32 forward", "bf16 forward", command=["bench", "strategies", "--ranks", 2, "--hardware", profile])
        self.assertEqual(done.stdout, "")

    def test_all_ranks_end_together(self):
        self.needs_mpirun()
        for code, words, command in [(2, ["no kernel 'abacus'"], ["strong", "--kernel", "abacus"]),
                                     (5, ["--json"], ["weak", "--json", "/nowhere/x.json"]),
                                     (4, ["does not fit"], ["strong", "--tokens", "1G", "--mask", "window:1"])]:
            with self.subTest(command=command):
                self.refuses(code, *words, command=["bench", *command], ranks=2)


if __name__ == "__main__":
    unittest.main()
