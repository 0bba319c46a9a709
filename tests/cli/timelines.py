"""What every --timeline holds, measured or predicted."""
import collections

from program import ProgramTest

MICROSECOND = 1.0


def slices(events, *names):
    return [e for e in events if e["ph"] == "X" and (not names or e["name"] in names)]


def bytes_sent(events):
    """By (from, to); what a rank sends itself is left out."""
    sums = collections.Counter()
    for event in slices(events, "send"):
        if event["args"]["to"] != event["pid"]:
            sums[event["pid"], event["args"]["to"]] += event["args"]["bytes"]
    return dict(sums)


def bytes_received(events):
    sums = collections.Counter()
    for event in slices(events, "receive"):
        if event["args"]["from"] != event["pid"]:
            sums[event["args"]["from"], event["pid"]] += event["args"]["bytes"]
    return dict(sums)


class TimelineTest(ProgramTest):
    def spans_of_nested_tracks(self, events):
        """From the first begin to the last end of each track, after looking at how its slices lie."""
        tracks, spans = collections.defaultdict(list), []
        for event in slices(events):
            self.assertGreaterEqual(event["dur"], 0)
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
        for (rank, track), its in tracks.items():
            open_slices, outer = [], 0.0
            for begin, end, name in sorted(its, key=lambda s: (s[0], -s[1])):
                while open_slices and open_slices[-1] <= begin + 1e-3:
                    open_slices.pop()
                if open_slices:
                    self.assertLessEqual(end, open_slices[-1] + 1e-3, f"{name} of rank {rank}, track {track}")
                    self.assertEqual(track, 0, "messages do not share a track while they overlap")
                else:
                    outer += end - begin
                open_slices.append(end)
            spans.append(max(s[1] for s in its) - min(s[0] for s in its))
            self.assertLessEqual(outer, spans[-1] + MICROSECOND)
        return spans

    def check_arrows(self, events, backwards):
        """Each has both ends, and no message between ranks of the file lacks one; it may point backwards in time by so much."""
        ends, ranks = collections.defaultdict(list), {e["pid"] for e in events}
        for event in events:
            if event["ph"] in "sf":
                ends[event["id"]].append(event)
        self.assertGreater(len(ends), 0)
        inside = [e for e in slices(events, "send", "receive") if e["args"].get("to", e["args"].get("from")) in ranks]
        self.assertEqual(len(inside), 2 * len(ends), "a message is one send, one receive and one arrow")
        for name, both in ends.items():
            self.assertEqual(sorted(e["ph"] for e in both), ["f", "s"], name)
            start, finish = sorted(both, key=lambda e: e["ph"], reverse=True)
            self.assertEqual(name.split("#")[0], f"{start['pid']}>{finish['pid']}")
            self.assertEqual(finish["bp"], "e")
            self.assertGreaterEqual(finish["ts"] - start["ts"], -backwards)
