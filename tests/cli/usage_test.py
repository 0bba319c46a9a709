"""What the program says about itself, and how it refuses what it does not know."""
import unittest

from program import ProgramTest

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

    def test_all_ranks_end_with_the_same_code(self):
        self.needs_mpirun()
        done = self.refuses(2, "--no-such-option", command=["info", "--no-such-option"], ranks=2)
        self.assertEqual(done.stderr.count("--no-such-option is not"), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()
