"""Pages that annulus report writes, read again; for the tests of report."""
import html.parser
import json
import os
import re
import shutil
import subprocess
import unittest

import numpy
from program import PROGRAM, ProgramTest

VOID = {"meta", "img", "br", "input"}


class Reader(html.parser.HTMLParser):
    """Elements must end where they should; keeps texts, addresses and what scripts hold."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.text, self.data, self.images = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.addresses += [names[name] for name in ("src", "href") if name in names]
        self.images += tag == "img"
        if tag not in VOID:
            self.open.append((tag, names.get("class")))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()[0] == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == ("script", "data"):
            self.data.append(json.loads(data))
        elif self.open and self.open[-1][0] not in ("script", "style"):
            self.text.append(data)


@unittest.skipIf(shutil.which("gnuplot") is None, "gnuplot is not here")
class PageTest(ProgramTest):
    """Claims about pages."""

    def page(self, *arguments, ranks=0):
        """The page as it is read, and as it is written."""
        output = self.scratch / "page.html"
        self.succeeds("report", *arguments, "--output", output, "--overwrite", ranks=ranks)
        text = output.read_text()
        read = Reader(text)
        for address in read.addresses:
            self.assertTrue(address.startswith("data:image/svg+xml,"), address[:80])
        self.assertNotIn("@import", text)
        self.assertNotIn("url(", text)
        return read, text

    def points(self, figure, name):
        """Of the curve of this name in the script that gnuplot was given: x, y as numbers."""
        said = (self.scratch / "script").read_text()
        part = said[said.index(f"set output '{figure}.svg'") + 12:]
        part = part[:part.find("set output")]
        block = re.search(rf"(\$p0c\d+) using [^,]* title '{name}'", part).group(1)
        lines = part[part.index(f"{block} << END_OF_DATA") :].split("END_OF_DATA")[1].split("\n")
        return numpy.array([line.split()[:2] for line in lines if line], float)

    def drawn(self, *arguments):
        """The page, drawn by a gnuplot that keeps its script in the test's folder."""
        wrapped = self.scratch / "programs"
        wrapped.mkdir(exist_ok=True)
        script = wrapped / "gnuplot"
        script.write_text(f'#!/bin/sh\n[ -f script ] && cp script "{self.scratch}/script"\nexec {shutil.which("gnuplot")} "$@"\n')
        script.chmod(0o755)
        done = subprocess.run([PROGRAM, "report", *map(str, arguments), "--output", self.scratch / "drawn.html", "--overwrite"], check=False,
                              capture_output=True, text=True, env={**os.environ, "PATH": f"{wrapped}:{os.environ['PATH']}", "GNUTERM": "none"})
        self.assertEqual(done.returncode, 0, done.stderr)
        return Reader((self.scratch / "drawn.html").read_text())

    def refused(self, words, *arguments, code=2, output="refused.html", environment=None):
        """The command ends with this code and one sentence, and leaves nothing."""
        path = self.scratch / output
        done = subprocess.run([PROGRAM, "report", *map(str, arguments), "--output", str(path)], capture_output=True, text=True, check=False,
                              env=environment)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(words, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertFalse(path.exists())
