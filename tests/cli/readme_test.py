"""Every command in README.md and in the comments of configs/*.ini runs as it stands there."""
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from program import PROGRAM, ProgramTest, environment, patience

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)


def run(command, seconds):
    """From the top of the project, with the program under test first on the path."""
    env = environment()
    python = pathlib.Path(sys.executable).parent  # the Python that has what tests need
    env["PATH"] = os.pathsep.join([str(pathlib.Path(PROGRAM).parent), str(python), env["PATH"]])
    # README points at the release build; the program under test stands in for it.
    command = command.replace('export PATH="$PWD/build/release:$PATH"', ":")
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace", timeout=patience(seconds))


def remove_what_readme_makes():
    """A reader's first time through: a cache of another time would go on growing."""
    for path in {pathlib.Path(name) for _, text in BLOCKS for name in re.findall(r"/tmp/annulus-[\w.-]+", text)}:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        shutil.rmtree(f"{path}.rows", ignore_errors=True)


class Readme(ProgramTest):
    def test_its_blocks_run_one_after_another(self):
        self.needs_mpirun()
        remove_what_readme_makes()
        self.addCleanup(remove_what_readme_makes)
        try:
            import h5py  # noqa: F401
        except ImportError as reason:
            self.skipTest(f"h5py is not here: {reason}")
        ran = 0
        for language, text in BLOCKS:
            if text.strip() in ("launch/test", "launch/demo"):
                continue  # the first runs this test; the second has a test of its own
            with self.subTest(block=text):
                missing = [name for name in re.findall(r"^import (\w+)", text, re.M) if not importlib.util.find_spec(name)]
                if language == "python" and missing:
                    self.skipTest(f"{', '.join(missing)} is not here")
                command = f"{sys.executable} - <<'PYTHON'\n{text}\nPYTHON" if language == "python" else text
                done = run(command, 100)
                self.assertEqual(done.returncode, 0, f"{text}\n{done.stdout}\n{done.stderr}")
                ran += 1
        self.assertGreaterEqual(ran, 5)

    def test_it_opens_with_the_two_commands(self):
        commands = [text.strip() for language, text in BLOCKS if language == "sh"][:2]
        self.assertEqual(commands, ["launch/demo", "launch/test"])
        self.assertIn("launch/test", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))

    def test_the_demo_ends_with_a_summary_and_a_result(self):
        """Over two small texts; from nothing to everything is what launch/demo without arguments does."""
        if pathlib.Path(PROGRAM).parent != ROOT / "build" / "release":
            self.skipTest("launch/demo builds and runs build/release")
        self.needs_mpirun()
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "my texts.h5"
            done = run(f"launch/demo README.md CHANGELOG.md -- --output '{output}' --passage-tokens 3", 200)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            for part in ["annulus run: model induction", "passages that occur twice", str(output)]:
                self.assertIn(part, done.stdout)
            self.assertTrue(output.exists())


class Configs(ProgramTest):
    def test_every_example_file_is_a_configuration_of_its_command(self):
        files = sorted((ROOT / "configs").glob("*.ini"))
        self.assertGreaterEqual(len(files), 3)
        for file in files:
            with self.subTest(file=file.name):
                command = re.search(r"annulus (\w+)", file.read_text(encoding="utf-8")).group(1)
                stand_in = {"run": ["README.md"], "attend": ["README.md"], "plan": [], "bench": ["strategies"], "report": ["README.md"]}[command]
                done = self.succeeds(command, *stand_in, "--config", file, "--print-config", cwd=ROOT)
                self.assertIn(file.name, done.stdout)

    def test_the_cluster_plan_runs(self):
        done = self.succeeds("plan", "--config", ROOT / "configs" / "plan-cluster.ini")
        self.assertIn("hybrid", done.stdout)


if __name__ == "__main__":
    unittest.main()
