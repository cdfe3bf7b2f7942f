import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.errors import InvalidRequest
from turnwright.sessions.attributes import SESSION_BYTES, check_session, growth_allowed, size


def test_the_size_is_bytes_of_utf8_json() -> None:
    assert size({"k": "é"}) == len('{"k":"é"}'.encode())


def test_attributes_are_kept_up_to_the_bound_and_refused_beyond() -> None:
    longest = {"k": "x" * (SESSION_BYTES - len('{"k":""}'))}

    check_session(longest)

    with pytest.raises(InvalidRequest) as refused:
        check_session({"k": longest["k"] + "x"})
    assert str(refused.value) == (
        "sessionState.sessionAttributes: make 65537 bytes of JSON with those that the session has; "
        "it keeps at most 65536"
    )


def test_a_full_session_allows_no_growth() -> None:
    assert growth_allowed({"k": "x" * SESSION_BYTES}, 1) == 0


@given(
    st.dictionaries(st.sampled_from("abc"), st.text(max_size=9)),
    st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.text(max_size=20_000)), min_size=1, max_size=6),
)
def test_answers_that_each_grow_as_much_as_is_allowed_fit_together(
    session: dict[str, str], answers: list[dict[str, str]]
) -> None:
    allowed = growth_allowed(session, len(answers))
    merged = dict(session)

    for answer in answers:
        if size({**session, **answer}) - size(session) <= allowed:
            merged |= answer

    assert size(merged) <= SESSION_BYTES
