"""plan of several numbers of ranks, and limits of memory: every row is what plan says of that number alone."""
import re
import unittest

from planning import ROOT, PlanTest
from program import needs

needs("numpy", "h5py")

import numpy as np

from tensors import random_tensors, write

SEED = 4321
H200, A100, CPUS = (ROOT / "configs" / "hardware" / f"{name}.ini" for name in ["h200-ib", "a100", "cpu-100gbe"])
MODEL = ["--tokens", "256Ki", "--query-heads", 64, "--kv-heads", 8, "--channels", 128]


class PlanRanks(PlanTest):
    def rows_are_plans(self, ranks, *request):
        page, table = self.plan(*request, "--ranks", ",".join(map(str, ranks)))
        rows = table["by_ranks"]
        self.assertEqual([row["ranks"] for row in rows], sorted(ranks))
        first = None
        for row in rows:
            _, alone = self.plan(*request, "--ranks", row["ranks"])
            first = first or alone
            for name in ["ranks", "ranks_per_node", "strategy", "grid", "partition", "reason", "seconds", "forward_seconds", "compute_seconds",
                         "exposed_percent", "bytes_inside_nodes", "bytes_between_nodes", "memory_bytes_per_rank"]:
                self.assertEqual(row[name], alone[name], name)
            self.assertEqual(row["backward_seconds"], alone.get("backward_seconds", 0))
            self.assertEqual(row["node_count"], -(-row["ranks"] // row["ranks_per_node"]))
            self.assertAlmostEqual(row["speedup"], first["seconds"] / alone["seconds"])
            self.assertAlmostEqual(row["efficiency"], row["speedup"] * rows[0]["ranks"] / row["ranks"])
            self.assertAlmostEqual(row["tokens_per_second"], alone["tokens"] / alone["seconds"])
            self.assertRegex(page, rf"(?m)^ +{row['ranks']} +{row['node_count']}  {row['strategy']} +{row['grid']} +{row['partition']} ")
            self.assertTrue({name: table[name] for name in ["tokens", "mask", "pass", "dtype", "prices"]}.items() <= alone.items())
        self.assertIn("How many ranks: " + table["answer"]["sentence"].split(" ")[0], page)
        for line in page.splitlines():
            self.assertLessEqual(len(line), 120, line)
        return page, table

    def test_every_row_is_the_plan_of_that_number_alone(self):
        for request in [["--tokens", "64Ki"], ["--tokens", "16Ki", "--mask", "window:1000,0", "--pass", "backward", "--ranks-per-node", 2],
                        ["--tokens", 5000, "--mask", "causal+documents", "--document-tokens", 300, "--partition", "striped", "--strategy", "ring"],
                        [*MODEL, "--hardware", H200], ["--tokens", "64Ki", "--trace", "standard", "--hardware", CPUS]]:
            with self.subTest(request=request):
                page, table = self.rows_are_plans([1, 3, 8, 64], *request)
                self.assertIn("at nominal prices" if table["prices"] == "nominal" else f"predicted for {table['prices'].split(',')[0]}", page)

    def test_an_input_works_too(self):
        random = np.random.default_rng(SEED)
        path = write(self.scratch / "in.h5", "f32", [0, 100, 300], **random_tensors(random, 300, 300, 4, 2, 8, 8))
        self.rows_are_plans([2, 4, 5], path, "--mask", "causal+documents")

    def test_lists_are_those_of_other_options(self):
        for text, ranks in [("8,2-4", [2, 3, 4, 8]), ("4,2,4", [2, 4]), ("1-64", list(range(1, 65)))]:
            _, table = self.plan("--tokens", 640, "--strategy", "ring", "--partition", "zigzag", "--ranks", text)
            self.assertEqual([row["ranks"] for row in table["by_ranks"]], ranks)
        _, one = self.plan("--tokens", 640, "--ranks", "4,4")
        self.assertEqual(one["ranks"], 4)  # one number, one plan
        for text, *words in [("0", "1 or more"), ("4,0", "1 or more"), ("-3,4", "-3"), ("", "--ranks"), ("4,", "whole number"), (",", "whole number"),
                             ("4;8", "whole number"), ("4.5,8", "4.5"), ("8-4", "smaller-larger"), ("70000,4", "65536", "70000"),
                             ("99999999999999999999", "--ranks"), ("1-65", "64", "65"), ("1-1000000000000", "65536")]:
            self.refuses(2, *words, command=["plan", "--ranks", text])

    def test_what_is_about_one_number_is_refused(self):
        for name, *value in [("--grid", "1x4x1"), ("--weights", "1,1,1,1"), ("--timeline", self.scratch / "t.json"), ("--explain",)]:
            self.refuses(2, name, "about one number of ranks", command=["plan", "--ranks", "4,8", name, *value])
        self.assertFalse((self.scratch / "t.json").exists())

    def test_numbers_that_a_strategy_cannot_use_say_why(self):
        page, table = self.plan("--tokens", 640, "--ranks", "3,4,5,8", "--strategy", "hybrid")
        self.assertEqual([row["legal"] for row in table["by_ranks"]], [False, True, False, True])
        _, alone = self.plan("--tokens", 640, "--ranks", 8, "--strategy", "hybrid")
        _, base = self.plan("--tokens", 640, "--ranks", 4, "--strategy", "hybrid")
        self.assertAlmostEqual(table["by_ranks"][3]["speedup"], base["seconds"] / alone["seconds"])
        self.assertIn("Speed-up over 4 ranks", page)
        self.assertIn(table["by_ranks"][0]["verdict"], page)
        self.refuses(2, "hybrid", "ranks = 5", command=["plan", "--ranks", "3,5", "--strategy", "hybrid"])
        self.refuses(2, "strategy", "'none'", command=["plan", "--ranks", "3,5", "--strategy", "none"])

    def test_rows_that_do_not_fit_say_so(self):
        request = [*MODEL, "--tokens", "1M", "--pass", "backward", "--ranks", "1,2,4,8,64,1024"][2:]
        for limit, bytes_of in [("20GiB", 20 << 30), ("30GB", 30 * 10**9), ("1Gi", 1 << 30), (None, 141 * 10**9)]:
            with self.subTest(limit=limit):
                page, table = self.plan(*request, "--hardware", H200, *(["--memory-limit", limit] if limit else []))
                rows, answer = table["by_ranks"], table["answer"]
                self.assertEqual(table["memory_limit_bytes"], bytes_of)
                self.assertEqual([row["fits"] for row in rows], [row["memory_bytes_per_rank"] <= bytes_of for row in rows])
                self.assertEqual(len(re.findall(r"(?m)  no fit$", page)), sum(not row["fits"] for row in rows))
                fitting = [row for row in rows if row["fits"]]
                self.assertEqual(answer["fewest_that_fit"], fitting[0]["ranks"])
                self.assertEqual(answer["fastest"], min(fitting, key=lambda row: row["seconds"])["ranks"])
                paying = [row["ranks"] for row in fitting if row["efficiency"] >= 0.5]
                self.assertEqual(answer["most_at_half_efficiency"], max(paying, default=None))
                self.assertIn("--memory-limit" if limit else "memory-bytes of H200", page)
        page, table = self.plan("--ranks", "2,4", "--memory-limit", "1M")
        self.assertIn("none of these numbers of ranks fits", page)
        self.assertIsNone(table["answer"]["fewest_that_fit"])
        for profile, has in [(A100, True), (CPUS, False)]:
            _, table = self.plan("--ranks", "2,4", "--hardware", profile)
            self.assertEqual("memory_limit_bytes" in table, has)

    def test_a_plan_that_does_not_fit_ends_with_4(self):
        _, plan = self.plan("--ranks", 4)
        needed = plan["memory_bytes_per_rank"]
        _, fits = self.plan("--ranks", 4, "--memory-limit", needed)
        self.assertEqual((fits["strategy"], fits["memory_bytes_per_rank"]), (plan["strategy"], needed))
        ring = ["--ranks", 4, "--strategy", plan["strategy"], "--partition", plan["partition"]]
        done = self.refuses(4, f"{needed:,} bytes per rank", f"is {needed - 1:,}", "--memory-limit", command=["plan", *ring, "--memory-limit", needed - 1])
        self.assertEqual(done.stdout, "")
        profile = self.scratch / "small.ini"
        profile.write_text(CPUS.read_text() + "memory-bytes = 1Mi\n")  # what a rank has holds where nobody says otherwise
        self.refuses(4, "memory-bytes of", "more ranks", command=["plan", "--ranks", 4, "--hardware", profile])
        self.succeeds("plan", "--ranks", 4, "--hardware", profile, "--memory-limit", "80GB")
        shape = ["--tokens", 512, "--ranks", 4, "--query-heads", 8, "--trace", "full", "--top-k", 64, "--hardware", CPUS]
        needs = {name: self.plan(*shape, "--strategy", name)[1]["memory_bytes_per_rank"] for name in ["ring", "auto"]}
        self.assertLess(needs["ring"], needs["auto"])
        _, fits = self.plan(*shape, "--memory-limit", needs["ring"])  # auto leaves room for the traces
        self.assertEqual(fits["memory_bytes_per_rank"], needs["ring"])
        self.refuses(4, "more ranks", command=["plan", "--ranks", 4, "--memory-limit", "1Mi"])
        for value, *words in [("0", "least"), ("80X", "80X"), ("-1G", "-1G"), ("1.5G", "1.5G"), ("", "--memory-limit"), ("80 GB", "80 GB"), ("GB", "GB")]:
            self.refuses(2, "--memory-limit", *words, command=["plan", "--memory-limit", value])

    def test_auto_prefers_what_fits(self):
        request = ["--tokens", "64Ki", "--mask", "window:4095,0", "--query-heads", 8, "--hardware", H200, "--ranks", 16]
        _, free = self.plan(*request)
        smaller = [row for row in free["strategies"] if row["legal"] and row["memory_bytes_per_rank"] < free["memory_bytes_per_rank"]]
        self.assertTrue(smaller, "this case tells nothing")
        page, kept = self.plan(*request, "--memory-limit", free["memory_bytes_per_rank"] - 1)
        self.assertLess(kept["memory_bytes_per_rank"], free["memory_bytes_per_rank"])
        self.assertGreaterEqual(kept["seconds"], free["seconds"])
        self.assertIn("faster, in more memory than there is", " ".join(page.split()))


if __name__ == "__main__":
    unittest.main()
