"""Requests that a model refuses by their shape, at the offline Bedrock, which refuses them as AWS does."""

from collections.abc import Iterator
from typing import Any

import pytest

from local.bedrock.endpoint import BedrockEndpoint
from local.bedrock.scripted_model import ScriptedModel
from tests.unit.samples import agent
from turnwright.errors import ModelAccessDenied, ModelRejected, ModelThrottled, ModelUnavailable
from turnwright.models import converse, model_calls, what_models_take
from turnwright.models.converse import Reply
from turnwright.storage import clients

UNKNOWN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3d4e5f6"
USE = {"toolUse": {"toolUseId": "t", "name": "a", "input": {}}}
OTHER = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/a1b2c3d4e5f6"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    model = ScriptedModel([{"reply": {"text": "Hello"}}])
    endpoint = BedrockEndpoint(model)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", endpoint.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(model_calls, "_learned", {})
    clients.bedrock_runtime.cache_clear()
    yield model
    clients.bedrock_runtime.cache_clear()
    endpoint.close()


def refuses(field: str, model: str = UNKNOWN, **rule: Any) -> dict[str, Any]:
    error = {"status": 400, "type": "ValidationException", "message": f"{field} is not taken"}
    return {"when": {"model": model, "has": field}, "error": error, **rule}


def ask(model: str = UNKNOWN, **fields: Any) -> Reply:
    request = converse.request(agent(**fields), model, [converse.user_message("Hi")], {}, may_use_tools=True)
    return model_calls.converse(request, 20)


def sent(script: ScriptedModel) -> list[set[str]]:
    return [set(request.body.get("inferenceConfig", {})) for request in script.requests]


def test_a_request_that_an_unknown_model_refuses_is_repeated_once_in_the_plainest_form(script: ScriptedModel) -> None:
    script.replace([refuses("inferenceConfig.temperature"), {"reply": {"text": "Hello"}}])

    reply = ask()

    assert reply.message["content"] == [{"text": "Hello"}]
    assert (reply.repeats, set(reply.left_out)) == (1, {"temperature", "topP", "stopSequences", "stream"})
    assert sent(script) == [{"temperature", "topP", "maxTokens", "stopSequences"}, {"maxTokens"}]
    assert [request.is_stream for request in script.requests] == [True, False]
    assert "toolConfig" in script.requests[1].body, "an agent is never asked without its tools"


def test_a_refusal_is_paid_for_once_and_for_that_model_alone(script: ScriptedModel) -> None:
    script.replace([refuses("inferenceConfig.temperature"), {"reply": {"text": "Hello"}}])
    ask()
    again, other = ask(), ask(OTHER)

    assert (again.repeats, set(again.left_out)) == (0, {"temperature", "topP", "stopSequences", "stream"})
    assert (other.repeats, other.left_out) == (0, ())
    assert [request.model_id for request in script.requests] == [UNKNOWN, UNKNOWN, UNKNOWN, OTHER]


def test_what_was_learned_of_one_request_leaves_alone_what_it_did_not_have(script: ScriptedModel) -> None:
    script.replace([refuses("inferenceConfig.stopSequences"), {"reply": {"text": "Hello"}}])
    ask(inferenceConfiguration={"stopSequences": ["END"]})

    assert ask(inferenceConfiguration={"temperature": 0.5}).left_out == ("stream",)
    assert sent(script)[-1] == {"temperature"}


def test_the_memory_of_refusals_is_bounded(script: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_calls, "_MOST_LEARNED", 1)
    script.replace(
        [refuses("inferenceConfig.topP"), refuses("inferenceConfig.topP", OTHER), {"reply": {"text": "Hello"}}]
    )

    assert [ask(model).repeats for model in (UNKNOWN, OTHER, OTHER, UNKNOWN)] == [1, 1, 0, 1]


def test_a_second_refusal_is_the_models_and_nothing_is_learned(script: ScriptedModel) -> None:
    script.replace([refuses("messages")])
    for _ in range(2):
        with pytest.raises(ModelRejected, match="messages is not taken"):
            ask()

    assert len(script.requests) == 4


def test_a_repeat_that_fails_otherwise_fails_as_that(script: ScriptedModel) -> None:
    throttled = {"error": {"status": 429, "type": "ThrottlingException"}}
    script.replace([refuses("inferenceConfig.topP"), throttled])

    with pytest.raises(ModelThrottled):
        ask()


@pytest.mark.parametrize(
    ("code", "raised"),
    [("AccessDeniedException", ModelAccessDenied), ("ServiceUnavailableException", ModelUnavailable)],
)
def test_no_other_failure_is_repeated(script: ScriptedModel, code: str, raised: type[Exception]) -> None:
    status = 403 if raised is ModelAccessDenied else 503
    script.replace([{"error": {"status": status, "type": code}}])

    with pytest.raises(raised):
        ask()
    assert len(script.requests) == 1


@pytest.mark.parametrize(("events", "requests"), [(0, 2), (1, 2), (2, 1)])
def test_a_stream_is_asked_again_only_before_it_has_said_anything(
    script: ScriptedModel, events: int, requests: int
) -> None:
    """The first event says that a message begins, the second is its first piece."""
    error = {"status": 400, "type": "ValidationException", "message": "because"}
    broken = {"reply": {"text": "Hello"}, "breakAfter": events, "error": error, "times": 1}
    script.replace([broken, {"reply": {"text": "Hello again"}}])

    if requests == 2:
        assert ask().message["content"] == [{"text": "Hello again"}]
    else:
        with pytest.raises(ModelRejected, match="because"):
            ask()
    assert len(script.requests) == requests


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "global.anthropic.claude-opus-4-7",
        "eu.anthropic.claude-sonnet-5",
        "global.anthropic.claude-sonnet-5-5",
        "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-opus-5-5",
        "anthropic.claude-haiku-5-5",
        "us.amazon.nova-2-lite-v1:0",
        "us.meta.llama4-maverick-17b-instruct-v1:0",
        "mistral.mistral-large-2402-v1:0",
        "cohere.command-r-v1:0",
    ],
)
@pytest.mark.parametrize("choice", [{}, {"toolChoice": {"tool": {"name": "search"}}}])
def test_what_a_known_model_refuses_it_is_not_even_asked(
    script: ScriptedModel, model: str, choice: dict[str, Any]
) -> None:
    request = converse.request(agent(), model, [converse.user_message("Hi")], {}, may_use_tools=True)

    reply = model_calls.converse({**request, "toolConfig": {**request["toolConfig"], **choice}}, 20)

    assert (reply.repeats, len(script.requests)) == (0, 1)


def test_an_answer_in_one_piece_is_what_its_stream_would_be(script: ScriptedModel) -> None:
    use = {"name": "search", "input": {"limit": 5, "kinds": ["a"]}}
    script.replace([{"reply": {"text": "I look.", "toolUse": [use]}}])

    in_pieces, whole = ask("us.amazon.nova-pro-v1:0"), ask("meta.llama3-1-70b-instruct-v1:0")

    assert [request.is_stream for request in script.requests] == [True, False]
    assert (whole.message, whole.stop_reason) == (in_pieces.message, in_pieces.stop_reason)
    assert whole.usage.keys() == in_pieces.usage.keys()


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
        ),
        ({"reasoningContent": {"redactedContent": b"\x00"}}, {"reasoningContent": {"redactedContent": "AA=="}}),
        (
            {"toolUse": {"toolUseId": "t", "name": "a", "input": {}}},
            {"toolUse": {"toolUseId": "t", "name": "a", "input": {}}},
        ),
    ],
)
def test_every_block_of_an_answer_in_one_piece_is_read(block: dict[str, Any], kept: dict[str, Any]) -> None:
    response = {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
    }
    reader = converse.ReplyReader()
    for event in converse.events_of(response):
        reader.add(event)

    assert reader.reply(may_use_tools=True).message["content"] == [kept]


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", set()),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", set()),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", {"topP beside temperature"}),
        ("jp.anthropic.claude-haiku-4-5-20251001-v1:0", {"topP beside temperature"}),
        ("us.anthropic.claude-opus-4-6-v1", {"topP beside temperature"}),
        ("us.anthropic.claude-opus-4-7", {"temperature", "topP"}),
        ("global.anthropic.claude-opus-4-8", {"temperature", "topP"}),
        ("au.anthropic.claude-sonnet-5", {"temperature", "topP"}),
        ("anthropic.claude-sonnet-5-20260630-v1:0", {"temperature", "topP"}),
        ("anthropic.claude-fable-5", {"temperature", "topP"}),
        ("anthropic.claude-fable-5-1", {"temperature", "topP", "toolChoice"}),
        ("us-gov.anthropic.claude-sonnet-5-5", {"temperature", "topP", "toolChoice"}),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/anthropic.claude-opus-5-5",
            {"temperature", "topP", "toolChoice"},
        ),
        ("eu.amazon.nova-pro-v1:0", set()),
        ("openai.gpt-oss-120b-1:0", set()),
        ("mistral.mistral-large-2407-v1:0", {"toolChoice.tool", "toolResult.status"}),
        ("mistral.mixtral-8x7b-instruct-v0:1", {"toolChoice", "toolResult.status", "system"}),
        ("us.meta.llama3-3-70b-instruct-v1:0", {"toolChoice", "toolResult.status", "stream"}),
        (UNKNOWN, set()),
        ("arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/anthropic1234", set()),
        ("", set()),
    ],
)
def test_the_table_reads_a_model_from_its_id(model: str, refused: set[str]) -> None:
    assert what_models_take.refused_by(model) == refused


def test_what_a_request_does_not_have_is_not_left_out() -> None:
    plain = {"modelId": UNKNOWN, "messages": [converse.user_message("Hi")], "system": [{"text": "Be kind."}]}

    form = what_models_take.without(what_models_take.ALL, plain)

    assert (form.arguments, form.left_out) == (plain, ())


def test_a_tools_status_and_the_system_texts_are_left_out_and_nothing_else_of_the_messages() -> None:
    asked = {"role": "assistant", "content": [USE]}
    result = converse.tool_result_message([("t", "error", "broken")])
    messages = [converse.user_message("Hi"), asked, result]
    parts = frozenset({what_models_take.Part.RESULT_STATUS, what_models_take.Part.SYSTEM})

    form = what_models_take.without(parts, {"modelId": "m", "messages": messages, "system": [{"text": "Be kind."}]})

    bare = {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "broken"}]}}]}
    first = {"role": "user", "content": [{"text": "Be kind."}, {"text": "Hi"}]}
    assert form.arguments == {"modelId": "m", "messages": [first, asked, bare]}
    assert form.left_out == ("toolResult.status", "system")
    assert messages[2] == result, "the messages of the turn stay what they are"
