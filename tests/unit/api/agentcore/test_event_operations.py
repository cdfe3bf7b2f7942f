"""CreateEvent, GetEvent, ListEvents, DeleteEvent, ListSessions and ListActors on the table."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.memory_stores import FACTS, SUMMARIES, Store, new_store
from tests.unit.stored_turns import SESSION, A, B, Interrupted, StoredTurns, die, step, text, tool_result, tool_use
from turnwright.api.agentcore import event_operations
from turnwright.api.agentcore.event_operations import Events
from turnwright.api.agentcore.operations import operations
from turnwright.api.agentcore.refusals import Invalid, NotThere, Throttled
from turnwright.errors import CommitConflict
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.segments import Segments, SegmentStatus
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.sessions import Sessions
from turnwright.storage import keys
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Update


@pytest.fixture
def store(stored: StoredTurns) -> Store:
    return new_store(stored, FACTS)


def session_item(store: Store, actor: str = "a", session: str = "s") -> dict[str, Any]:
    item = store.stored.table.get(keys.session(SessionId(store.id, actor, session)))
    assert item is not None
    return item


def test_events_come_newest_first_as_they_were_given(store: Store) -> None:
    first = store.create_event("one", metadata={"k": {"stringValue": "v"}})
    store.stored.clock.ms += 1_000
    second = store.create_event("two", payload=[{"blob": {"x": [1.5, None, "ß"]}}, {"json": {"content": [1]}}])

    assert store.list_events() == {"events": [second, first]}
    assert second["payload"] == [{"blob": {"x": [1.5, None, "ß"]}}, {"json": {"content": [1]}}]
    assert (first["memoryId"], first["actorId"], first["sessionId"]) == (store.id, "a", "s")
    assert first["metadata"] == {"k": {"stringValue": "v"}}
    assert store.events.get({**of(store), "eventId": first["eventId"]}) == {"event": first}
    assert all(event["payload"] == [] for event in store.list_events(includePayloads=False)["events"])


def of(store: Store, actor: str = "a", session: str = "s") -> dict[str, Any]:
    return {"memoryId": store.id, "actorId": actor, "sessionId": session}


def test_events_of_one_moment_keep_the_order_in_which_they_came(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at = store.stored.clock.ms / 1000
    for number in range(30):
        monkeypatch.setattr(
            "turnwright.api.agentcore.event_operations._now_us", lambda now=number: int(at * 10**6) + now
        )
        store.create_event(str(number), eventTimestamp=at)
    assert store.texts(maxResults=100) == [str(number) for number in reversed(range(30))]


def test_pages_hold_every_event_once_also_while_events_are_deleted(store: Store) -> None:
    for number in range(7):
        store.stored.clock.ms += 1
        store.create_event(str(number))
    seen: list[str] = []
    token: dict[str, Any] = {}
    while True:
        answer = store.list_events(maxResults=3, **token)
        for event in answer["events"]:
            seen.append(event["payload"][0]["conversational"]["content"]["text"])
            store.events.delete({**of(store), "eventId": event["eventId"]})
        if "nextToken" not in answer:
            break
        token = {"nextToken": answer["nextToken"]}
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]
    assert store.list_events() == {"events": []}


def test_a_token_is_good_for_its_own_request_alone(store: Store) -> None:
    for _ in range(3):
        store.stored.clock.ms += 1
        store.create_event()
    token = store.list_events(maxResults=1)["nextToken"]

    assert len(store.list_events(maxResults=2, nextToken=token)["events"]) == 2
    others: list[dict[str, Any]] = [
        {"session": "other"},
        {"actor": "b"},
        {"includePayloads": False},
        {"filter": {"branch": {"name": "main"}}},
    ]
    for other in others:
        with pytest.raises(Invalid, match="nextToken: is not one"):
            store.list_events(nextToken=token, **other)
    for broken in (token[:-4], token[4:], "é", "!", "", "bnVsbA==", "W10=", token.upper()):
        with pytest.raises(Invalid, match="nextToken: is not one"):
            store.list_events(nextToken=broken)


def test_a_page_ends_before_it_is_too_long_for_an_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.events, "_page_bytes", 3_000)
    for number in range(3):
        store.stored.clock.ms += 1
        store.create_event(str(number) * 1_000)
    answer = store.list_events()
    assert len(answer["events"]) == 2
    rest = store.list_events(nextToken=answer["nextToken"])
    assert [len(event["payload"]) for event in rest["events"]] == [1]
    assert "nextToken" not in rest


def test_an_event_over_the_limit_is_refused_by_its_name_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_operations, "EVENT_BYTES", 1_000)
    before = store.stored.items()
    with pytest.raises(Invalid, match=r"payload: makes an event of 1\d\d\d bytes as it travels; at most 1000 are"):
        store.create_event("x" * 1_000)
    assert store.stored.items() == before


def test_an_event_counts_as_lambda_takes_it(stored: StoredTurns) -> None:
    """As a text in JSON, which doubles quotation marks, or in base64 where all of an API's bodies are binary."""
    fields = {"eventTimestamp": 1, "memoryId": new_store(stored).id, "actorId": "a"}
    streamed = Events(stored.table, stored.documents)
    buffered = Events(stored.table, stored.documents, buffered=True)
    quotes, letters = [{"blob": '"' * 1_400_000}], [{"blob": "x" * 4_200_000}]
    for taken in (streamed, buffered):
        with pytest.raises(Invalid, match=r"makes an event of 5600\d\d\d bytes"):
            taken.create({**fields, "payload": quotes})
    with pytest.raises(Invalid, match=r"makes an event of 5600\d\d\d bytes"):
        buffered.create({**fields, "payload": letters})
    assert streamed.create({**fields, "payload": letters})["event"]["payload"] == letters


def test_a_long_payload_goes_to_the_bucket_and_comes_back_and_goes_with_its_event(store: Store) -> None:
    payload = [{"blob": "x" * 90_000}]
    one = store.create_event(payload=payload)
    store.stored.clock.ms += 1
    two = store.create_event(payload=payload)
    store.events.delete({**of(store), "eventId": one["eventId"]})

    assert store.events.get({**of(store), "eventId": two["eventId"]})["event"]["payload"] == payload
    listed = store.stored.s3.client.list_objects_v2(Bucket=store.stored.bucket)["Contents"]
    assert len(listed) == 1
    assert listed[0]["Key"].startswith(f"sessions/{store.id}/a/s/")


def test_a_payload_that_lives_for_years_is_kept_where_the_bucket_keeps_it(stored: StoredTurns) -> None:
    store = new_store(stored, days=3_650)
    store.create_event(payload=[{"blob": "x" * 90_000}])
    (listed,) = stored.s3.client.list_objects_v2(Bucket=stored.bucket)["Contents"]
    assert listed["Key"].startswith(f"lasting/sessions/{store.id}/a/s/")


def test_a_repeat_with_its_client_token_is_the_same_event_whatever_else_it_says(store: Store) -> None:
    first = store.create_event("one", clientToken="t")
    store.stored.clock.ms += 5_000
    assert store.create_event("two", clientToken="t") == first
    assert store.list_events()["events"] == [first]
    assert store.create_event("two", clientToken="u") != first


def test_two_at_once_with_one_token_make_one_event(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: store.create_event(str(number), clientToken="t"), range(4)))
    assert [event["eventId"] for event in made] == [made[0]["eventId"]] * 4
    assert store.list_events()["events"] == [made[0]]


def test_a_repeat_without_a_session_is_in_the_session_of_the_first(store: Store) -> None:
    made = [store.create_event(clientToken="t", sessionId=None) for _ in range(2)]
    other = store.create_event(sessionId=None)
    assert made[0] == made[1]
    assert other["sessionId"] not in ("", made[0]["sessionId"])


def test_a_token_may_be_used_again_for_an_event_that_was_deleted(store: Store) -> None:
    first = store.create_event(clientToken="t")
    store.events.delete({**of(store), "eventId": first["eventId"]})
    store.stored.clock.ms += 1
    again = store.create_event(clientToken="t")
    assert store.list_events()["events"] == [again]


def test_many_at_once_in_one_session_are_all_there(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: store.create_event(str(number)), range(24)))
    assert {event["eventId"] for event in made} == {
        event["eventId"] for event in store.list_events(maxResults=100)["events"]
    }
    assert session_item(store)["lastEventId"] == max(event["eventId"] for event in made)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(3))
def test_a_create_event_that_dies_anywhere_can_be_repeated(store: Store, number: int, moment: str) -> None:
    from tests.unit.stored_turns import Interrupted, die

    store.stored.dynamodb.forget()
    getattr(store.stored.dynamodb, moment)[number] = die
    try:
        store.create_event("one", clientToken="t")
    except Interrupted:
        pass
    else:
        pytest.skip("it makes fewer requests")
    store.stored.clock.ms += 1_000
    event = store.create_event("one", clientToken="t")
    assert store.list_events()["events"] == [event]


def test_an_older_event_lies_where_it_happened_and_the_last_one_stays_the_last(store: Store) -> None:
    late = store.create_event("late")
    store.create_event("early", eventTimestamp=store.stored.clock.ms / 1000 - 60)
    assert store.texts() == ["late", "early"]
    assert session_item(store)["lastEventId"] == late["eventId"]


def test_an_event_of_an_ended_session_opens_it_again_behind_what_is_consolidated(store: Store) -> None:
    first = store.create_event("one")
    ended = SessionEnds(store.stored.table).end(SessionId(store.id, "a", "s"))
    assert ended is not None
    assert ended.to_event == first["eventId"]

    late = store.create_event("late", eventTimestamp=store.stored.clock.ms / 1000 - 60)
    item = session_item(store)
    assert item["status"] == "OPEN"
    assert item["historyFloor"] <= late["eventId"]
    assert late["eventId"] > first["eventId"]
    assert late["eventTimestamp"] == store.stored.clock.ms / 1000 - 60
    again = SessionEnds(store.stored.table).end(SessionId(store.id, "a", "s"))
    assert again is not None
    assert (again.from_event, again.to_event) == (item["historyFloor"], late["eventId"])


def test_an_event_makes_the_session_due_if_the_store_remembers_anything(stored: StoredTurns) -> None:
    remembering, plain = new_store(stored, FACTS, name="One"), new_store(stored, name="Two")
    sums = new_store(stored, SUMMARIES, name="Three")
    for store in (remembering, plain, sums):
        store.create_event()
    due = keys.due(SessionId(remembering.id, "a", "s"), stored.clock.ms + 30_000)
    assert session_item(remembering).items() >= due.items()
    assert "duePK" not in session_item(plain)
    assert "duePK" in session_item(sums)


def test_an_event_in_a_session_that_was_idle_for_too_long_belongs_to_its_next_part(store: Store) -> None:
    clock = store.stored.clock
    first = store.create_event("Monday")
    clock.ms += 30_000  # the session is idle, and no sweep has come by
    second = store.create_event("Thursday", clientToken="t")
    place = SessionId(store.id, "a", "s")
    segment = Segments(store.stored.table).read(place, first["eventId"])
    assert segment is not None
    assert (segment.from_event, segment.to_event, segment.status) == ("", first["eventId"], SegmentStatus.PENDING)
    item = session_item(store)
    assert (item["status"], item["lastEventId"]) == ("OPEN", second["eventId"])
    assert first["eventId"] < item["historyFloor"] <= second["eventId"]
    assert item.items() >= keys.due(place, clock.ms + 30_000).items()
    clock.ms += 30_000
    assert store.create_event("again", clientToken="t")["eventId"] == second["eventId"]
    assert session_item(store) == item, "a repeat ends nothing"


def test_an_event_in_an_idle_session_that_a_turn_holds_does_not_end_it(store: Store) -> None:
    store.create_event("Monday")
    store.stored.clock.ms += 30_000
    Sessions(store.stored.table).claim(SessionId(store.id, "a", "s"), A)
    store.create_event("Thursday")
    assert "historyFloor" not in session_item(store)


@pytest.mark.parametrize("number", range(6))
def test_an_event_in_an_idle_session_that_dies_anywhere_is_made_by_its_repeat(store: Store, number: int) -> None:
    first = store.create_event("Monday")
    store.stored.clock.ms += 30_000
    store.stored.dynamodb.forget()
    store.stored.dynamodb.after[number] = die
    with suppress(Interrupted):
        store.create_event("Thursday", clientToken="t")
    made = store.create_event("Thursday", clientToken="t")
    assert store.texts() == ["Thursday", "Monday"]
    segments = [sk for pk, sk in store.stored.items() if sk.startswith("SEGMENT#")]
    assert segments == [f"SEGMENT#{first['eventId']}"]
    assert session_item(store)["lastEventId"] == made["eventId"]


def test_an_event_that_skips_extraction_does_not_make_its_session_due(store: Store) -> None:
    store.create_event(extractionMode="SKIP")
    assert "duePK" not in session_item(store)
    store.create_event(payload=[{"blob": 1}], session="t")
    assert "duePK" not in session_item(store, session="t")


def test_what_a_turn_commits_is_listed_and_what_is_created_is_read_by_the_next_turn(stored: StoredTurns) -> None:
    store = new_store(stored)
    stored.run(A, step(1, tool_use(name="balance")), step(2, text("5 USD"), tool_result()))
    own = {"memoryId": SESSION.store, "actorId": SESSION.actor, "sessionId": SESSION.session}

    (event,) = store.events.page(own)["events"]
    assert [entry["conversational"]["role"] for entry in event["payload"]] == ["USER", "TOOL", "TOOL", "ASSISTANT"]
    assert event["payload"][-1]["conversational"]["content"]["text"] == "5 USD"
    assert json.loads(event["payload"][1]["conversational"]["content"]["text"])["toolUse"]["name"] == "balance"

    stored.clock.ms += 1
    said = [{"conversational": {"role": "USER", "content": {"text": "by the way"}}}]
    store.events.create({**own, "eventTimestamp": stored.clock.ms / 1000, "payload": said})
    assert any("by the way" in seen for seen in stored.seen(stored.begin(B)))


def test_an_event_that_comes_while_a_turn_runs_does_not_disturb_it_and_stays_the_last(stored: StoredTurns) -> None:
    store = new_store(stored)
    turn = stored.begin(A)
    stored.journal(turn, step(1, text("Hello")))
    stored.clock.ms += 60_000
    own = {"memoryId": SESSION.store, "actorId": SESSION.actor, "sessionId": SESSION.session}
    said = [{"conversational": {"role": "USER", "content": {"text": "meanwhile"}}}]
    event = store.events.create({**own, "eventTimestamp": stored.clock.ms / 1000, "payload": said})["event"]
    stored.commit(turn)

    item = stored.table.get(keys.session(SESSION))
    assert item is not None
    assert (item["lastEventId"], item["version"], "leaseOwner" in item) == (event["eventId"], 1, False)
    assert len(store.events.page(own)["events"]) == 2


def test_a_branch_is_listed_alone_or_with_what_it_grew_from(store: Store) -> None:
    def said(words: str, **more: Any) -> str:
        store.stored.clock.ms += 1
        return str(store.create_event(words, **more)["eventId"])

    said("1")
    root = said("2")
    said("3")
    leaf = said("a", branch={"name": "alt", "rootEventId": root})
    said("b", branch={"name": "alt"})
    said("x", branch={"name": "deep", "rootEventId": leaf})

    def listed(name: str, *, parents: bool = False) -> list[str]:
        return store.texts(filter={"branch": {"name": name, "includeParentBranches": parents}})

    assert store.texts() == ["x", "b", "a", "3", "2", "1"]
    assert listed("main") == ["3", "2", "1"]
    assert listed("alt") == ["b", "a"]
    assert listed("alt", parents=True) == ["b", "a", "2", "1"]
    assert listed("deep", parents=True) == ["x", "a", "2", "1"]
    assert listed("main", parents=True) == ["3", "2", "1"]
    assert listed("none", parents=True) == []
    branches = {event.get("branch", {}).get("name"): event.get("branch") for event in store.list_events()["events"]}
    assert branches == {
        None: None,
        "alt": {"name": "alt", "rootEventId": root},
        "deep": {"name": "deep", "rootEventId": leaf},
    }


def test_a_branch_begins_at_an_event_of_its_session_and_nowhere_else(store: Store) -> None:
    root = store.create_event()["eventId"]
    store.stored.clock.ms += 1
    other = store.create_event(session="other")["eventId"]
    with pytest.raises(Invalid, match=r"branch\.rootEventId: is missing: the session has no branch alt"):
        store.create_event(branch={"name": "alt"})
    with pytest.raises(Invalid) as refused:
        store.create_event(branch={"name": "alt", "rootEventId": other})
    assert refused.value.reason == "EventInOtherSession"
    store.create_event(branch={"name": "alt", "rootEventId": root})
    with pytest.raises(Invalid, match="is not where branch alt begins"):
        store.create_event(branch={"name": "alt", "rootEventId": "0000000000000001#00000000"})
    with pytest.raises(Invalid, match="is given for the main branch"):
        store.create_event(branch={"name": "main", "rootEventId": root})
    assert "branch" not in store.create_event(branch={"name": "main"})


def test_metadata_filters_all_have_to_hold_over_any_number_of_events(store: Store) -> None:
    for number in range(12):
        store.stored.clock.ms += 1
        kind = {"kind": {"stringValue": "odd" if number % 2 else "even"}}
        store.create_event(str(number), metadata=kind | ({"last": {"stringValue": ""}} if number == 11 else {}))

    def wanted(operator: str, key: str, value: str | None = None) -> dict[str, Any]:
        right = {} if value is None else {"right": {"metadataValue": {"stringValue": value}}}
        return {"left": {"metadataKey": key}, "operator": operator, **right}

    def listed(*conditions: dict[str, Any], **more: Any) -> list[str]:
        return store.texts(filter={"eventMetadata": list(conditions)}, **more)

    assert listed(wanted("EQUALS_TO", "kind", "odd"), maxResults=2) == ["11", "9"]
    assert listed(wanted("EQUALS_TO", "kind", "odd"), wanted("NOT_EXISTS", "last")) == ["9", "7", "5", "3", "1"]
    assert listed(wanted("EXISTS", "last")) == ["11"]
    assert listed(wanted("EQUALS_TO", "other", "odd")) == []
    for broken in (wanted("EQUALS_TO", "kind"), wanted("EXISTS", "kind", "odd")):
        with pytest.raises(Invalid, match=r"filter\.eventMetadata\[0\]\.right"):
            listed(broken)


def test_what_has_expired_is_not_there_before_dynamodb_has_deleted_it(store: Store) -> None:
    event = store.create_event()
    store.stored.clock.ms += 31 * 86_400_000
    assert store.list_events() == {"events": []}
    with pytest.raises(NotThere, match="no event"):
        store.events.get({**of(store), "eventId": event["eventId"]})
    assert store.listings.sessions({"memoryId": store.id, "actorId": "a"}) == {"sessionSummaries": []}


def test_what_is_not_there_is_named(store: Store) -> None:
    unknown = {**of(store), "eventId": "0000000000000001#0a"}
    for missing in (store.events.get, store.events.delete):
        with pytest.raises(NotThere, match="the session has no event 0000000000000001#0a"):
            missing(unknown)
    with pytest.raises(NotThere, match="there is no memory Other-0123456789"):
        store.events.page({**of(store), "memoryId": "Other-0123456789"})
    assert store.list_events(actor="nobody") == {"events": []}


def test_sessions_and_actors_are_listed_page_by_page(store: Store) -> None:
    actors = ["a", "a/b", "a:b", "b", "b-1"]
    for actor in actors:
        for session in ("s", "s-1", "t"):
            store.create_event(actor=actor, session=session)

    def pages(list_page: Any, entries: str, name: str, **fields: Any) -> list[str]:
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            answer = list_page({"memoryId": store.id, "maxResults": 2, **fields, **token})
            found += [entry[name] for entry in answer[entries]]
            if "nextToken" not in answer:
                return found
            token = {"nextToken": answer["nextToken"]}

    assert sorted(pages(store.listings.actors, "actorSummaries", "actorId")) == sorted(actors)
    for actor in actors:
        assert pages(store.listings.sessions, "sessionSummaries", "sessionId", actorId=actor) == ["s", "s-1", "t"]


def test_a_session_without_events_is_listed_unless_events_are_asked_for(store: Store) -> None:
    event = store.create_event()
    store.events.delete({**of(store), "eventId": event["eventId"]})
    asked = {"memoryId": store.id, "actorId": "a"}
    assert len(store.listings.sessions(asked)["sessionSummaries"]) == 1
    assert store.listings.sessions({**asked, "filter": {"eventFilter": "HAS_EVENTS"}}) == {"sessionSummaries": []}


def test_nothing_is_added_to_an_actor_that_is_being_erased(store: Store) -> None:
    from turnwright.api.agentcore.refusals import Busy

    store.create_event()
    Actors(store.stored.table).require(store.id, "a")
    store.stored.table.update(Update(keys.actor(store.id, "a"), "SET erasingSince = :now", values={":now": 1}))
    with pytest.raises(Busy, match="being erased"):
        store.create_event("late")
    assert store.listings.actors({"memoryId": store.id}) == {"actorSummaries": []}


KEY_BREAKING = st.text(alphabet="ab#/%:._-~! 2F\u00e9\u4e2d\U0001f600\x7f", min_size=1, max_size=8)
ACTORS = KEY_BREAKING.filter(lambda actor: actor != keys.NO_ACTOR)


@settings(phases=[Phase.explicit, Phase.generate])
@given(st.lists(st.tuples(ACTORS, KEY_BREAKING), min_size=2, max_size=4, unique=True))
def test_no_choice_of_ids_shows_an_event_of_one_session_in_another(
    store: Store, sessions: list[tuple[str, str]]
) -> None:
    """Below the wire's patterns: ids that break keys, and are prefixes of each other."""
    for actor, session in sessions:
        store.stored.clock.ms += 1
        store.create_event(json.dumps([actor, session]), actor=actor, session=session)
    for actor, session in sessions:
        assert set(store.texts(actor=actor, session=session)) == {json.dumps([actor, session])}
        asked = {"memoryId": store.id, "actorId": actor, "maxResults": 100}
        listed = {entry["sessionId"] for entry in store.listings.sessions(asked)["sessionSummaries"]}
        assert {other for who, other in sessions if who == actor} <= listed
        assert all(entry["actorId"] == actor for entry in store.listings.sessions(asked)["sessionSummaries"])


# ---- IngestData ----


def words(text: str) -> dict[str, Any]:
    return {"conversational": {"role": "USER", "content": {"text": text}}}


def sessions(store: Store, **more: Any) -> list[str]:
    answer = store.listings.sessions({"memoryId": store.id, "actorId": "a", **more})
    return [summary["sessionId"] for summary in answer["sessionSummaries"]]


def test_ingested_content_is_no_event_that_anybody_is_shown(store: Store) -> None:
    with_events = {"filter": {"eventFilter": "HAS_EVENTS"}}
    assert store.ingest(words("ship: Fram")) == "s"
    (hidden,) = (item["eventId"]["S"] for item in store.stored.items().values() if "payload" in item)
    assert store.list_events()["events"] == []
    assert (sessions(store), sessions(store, **with_events)) == ([], [])
    for operation in (store.events.get, store.events.delete):
        with pytest.raises(NotThere, match="has no event"):
            operation({**of(store), "eventId": hidden})
    with pytest.raises(Invalid, match=r"branch\.rootEventId: names no event"):
        store.create_event(branch={"name": "b", "rootEventId": hidden})

    store.create_event("seen")
    store.ingest(words("later"))
    assert store.texts() == ["seen"]
    assert (sessions(store), sessions(store, **with_events)) == (["s"], ["s"])


def test_a_repeated_ingestion_with_its_client_token_adds_nothing(store: Store) -> None:
    first = store.ingest(words("once"), session="", clientToken="t")
    assert store.ingest(words("once"), session="", clientToken="t") == first
    assert store.ingest(words("once"), session="") != first
    store.ingest(words("once"), clientToken="t")
    assert store.create_event("an event", clientToken="t")["payload"] == [words("an event")]
    assert len([item for item in store.stored.items().values() if "payload" in item]) == 4


def test_what_could_not_be_remembered_is_not_ingested(store: Store, stored: StoredTurns) -> None:
    with pytest.raises(Invalid, match="memoryId: is a memory without strategies"):
        new_store(stored, name="Bare").ingest(words("lost"))
    with pytest.raises(Invalid, match=r"source\.inline\.payload: says nothing that could be remembered"):
        store.ingest(words(" "))
    with pytest.raises(Invalid, match="extractionConfig: is not supported"):
        operations()["IngestData"].read(
            {
                "resource": operations()["IngestData"].path,
                "pathParameters": {"memoryId": store.id},
                "body": json.dumps(
                    {
                        "actorId": "a",
                        "contentTimestamp": 1,
                        "source": {"inline": {"payload": [words("x")]}},
                        "extractionConfig": {"namespaceVariables": {"a": "b"}},
                    }
                ),
            }
        )


def test_ingestion_is_throttled_while_others_keep_writing(store: Store) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise CommitConflict("busy")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.events, "_create_once", refuse)
        with pytest.raises(Throttled, match="others keep writing to session s"):
            store.ingest(words("x"))
