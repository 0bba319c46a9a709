"""What the tests of plan share."""
import json
import pathlib

from program import ProgramTest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STRATEGIES = ["ring", "double-ring", "ulysses", "hybrid", "all-gather", "pass-q", "tree"]


class PlanTest(ProgramTest):
    def plan(self, *arguments):
        twin = self.scratch / "plan.json"
        page = self.succeeds("plan", *arguments, "--json", twin, seconds=20).stdout
        return page, json.loads(twin.read_text())
