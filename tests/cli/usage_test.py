"""What the program says about itself, and how it refuses what it does not know."""
import subprocess
import unittest

from program import PROGRAM, ProgramTest

COMMANDS = ["run", "attend", "plan", "bench", "verify", "inspect", "info"]


class Usage(ProgramTest):
    def test_alone_it_lists_its_commands(self):
        page = self.succeeds().stdout
        self.assertEqual(page, self.succeeds("--help").stdout)
        for command in COMMANDS:
            self.assertRegex(page, rf"(?m)^  {command} ")

    def test_every_command_has_a_help_page(self):
        for command in COMMANDS:
            with self.subTest(command=command):
                page = self.succeeds(command, "--help").stdout
                self.assertTrue(page.startswith(f"usage: annulus {command}"), page)
                for part in ["Examples:", "--config FILE", "--print-config", "Exit codes:"]:
                    self.assertIn(part, page)
                self.assertGreaterEqual(page.split("Examples:")[1].split("\n\n")[0].count("annulus "), 3, "three examples")

    def test_the_version_is_one_line(self):
        self.assertRegex(self.succeeds("--version").stdout, r"^annulus \d+\.\d+\.\d+\n$")

    def test_unknown_words_are_refused_by_name(self):
        self.refuses(2, "'atend'", "attend", command=["atend"])
        for command in COMMANDS:
            with self.subTest(command=command):
                self.refuses(2, "--no-such-option", command=[command, "--no-such-option"])

    def test_run_says_why_it_takes_no_scale(self):
        self.refuses(2, "--softmax-scale", "models", "attend", command=["run", "book.txt", "--output", "o.h5", "--softmax-scale", 0.5])

    def test_what_cannot_be_printed_is_an_error(self):
        for arguments in [["info"], ["--help"], ["plan", "--tokens", "64"]]:
            with open("/dev/full", "w") as full:
                done = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertIn("the standard output cannot be written", done.stderr)

    def test_a_printed_configuration_says_the_same_when_it_is_read(self):
        config = self.scratch / "printed.ini"
        said = lambda page: [line.rsplit("# ", 1)[0] for line in page.splitlines()]  # less where it comes from
        for value in ['"quoted"', '"', 'a "b" # c', '""', ' "x" ', '# "', 'plain"']:
            page = self.succeeds("plan", "--json", value, "--print-config").stdout
            config.write_text(page)
            self.assertEqual(said(self.succeeds("plan", "--config", config, "--print-config").stdout), said(page))
        self.refuses(2, "--json", "line breaks", command=["plan", "--json", "a\nb", "--print-config"])

    def test_all_ranks_end_with_the_same_code(self):
        self.needs_mpirun()
        done = self.refuses(2, "--no-such-option", command=["info", "--no-such-option"], ranks=2)
        self.assertEqual(done.stderr.count("--no-such-option is not"), 1, done.stderr)

    def test_options_that_only_some_ranks_refuse_or_that_differ_end_all(self):
        self.needs_mpirun()
        here, other = self.scratch / "here.ini", self.scratch / "other.ini"
        here.write_text("mask = causal\n")
        other.write_text("mask = full\n")
        command = ["attend", "in.h5", "--output", "out.h5"]
        self.refuses(2, "rank 1: ", "cannot be opened", command=command,
                     each=[["--config", here], ["--config", self.scratch / "none.ini"], ["--config", here]])
        self.refuses(2, "rank 1: ", "mask = full", "mask = causal", command=command, each=[["--config", here], ["--config", other]])
        self.refuses(2, "rank 1: ", "--config", command=command, each=[["--config", here], []])
        self.refuses(2, "rank 0: ", "--no-such-option", command=["info"], each=[["--no-such-option"], []])


if __name__ == "__main__":
    unittest.main()
