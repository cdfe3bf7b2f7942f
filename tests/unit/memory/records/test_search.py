"""Search in an actor's records, and the relevance set that the ways of it are compared on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.bedrock.hashed_embeddings import vector
from tests.unit.relevance import (
    FACTS,
    FACTS_OF_LANGUAGES,
    KINDS,
    LANGUAGES,
    QUERIES,
    QUERIES_OF_LANGUAGES,
    recall,
    stems,
)
from turnwright.memory.records.records import Provenance, Record
from turnwright.memory.records.search import Compared, Terms, Texts, cosine, reach, within
from turnwright.memory.records.terms import trigrams, words
from turnwright.models.embeddings import Embedding

TEXTS = list(FACTS.values())


def rank(
    query: str, records: Sequence[Record], *embedding: Embedding | None, **options: Any
) -> list[tuple[Record, float]]:
    return Compared(records).rank(query, *embedding, **options)


def bm25_scores(query: str, texts: Sequence[str], terms: Terms) -> list[float]:
    return Texts(texts, terms).scores(query)


def lexical_scores(query: str, texts: Sequence[str]) -> list[float]:
    return bm25_scores(query, texts, trigrams)


def record(text: str, record_id: str = "mem-1", **fields: Any) -> Record:
    return Record("store", "user-1", "/facts/user-1/", record_id, text, Provenance("TOOL"), **fields)


def ranked_ids(query: str, *records: Record, **options: Any) -> list[str]:
    return [found.record_id for found, _ in rank(query, records, **options)]


def by_words(query: str) -> list[float]:
    return bm25_scores(query, TEXTS, words)


def by_stems(query: str) -> list[float]:
    return bm25_scores(query, TEXTS, stems)


def by_trigrams(query: str) -> list[float]:
    return lexical_scores(query, TEXTS)


def by_stems_and_trigrams(query: str) -> list[float]:
    return [first + second for first, second in zip(by_stems(query), by_trigrams(query), strict=True)]


def by_hashed_embeddings(query: str) -> list[float]:
    asked = tuple(vector(query, 256))
    return [cosine(asked, tuple(vector(text, 256))) for text in TEXTS]


def test_the_relevance_set_names_its_facts_and_has_some_queries_of_each_kind() -> None:
    assert {name for query in QUERIES for name in query.answers} <= FACTS.keys()
    assert all(sum(query.kind == kind for query in QUERIES) >= 6 for kind in KINDS)
    assert {name for query in QUERIES_OF_LANGUAGES for name in query.answers} <= FACTS_OF_LANGUAGES.keys()
    assert all(sum(query.kind == language for query in QUERIES_OF_LANGUAGES) >= 4 for language in LANGUAGES)
    assert len(LANGUAGES) >= 8


def test_the_chosen_search_finds_all_but_paraphrases_among_the_first_three() -> None:
    found = {kind: recall(by_trigrams, 3, kind) for kind in KINDS}

    assert found.pop("paraphrases") < 0.2, "letters alone cannot find them; docs/memory.md says so"
    assert found == dict.fromkeys(found, 1.0)
    assert (round(recall(by_trigrams, 1), 2), round(recall(by_trigrams, 3), 2)) == (0.79, 0.82)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chosen_search_finds_what_was_said_in_each_language_first(language: str) -> None:
    texts = list(FACTS_OF_LANGUAGES.values())

    def chosen(query: str) -> list[float]:
        return lexical_scores(query, texts)

    assert recall(chosen, 1, language, FACTS_OF_LANGUAGES, QUERIES_OF_LANGUAGES) == 1.0


def test_trigrams_find_more_than_words_or_stems_and_no_less_than_both_together() -> None:
    assert (round(recall(by_words, 3), 2), round(recall(by_stems, 3), 2)) == (0.5, 0.74)
    assert recall(by_trigrams, 3) > recall(by_stems, 3) > recall(by_words, 3)
    assert all(recall(by_trigrams, k) >= recall(by_stems_and_trigrams, k) for k in (1, 3, 5))


def test_the_offline_embeddings_find_nearly_what_trigrams_find() -> None:
    assert recall(by_trigrams, 3) >= recall(by_hashed_embeddings, 3) > recall(by_stems, 3)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("favourite colour", "favouriteColour: blue"),
        ("RISK", "risk_level is moderate"),
        ("Cafe", "The CAFÉ at the corner"),
        ("京都", "来年、京都に行く"),
        ("Straße", "lives in a quiet strasse"),
        ("Zoe\u0308", "Her name is ZOË"),
        ("犬", "犬を飼っている"),
        ("茶", "他喜欢喝茶"),
        ("犬の名前", "庭に犬がいる"),
        ("ガス", "ｶﾞｽを使う"),
        ("개", "개를 키운다"),
        ("كتب", "كَتَبَ رسالة"),
        ("كَتَبَ", "كتب رسالة"),
        ("سلام", "ســـلام عليكم"),
        ("שלום", "שָׁלוֹם לכולם"),
        ("שָׁלוֹם", "שלום לכולם"),
        ("हिन्दी", "वह हिन्दी बोलता है"),
        ("งู", "เขาเลี้ยงงูสองตัว"),
        ("โรม", "บินไปโรมวันที่ 3"),
        ("ឆ្កែ", "គាត់មានឆ្កែមួយ"),
        ("می‌خواهم", "چای میخواهم"),
        ("Donau\u00addampfer", "fährt mit dem Donaudampfer"),
    ],
)
def test_a_query_finds_words_in_other_spellings(query: str, text: str) -> None:
    (_, found), (_, other) = rank(query, [record(text), record("Nothing of that kind", "mem-2")])
    assert found > other == 0, (found, other)


@pytest.mark.parametrize(
    ("query", "text", "other"),
    [
        ("C++", "Writes C++", "Writes C#"),
        ("blood type A+", "Has blood type A+", "Has blood type A"),
        ("दिन", "दिन में", "दान में"),
        ("ガス", "ガスを使う", "カスを使う"),
    ],
)
def test_a_sign_or_a_vowel_decides_between_two_records(query: str, text: str, other: str) -> None:
    assert ranked_ids(query, record(other, "other", updated_at=2), record(text, "found", updated_at=1))[0] == "found"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("वह हिन्दी बोलता है", ["वह", "हिन्दी", "बोलता", "है"]),
        ("ខ្ញុំស្រឡាញ់", ["ខ្ញុំស្រឡាញ់"]),
        ("كَتَبَ، שָׁלוֹם!", ["كتب", "שלום"]),
        ("ไป\u200bโรม ❤\ufe0f", ["ไป", "โรม"]),
        ("C++ or C#", ["c", "or", "c", "c++", "c#"]),
        ("Ёлка\u00a0x²—y", ["елка", "x2", "y"]),
    ],
)
def test_words_are_whole_in_every_script(text: str, cut: list[str]) -> None:
    assert words(text) == cut


def test_a_records_key_is_searched_too() -> None:
    assert ranked_ids("currency", record("USD", "mem-1"), record("EUR", "mem-2", key="currency"))[0] == "mem-2"


def test_of_equally_good_records_the_newest_comes_first() -> None:
    old, new = record("likes tea", "mem-1", updated_at=1), record("likes tea", "mem-2", updated_at=2)
    assert ranked_ids("tea", old, new) == ["mem-2", "mem-1"]
    assert ranked_ids("", old, new) == ["mem-2", "mem-1"]


def test_a_paraphrase_is_found_by_its_embedding() -> None:
    near = record("The user has a beagle.", "mem-1", embedding=(1.0, 0.0), embedding_model="m")
    far = record("The name of the bank.", "mem-2", embedding=(0.0, 1.0), embedding_model="m")

    assert ranked_ids("name of the pet", near, far) == ["mem-2", "mem-1"]
    assert ranked_ids("name of the pet", near, far, query_embedding=(0.9, 0.1)) == ["mem-1", "mem-2"]


def test_embeddings_of_another_model_or_length_are_not_compared() -> None:
    of_another = record("beagle", "mem-1", embedding=(1.0, 0.0), embedding_model="old")
    longer = record("beagle", "mem-2", embedding=(1.0, 0.0, 0.0), embedding_model="m")
    none = record("beagle", "mem-3")

    scores = rank("tea", [of_another, longer, none], (1.0, 0.0), embedding_model="m")
    assert [score for _, score in scores] == [0, 0, 0]
    ((_, same),) = rank("tea", [replace(of_another, embedding_model="m")], (1.0, 0.0), embedding_model="m")
    assert same > 0.5


def test_a_long_query_is_searched_by_its_beginning() -> None:
    assert rank("tea " + "x" * 1_000_000, [record("tea")])[0][1] > 0


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=6))
def test_scores_lie_between_0_and_1_whatever_the_texts(query: str, texts: list[str]) -> None:
    records = [record(text, f"mem-{n}", embedding=(float(n), -1.0), updated_at=n) for n, text in enumerate(texts)]
    for embedding in (None, (1.0, -1.0), (0.0, 0.0)):
        ranked = rank(query, records, embedding)
        assert sorted(found.record_id for found, _ in ranked) == sorted(each.record_id for each in records)
        scores = [score for _, score in ranked]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1.0000001 for score in scores)


@pytest.mark.parametrize("letter", ["a", "я", "ก", "語", "각", "😀"])
@pytest.mark.parametrize("sizes", [[10] * 50, [1, 3_000, 3_000], [16_000] * 20, [], [7]])
def test_no_more_is_compared_than_the_bound_and_short_records_are_compared_whole(letter: str, sizes: list[int]) -> None:
    records = [record(letter * size, f"mem-{number}") for number, size in enumerate(sizes)]
    total = sum(len(each.text.encode()) for each in records)

    compared = reach(records, 2_000)

    assert (compared is None) == (total <= 2_000)
    if compared is not None:
        read = [len(within(each.text, compared).encode()) for each in records]
        assert 2_000 - 5 * len(records) <= sum(read) <= 2_000
        assert all(bytes_ == min(size * len(letter.encode()), bytes_) for bytes_, size in zip(read, sizes, strict=True))
        assert max(read) - min(read) <= 3 or min(sizes) * len(letter.encode()) <= compared


def test_terms_of_any_text_are_few_for_each_of_its_bytes() -> None:
    for text in ("\ufdfa" * 5_000, "\ufdfa " * 4_000, "a+" * 8_000, "각" * 5_000, "a_" * 8_000, "語" * 5_000):
        assert len(trigrams(text)) <= 3 * len(text.encode())


def test_a_long_run_of_marks_ends_with_the_thirtieth() -> None:
    assert words("e" + "\u093f" * 8_000) == ["e" + "\u093f" * 30]
    assert words("cafe" + "\u0301\u0323" * 4_000 + " tea") == ["cafe", "tea"]


def test_an_embedding_is_read_as_it_was_written_and_as_earlier_releases_wrote_it() -> None:
    embedded = record("tea", embedding=(0.5, -0.25, 1.0), embedding_model="m")
    item = embedded.encode()

    assert Record.decode(item) == embedded
    assert Record.decode({**item, "embedding": "[0.5, -0.25, 1.0]"}) == embedded


def test_trigrams_tell_a_words_beginning_from_its_middle() -> None:
    assert trigrams("tea") == ["^te", "tea", "ea$"]
    assert trigrams("a 京都") == ["^a$", "京都", "京", "都"]


def test_what_lies_behind_the_reach_is_not_compared() -> None:
    records = [record("tea " + "x" * 100, "mem-1"), record("x" * 100 + " tea", "mem-2")]

    scores = {found.record_id: score for found, score in Compared(records, 50).rank("tea")}

    assert scores["mem-1"] > scores["mem-2"] == 0
