"""Search in an actor's records: how well each answers a query, from 0 to 1. An actor's records are few, so each search
compares all that it read and needs no index. Where their texts are many and long, it compares how they begin (`reach`).

Lexically a record is compared by the n-grams of its words' letters (BM25 over `terms.py`), which find other forms of a
word, a misspelled name and a part of a compound in any language. With an embedding of the query the cosine to the
record's own is the larger part of the score. `tests/unit/relevance.py` is what this was chosen on, and `docs/memory.md`
has what the alternatives reached.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from operator import mul

from turnwright.memory.records.records import Record
from turnwright.memory.records.terms import trigrams
from turnwright.models.embeddings import Embedding

MEANING_SHARE = 0.8
"""The part of the score that embeddings make where there are some."""

MOST_QUERY_CHARACTERS = 2_000
"""As much of a query is looked at: an input text may have a megabyte."""

_SATURATION = 1.2
_LENGTH_WEIGHT = 0.5

Terms = Callable[[str], Sequence[str]]
"""How a text is cut into what is compared."""


class Compared:
    """Records as they are compared: cut into terms once, for as many queries as are asked of them.

    Of each record its key and text are compared up to `reach` bytes of UTF-8, None for the whole.
    """

    def __init__(self, records: Sequence[Record], reach: int | None = None) -> None:
        self._records = records
        self._texts = Texts([within(_searched_text(record), reach) for record in records], trigrams)

    def rank(
        self, query: str, query_embedding: Embedding | None = None, *, embedding_model: str | None = None
    ) -> list[tuple[Record, float]]:
        """The records with their scores, best first; of equally good ones the newest.

        A record is compared by meaning if it has an embedding of `embedding_model` (None: of any) with as many numbers
        as the query's; another only lexically, so that it loses nothing by not having one, but cannot reach a whole 1.
        """
        scores = self._texts.scores(query[:MOST_QUERY_CHARACTERS])
        if query_embedding is not None:
            scores = [
                _with_meaning(score, record, query_embedding, embedding_model)
                for score, record in zip(scores, self._records, strict=True)
            ]
        ranked = zip(self._records, scores, strict=True)
        return sorted(ranked, key=lambda pair: (-pair[1], -pair[0].updated_at, pair[0].record_id))


class Texts:
    """Texts, cut into terms, and how well each answers a query by BM25."""

    def __init__(self, texts: Sequence[str], terms: Terms) -> None:
        self._terms = terms
        self._counts = [Counter(terms(text)) for text in texts]
        self._lengths = [count.total() for count in self._counts]
        self._average = sum(self._lengths) / (len(texts) or 1) or 1

    def scores(self, query: str) -> list[float]:
        """Of each text the share of what a text would have that is full of every term of the query."""
        counts, wanted = self._counts, set(self._terms(query))
        if not wanted or not counts:
            return [0.0] * len(counts)
        weights = {term: _rarity(sum(term in count for count in counts), len(counts)) for term in wanted}
        best = sum(weights.values())
        return [
            _bm25(count, weights, length / self._average) / best
            for count, length in zip(counts, self._lengths, strict=True)
        ]


def reach(records: Sequence[Record], most_bytes: int) -> int | None:
    """How far each record is compared, in bytes of UTF-8, so that all together have at most `most_bytes`; None if each
    is compared to its end. Every record gets the same, and what a short one leaves goes to longer ones.
    """
    sizes = sorted(len(_searched_text(record).encode(errors="replace")) for record in records)
    left = most_bytes
    for place, size in enumerate(sizes):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return None


def cosine(first: Embedding, second: Embedding) -> float:
    """The cosine of two embeddings of one length, 0 where one of them is all zeros."""
    lengths = math.hypot(*first) * math.hypot(*second)
    return sum(map(mul, first, second)) / lengths if lengths else 0.0


def _with_meaning(lexical: float, record: Record, query: Embedding, model: str | None) -> float:
    embedding = record.embedding
    comparable = embedding is not None and len(embedding) == len(query) and model in (None, record.embedding_model)
    if embedding is None or not comparable:
        return lexical * (1 - MEANING_SHARE)
    return MEANING_SHARE * max(0.0, cosine(query, embedding)) + (1 - MEANING_SHARE) * lexical


def _searched_text(record: Record) -> str:
    return f"{record.key} {record.text}" if record.key else record.text


def within(text: str, reach: int | None) -> str:
    """The text up to so many bytes of UTF-8."""
    return text if reach is None else text.encode(errors="replace")[:reach].decode(errors="ignore")


def _rarity(texts_with_it: int, texts: int) -> float:
    return math.log(1 + (texts - texts_with_it + 0.5) / (texts_with_it + 0.5))


def _bm25(count: Counter[str], weights: dict[str, float], relative_length: float) -> float:
    damping = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * relative_length)
    return sum(weight * count[term] / (count[term] + damping) for term, weight in weights.items() if term in count)
