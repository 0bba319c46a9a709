"""plan: times, the table of strategies, and what auto takes by them."""
import unittest

from planning import ROOT, PlanTest


class Prices(PlanTest):
    def test_the_table_prices_every_strategy_and_names_the_fastest(self):
        profile = ROOT / "configs" / "hardware" / "h200-ib.ini"
        for hardware in [[], ["--hardware", profile]]:
            with self.subTest(hardware=hardware):
                page, plan = self.plan("--tokens", "256Ki", "--ranks", 16, "--ranks-per-node", 8, *hardware)
                self.assertEqual(plan["prices"] == "nominal", not hardware)
                self.assertIn("predicted for H200" if hardware else "at nominal prices", page)
                self.assertIn("8 channels, bf16" if hardware else "f32", page.replace("64:64 channels", "8 channels"))
                legal = [row for row in plan["strategies"] if row["grid"] != "-"]
                for row in legal:
                    self.assertGreaterEqual(row["seconds"], row["compute_seconds"])
                    self.assertAlmostEqual(row["exposed_percent"], 100 * (1 - row["compute_seconds"] / row["seconds"]), places=6)
                    self.assertGreater(row["bytes_inside_nodes"] + row["bytes_between_nodes"], 0)
                    self.assertGreater(row["memory_bytes_per_rank"], 0)
                best = min(legal, key=lambda row: row["seconds"])
                self.assertEqual(plan["fastest"]["name"], best["name"])
                self.assertIn(f"fastest         {best['name']} {best['grid']}, ", page)
                mine = next(row for row in legal if row["grid"] == plan["grid"] and row["name"] == plan["strategy"])
                self.assertEqual(plan["seconds"], mine["seconds"])
                # auto tries them all, and prefers the plainer of two that differ by less than 2 %
                self.assertLessEqual(plan["seconds"], min(row["seconds"] for row in legal if not row["more_memory_than_auto_spends"]) / 0.98)

    def test_a_plan_that_is_not_the_fastest_says_why(self):
        seen = set()
        for options in [["--strategy", "pass-q"], [], ["--mask", "causal+window:300,0", "--partition", "contiguous"],
                        ["--ranks-per-node", 4], ["--mask", "full", "--query-heads", 1], ["--pass", "backward"], ["--ranks", 1],
                        ["--mask", "full", "--ranks", 6, "--query-heads", 4, "--ranks-per-node", 4, "--tokens", "4k"]]:
            with self.subTest(options=options):
                page, plan = self.plan(*(["--ranks", 8] if "--ranks" not in options else []), *options)
                self.assertNotRegex(plan["fastest"]["reason"], r"(\S+ \S+) and not \1$")
                fastest, best = plan["fastest"], min(row["seconds"] for row in plan["strategies"] if row["legal"])
                self.assertEqual("why_another_was_taken" in fastest, fastest["name"] != plan["strategy"])
                if fastest["name"] == plan["strategy"]:
                    self.assertEqual(plan["seconds"], best)
                    continue
                why = fastest["why_another_was_taken"]
                self.assertIn(why, page)
                self.assertIn(f"{plan['strategy']} {plan['grid']}", why)
                if "--strategy" in options:
                    self.assertIn("was asked for", why)
                elif "memory" not in why:
                    self.assertLess(plan["seconds"], best / 0.98 * (1 + 1e-9))
                    self.assertRegex(why, r"auto took .*, [012]\.?\d* % slower: it keeps the plainer of two that differ by less than 2 %")
                seen.add("asked" if "--strategy" in options else "auto")
        self.assertEqual(seen, {"asked", "auto"}, "these cases do not tell much")

    def test_weights_are_in_every_price(self):
        _, plan = self.plan("--tokens", "4k", "--ranks", 6, "--query-heads", 4, "--kv-heads", 4, "--ranks-per-node", 4, "--mask",
                            "documents+causal", "--document-tokens", 1000, "--partition", "balanced", "--weights", "1,1,1,1,2,2")
        best = min(row["seconds"] for row in plan["strategies"] if row["legal"] and not row["more_memory_than_auto_spends"])
        self.assertLessEqual(plan["seconds"], best / 0.98 * (1 + 1e-9))
        self.assertEqual(plan["weights"], [1, 1, 1, 1, 2, 2])
        _, plan = self.plan("--ranks", 2, "--weights", "1,3", "--mask", "full")
        rows = {row["name"]: row for row in plan["strategies"] if row["legal"]}
        self.assertLess(plan["imbalance_in_all"], 1.02)
        self.assertEqual(plan["partition"], "balanced")
        self.assertEqual(plan["seconds"], rows[plan["strategy"]]["seconds"])
        _, even = self.plan("--ranks", 2, "--mask", "full", "--strategy", "ring")
        self.assertLess(rows["ring"]["compute_seconds"], 1.02 * even["compute_seconds"])
        self.assertGreater(rows["ulysses"]["compute_seconds"], 1.98 * even["compute_seconds"])  # heads are shared out evenly

    def test_both_passes_are_told_apart(self):
        page, plan = self.plan("--ranks", 4, "--strategy", "ring", "--pass", "backward")
        self.assertAlmostEqual(plan["seconds"], plan["forward_seconds"] + plan["backward_seconds"])
        self.assertGreater(plan["backward_seconds"], plan["forward_seconds"])
        self.assertRegex(page, r"  time            forward \S+ \S+ \+ backward \S+ \S+ = \S+ \S+, of which")
        _, alone = self.plan("--ranks", 4, "--strategy", "ring")
        self.assertAlmostEqual(alone["seconds"], plan["forward_seconds"])
        self.assertNotIn("backward_seconds", alone)

    def test_a_profile_says_which_types_it_knows(self):
        for profile, wrong, right in [("cpu-100gbe", "bf16", "f32"), ("h200-ib", "f32", "bf16")]:
            path = ROOT / "configs" / "hardware" / f"{profile}.ini"
            with self.subTest(profile=profile):
                self.refuses(2, f"no rates of {wrong} forward", f"it has those of {right} forward, {right} backward", "--dtype",
                             command=["plan", "--hardware", path, "--dtype", wrong])
                _, plan = self.plan("--hardware", path)
                self.assertEqual(plan["dtype"], right)
        self.refuses(2, "bf16 forward", "--dtype", command=["bench", "strong", "--ranks", 1, "--tokens", 64, "--hardware",
                                                            ROOT / "configs" / "hardware" / "h200-ib.ini"])

    def test_auto_gathers_where_that_is_fastest_and_fits(self):
        profile = self.scratch / "slow.ini"
        profile.write_text("name = x\nranks-per-node = 1\nlink.network = 1e-9, 1e7, 0\nkernel.f32.forward.full = 64:1e9\n"
                           "kernel.f32.backward.full = 64:8e8\n")
        for ranks, mask, gathers in [(8, "causal+window:300,0", True), (13, "causal", False)]:  # 13 is prime: everything at once
            with self.subTest(ranks=ranks, mask=mask):
                page, plan = self.plan("--tokens", 88 * ranks, "--mask", mask, "--ranks", ranks, "--partition", "contiguous", "--pass",
                                       "backward", "--query-heads", 1, "--channels", 16, "--hardware", profile, "--explain")
                row = next(row for row in plan["strategies"] if row["name"] == "all-gather")
                self.assertEqual(plan["fastest"]["name"], "all-gather")
                self.assertEqual(plan["strategy"] == "all-gather", gathers)
                self.assertEqual(row["more_memory_than_auto_spends"], not gathers)
                self.assertEqual("more memory than auto spends" in page, not gathers)
                self.assertEqual("in more than 5 times the memory of a ring" in plan["reason"], not gathers)
                self.assertIn("auto takes the least time", page)

    def test_auto_chooses_by_the_profile(self):
        profile = self.scratch / "p.ini"
        chosen = {}
        for rate in ["1e5", "1e15"]:  # so slow that only an even share of work counts; so fast that only the links do
            profile.write_text("name = x\nranks-per-node = 2\nlink.node = 1e-6, 1e12\nlink.network = 1e-6, 1e6\n"
                               f"kernel.f32.forward.full = 64:{rate}\n")
            _, plan = self.plan("--tokens", "8Ki", "--ranks", 8, "--kv-heads", 2, "--mask", "causal", "--hardware", profile)
            self.assertEqual(plan["prices"], "x")
            self.assertEqual(len(plan["nodes"]), 4, "ranks-per-node is the profile's")
            chosen[rate] = plan
        self.assertLess(chosen["1e5"]["imbalance"], 1.01)
        self.assertLess(chosen["1e15"]["bytes_between_nodes"], chosen["1e5"]["bytes_between_nodes"])
        self.refuses(2, "--hardware", "cannot be opened", command=["plan", "--hardware", self.scratch / "none.ini"])

    def test_long_messages_between_nodes_have_a_latency_of_their_own(self):
        """A block of 64 keys x 4 heads x (64 + 64) channels in f32 is 131,072 bytes; two ranks exchange one each."""
        seconds = {}
        for long_bytes in [131072, 131073]:
            profile = self.scratch / "p.ini"
            profile.write_text(f"name = x\nlink.network = 0.001, 1e9, 1, {long_bytes}, 0.005\nkernel.f32.forward.full = 64:1e12\n")
            _, plan = self.plan("--tokens", 128, "--ranks", 2, "--query-heads", 4, "--channels", 64, "--mask", "full", "--strategy",
                                "ring", "--hardware", profile)
            seconds[long_bytes] = plan["seconds"]
        self.assertAlmostEqual(seconds[131072] - seconds[131073], 0.004, places=9)

    def test_more_bandwidth_is_never_slower(self):
        seconds = []
        for bandwidth in ["1e6", "1e8", "1e10"]:
            profile = self.scratch / "p.ini"
            profile.write_text(f"name = x\nranks-per-node = 2\nlink.network = 1e-6, {bandwidth}\nmemory = 1e10\npass = 1e-5\n"
                               "network-ports = 1\nkernel.f32.forward.full = 64:1e10\nkernel.f32.backward.causal = 64:1e10\n")
            _, plan = self.plan("--tokens", "4Ki", "--ranks", 8, "--strategy", "ring", "--partition", "zigzag", "--pass", "backward",
                                "--hardware", profile)
            seconds.append(plan["seconds"])
        self.assertGreater(seconds[0], seconds[1])
        self.assertGreater(seconds[1], seconds[2])

    def test_sampled_steps_are_said_to_be(self):
        page, plan = self.plan("--tokens", "20M", "--ranks", 20000, "--mask", "full", "--partition", "contiguous", "--strategy", "ring")
        self.assertIn("steps simulated", page)
        self.assertEqual(plan["pairs"], 20_000_000**2)

    def test_few_steps_of_many_ranks_are_all_simulated(self):
        page, plan = self.plan("--tokens", "20M", "--ranks", 20000, "--mask", "window:100,0", "--partition", "contiguous", "--strategy", "ring")
        self.assertNotIn("steps simulated", page)
        self.assertEqual(plan["pairs"], sum(min(i, 100) + 1 for i in range(200)) + (20_000_000 - 200) * 101)

    def test_reasons_have_lines_of_their_own(self):
        page, plan = self.plan("--tokens", "8Ki", "--ranks", 8)
        self.assertIn("8 ranks: ", page.splitlines()[1])
        self.assertTrue(page.splitlines()[2].startswith("  least time") or page.splitlines()[2].startswith("  within 2 %"), page)
        self.assertLessEqual(max(map(len, page.splitlines()[:5])), 120)
        page, _ = self.plan("--tokens", 64, "--ranks", 1)
        self.assertIn("\n  1 rank: ", page)

    def test_rows_of_the_table_hold_traces_as_the_plan_does(self):
        for strategy in ["ring", "ulysses"]:
            _, plan = self.plan("--tokens", "8Ki", "--ranks", 4, "--strategy", strategy, "--partition", "contiguous", "--trace", "full")
            chosen, = [row for row in plan["strategies"] if row["chosen"]]
            self.assertEqual(chosen["memory_bytes_per_rank"], plan["memory_bytes_per_rank"])

    def test_numbers_beyond_any_machine_are_refused(self):
        profile = self.scratch / "absurd.ini"
        profile.write_text("name = x\nlink.network = 1e-6, 1e9\nmemory = 1e-300\nkernel.f32.forward.full = 64:1e9\n")
        self.refuses(2, "line 3", "1e-15", command=["plan", "--hardware", profile])

    def test_thousands_of_ranks_are_planned_in_seconds(self):
        _, plan = self.plan("--tokens", "10M", "--ranks", 2048, "--partition", "zigzag")
        self.assertEqual(plan["pairs"], 10**7 * (10**7 + 1) // 2)
        self.refuses(2, "--ranks", "65536", command=["plan", "--ranks", 65537])


if __name__ == "__main__":
    unittest.main()
