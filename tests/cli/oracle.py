"""Attention in float64, straight from the definitions and independent of the program: the judge of the tests beside it.

Masks are tables of booleans [query, key]; p is [head, query, key]; everything else is token-first like the files."""
import numpy as np


def numbers(text):
    """{0, 2, 5, 6, 7} of "0,2,5-7"."""
    found = set()
    for item in text.split(","):
        first, _, last = item.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def visible(mask, queries, keys, documents=()):
    """The table of a mask: query i stands at position i + keys - queries, the distance is key - position."""
    terms = dict(term.partition(":")[::2] for term in mask.split("+"))
    position = np.arange(queries)[:, None] + keys - queries
    key = np.arange(keys)[None, :]
    seen = np.ones((queries, keys), bool)
    if "window" in terms:
        bounds = [int(bound) for bound in terms["window"].split(",")]
        seen = (key - position >= -bounds[0]) & (key - position <= bounds[-1])
        seen |= key < int(terms.get("sink", 0))
        everywhere = np.isin(np.arange(keys), list(numbers(terms["global"]))) if "global" in terms else np.zeros(keys, bool)
        if "global" in terms:
            seen |= everywhere[:, None] | everywhere[None, :]
    if "causal" in terms:
        seen &= key <= position
    if "documents" in terms:
        document = np.searchsorted(np.asarray(documents), np.arange(keys), side="right")
        seen &= document[:, None] == document[None, :]
    prefix = int(terms.get("prefix", 0))
    seen[:prefix, :prefix] = True
    return seen


class Attention:
    """q [queries, heads, channels], k and v [keys, kv_heads, ...] in any type; a head of q uses kv head h * kv / heads."""

    def __init__(self, q, k, v, seen, scale=None):
        self.q, self.k, self.v = (np.asarray(x, np.float64) for x in (q, k, v))
        self.seen = seen
        self.scale = 1 / np.sqrt(self.q.shape[2]) if scale is None else scale
        self.group = self.q.shape[1] // self.k.shape[1]
        k_of_head, v_of_head = np.repeat(self.k, self.group, 1), np.repeat(self.v, self.group, 1)
        self.scores = np.where(seen, self.scale * np.einsum("ihc,jhc->hij", self.q, k_of_head), -np.inf)
        most = self.scores.max(2, initial=-1e300, keepdims=True)  # finite, also for rows that see nothing
        sums = np.exp(self.scores - most).sum(2, keepdims=True)
        with np.errstate(divide="ignore"):
            lse = np.where(sums > 0, most + np.log(sums), -np.inf)
        self.p = np.where(sums > 0, np.exp(self.scores - np.where(sums > 0, lse, 0)), 0.0)
        self.lse = lse[:, :, 0].T
        self.out = np.einsum("hij,jhc->ihc", self.p, v_of_head)

    def largest_score(self):
        finite = self.scores[np.isfinite(self.scores)]
        return np.abs(finite).max() if finite.size else 0.0

    def gradients(self, dout):
        """dq, dk, dv of sum(dout * out)."""
        dout = np.asarray(dout, np.float64)
        k_of_head, v_of_head = np.repeat(self.k, self.group, 1), np.repeat(self.v, self.group, 1)
        dp = np.einsum("ihc,jhc->hij", dout, v_of_head)
        ds = self.scale * self.p * (dp - (self.p * dp).sum(2, keepdims=True))
        over_group = lambda x: x.reshape(x.shape[0], self.k.shape[1], self.group, x.shape[2]).sum(2)
        dk, dv = np.einsum("hij,ihc->jhc", ds, self.q), np.einsum("hij,ihc->jhc", self.p, dout)
        return np.einsum("hij,jhc->ihc", ds, k_of_head), over_group(dk), over_group(dv)

    def traces(self, sink_tokens, map_blocks):
        """By the names of the contract, without the top keys."""
        queries, keys = self.seen.shape
        position = np.arange(queries)[:, None] + keys - queries
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(self.p > 0, self.p * np.log(self.p), 0).sum(2)
        tokens = max(1, -(-max(queries, keys) // map_blocks))
        rows, columns = max(1, -(-queries // tokens)), max(1, -(-keys // tokens))
        block_mass = np.zeros((self.p.shape[0], rows, columns))
        sees = self.seen.any(1)
        for a in range(rows):
            mine = slice(a * tokens, (a + 1) * tokens)
            for b in range(columns):
                block_mass[:, a, b] = self.p[:, mine, b * tokens:(b + 1) * tokens].sum((1, 2)) / max(1, sees[mine].sum())
        return {
            "lse": self.lse,
            "entropy": entropy.T,
            "max_probability": self.p.max(2, initial=0).T,
            "sink_mass": self.p[:, :, :sink_tokens].sum(2).T,
            "mean_distance": (self.p * np.abs(np.arange(keys)[None, :] - position)).sum(2).T,
            "received_mass": self.p.sum(1).T,
            "block_mass": block_mass,
        }

    def top_keys(self, k):
        """Indices [token, head, k] by falling score, ties by smaller key, -1 where fewer are seen; probabilities, 0 there."""
        heads, queries, keys = self.p.shape
        index, probability = np.full((queries, heads, k), -1), np.zeros((queries, heads, k))
        order = np.argsort(-self.scores, axis=2, kind="stable")[:, :, :k]
        for h in range(heads):
            for i in range(queries):
                chosen = [j for j in order[h, i] if self.seen[i, j]]
                index[i, h, :len(chosen)] = chosen
                probability[i, h, :len(chosen)] = self.p[h, i, chosen]
        return index, probability
