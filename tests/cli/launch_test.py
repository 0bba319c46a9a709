"""The scripts in launch/: help, bad input, paths with blanks. Several hosts and Slurm have tests of their own (label hosts)."""
import json
import pathlib
import shutil
import subprocess
import unittest

from program import PROGRAM, ProgramTest, environment

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Scripts(ProgramTest):
    def script(self, name, *arguments, code=0, **more):
        done = subprocess.run([ROOT / name, *map(str, arguments)], env={**environment(), "ANNULUS": PROGRAM, **more}, cwd=self.scratch,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, code, f"{done.args}\n{done.stdout}\n{done.stderr}")
        return done

    def test_every_script_tells_how_it_is_used(self):
        for name in ["launch/local", "launch/hosts", "launch/scaling", "benchmarks/compare_cpu"]:
            with self.subTest(script=name):
                self.assertIn(name.split("/")[1], self.script(name, "--help").stdout)

    def test_bad_input_is_one_line_and_code_2(self):
        for name, arguments, words in [("launch/local", [], "command"), ("launch/local", ["--ranks", "0", "info"], "--ranks"),
                                       ("launch/local", ["--ranks"], "value"), ("launch/local", ["--cores", "2"], "--cores"),
                                       ("launch/hosts", ["--hosts", "0", "true"], "--hosts"), ("launch/hosts", [], "command"),
                                       ("launch/hosts", ["--speed", "1"], "--speed"), ("launch/scaling", ["--ranks", "0", "--output", "x"], "--ranks"),
                                       ("launch/scaling", ["--kind", "none", "--output", "x"], "--kind"), ("launch/scaling", [], "--output"),
                                       ("launch/scaling", ["--output"], "value"), ("launch/scaling", ["--tokens", "64"], "--tokens")]:
            with self.subTest(script=name, arguments=arguments):
                self.assertIn(words, self.script(name, *arguments, code=2).stderr.splitlines()[-1])

    def test_local_binds_one_rank_per_group_of_cores(self):
        self.needs_mpirun()
        self.assertIn("ranks       1 here", self.script("launch/local", "--ranks", 1, "info").stdout)
        crowded = self.script("launch/local", "--ranks", 64, "--threads", 64, "info")
        self.assertIn("share cores", crowded.stderr)
        self.assertIn("ranks       64 here", crowded.stdout)

    def test_local_passes_exit_codes_and_paths_with_blanks(self):
        self.needs_mpirun()
        folder = self.scratch / "a room"
        folder.mkdir()
        program = folder / "my annulus"
        program.symlink_to(PROGRAM)
        self.script("launch/local", "--ranks", 2, "bench", "exchange", "--repeats", 1, "--json", folder / "the table.json", ANNULUS=str(program))
        self.assertEqual(json.loads((folder / "the table.json").read_text())["results"][0]["ranks"], 2)
        self.script("launch/local", "--ranks", 2, "attend", folder / "no such.h5", "--output", folder / "o.h5", code=5, ANNULUS=str(program))

    def test_scaling_draws_what_it_measured(self):
        if shutil.which("gnuplot") is None:
            self.skipTest("gnuplot is not here")
        figures = self.scratch / "my figures" / "here"
        options = ["--program", PROGRAM, "--ranks", 2, "--output", figures, "--hardware", ROOT / "configs/hardware/cpu-100gbe.ini"]
        small = ["--tokens", 64, "--threads", 1, "--channels", 16, "--repeats", 1]
        self.script("launch/scaling", *options, "--", *small)
        for name in ["speedup", "efficiency", "prediction"]:
            self.assertTrue((figures / f"{name}.png").read_bytes().startswith(b"\x89PNG"))
            self.assertIn("<svg", (figures / f"{name}.svg").read_text())
        self.assertIn("</html>", (figures.parent / "here.html").read_text())
        self.script("launch/scaling", *options, "--", "--tokens", "many", code=2)


if __name__ == "__main__":
    unittest.main()
