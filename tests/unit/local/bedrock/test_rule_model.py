"""The rule model holds the demonstration's conversations, with these tools and with others."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.bedrock.converse_answer import converse_answer
from local.bedrock.model_backend import ConverseRequest, ModelError, StreamEvent
from local.bedrock.rule.rule_answers import LABEL
from local.bedrock.rule.rule_model import RuleModel
from local.bedrock.rule.rule_patterns import first_match

MODEL_ID = "us.amazon.nova-pro-v1:0"


def tool(name: str, description: str, properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"toolSpec": {"name": name, "description": description, "inputSchema": {"json": schema}}}


ACCOUNT_ID = {"account_id": {"type": "string", "description": "The account's number."}}
BANKING_TOOLS = [
    tool("get_account_balance", "Returns the current balance of one account.", ACCOUNT_ID, "account_id"),
    tool(
        "list_transactions",
        "Returns the latest transactions of one account, newest first, with amount and currency.",
        {**ACCOUNT_ID, "limit": {"type": "integer"}},
        "account_id",
    ),
    tool(
        "convert_currency",
        "Converts an amount from one currency to another. Supports USD, EUR and GBP.",
        {
            "amount": {"type": "number"},
            "from_currency": {"type": "string"},
            "to_currency": {"type": "string"},
        },
        "amount",
        "from_currency",
        "to_currency",
    ),
]
OTHER_TOOLS = [
    tool("search_products", "Searches the catalogue.", {"query": {"type": "string"}}, "query"),
    tool(
        "get_weather",
        "The weather forecast of a city.",
        {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
        "city",
    ),
    tool(
        "cancel_order",
        "Cancels an order.",
        {"order_id": {"type": "integer"}, "notify": {"type": "boolean"}},
        "order_id",
    ),
    tool("send_mail", "Sends an e-mail.", {"email": {"type": "string"}, "subject": {"type": "string"}}, "email"),
    tool("calculate", "Evaluates arithmetic.", {"expression": {"type": "string"}}, "expression"),
    tool(
        "book_room",
        "Books a meeting room.",
        {"date": {"type": "string"}, "code": {"type": "string", "pattern": "^R[0-9]+$"}},
        "date",
        "code",
    ),
]

Calls = list[tuple[str, dict[str, Any]]]


def bank(name: str, arguments: Mapping[str, Any]) -> Any:
    """What the sample bank answers."""
    match name:
        case "get_account_balance" if arguments["account_id"] == "12345":
            return {"balance": 48392.50, "currency": "USD"}
        case "get_account_balance" if arguments["account_id"] == "67890":
            return {"balance": 1250, "currency": "EUR"}
        case "list_transactions" if arguments["account_id"] == "12345":
            entries = [{"date": "2025-11-14", "description": "Salary", "amount": 6250.0}] * 5
            return {"currency": "USD", "transactions": entries[: arguments.get("limit", 10)]}
        case "convert_currency":
            return {
                "amount": arguments["amount"],
                "currency": arguments["from_currency"],
                "converted_amount": 43993.18,
                "converted_currency": arguments["to_currency"],
                "rate": 0.909091,
            }
    return {"error": "There is no such account."}


class Conversation:
    """Talks to a rule model as a runtime does, and carries out its tool calls."""

    def __init__(
        self, tools: Sequence[Mapping[str, Any]] = BANKING_TOOLS, carry_out: Callable[..., Any] = bank
    ) -> None:
        self.model = RuleModel()
        self.messages: list[dict[str, Any]] = []
        self.steps: list[Calls] = []
        self._tools = tools
        self._carry_out = carry_out

    def say(self, text: str) -> str:
        """The answer. `steps` then holds the tool calls of each step of the turn."""
        self.messages.append({"role": "user", "content": [{"text": text}]})
        self.steps = []
        while True:
            message = self.ask()
            self.messages.append(message)
            uses = [block["toolUse"] for block in message["content"] if "toolUse" in block]
            if not uses:
                answer: str = message["content"][0]["text"]
                return answer
            self.steps.append([(use["name"], use["input"]) for use in uses])
            results = [{"text": json.dumps(self._carry_out(use["name"], use["input"]))} for use in uses]
            self.answer_tools(uses, results)

    def answer_tools(self, uses: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> None:
        content = [
            {"toolResult": {"toolUseId": use["toolUseId"], "status": "success", "content": [result]}}
            for use, result in zip(uses, results, strict=True)
        ]
        self.messages.append({"role": "user", "content": content})

    def ask(self, **tool_configuration: Any) -> dict[str, Any]:
        """One model call on the messages so far."""
        message: dict[str, Any] = self.answer(**tool_configuration)["output"]["message"]
        return message

    def answer(self, **tool_configuration: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": json.loads(json.dumps(self.messages))}
        if self._tools:
            body["toolConfig"] = {"tools": self._tools, **tool_configuration}
        return converse_answer(_timed(event) for event in self.model.converse(ConverseRequest(MODEL_ID, body, True)))


def _timed(event: StreamEvent) -> StreamEvent:
    return StreamEvent(event.name, {**event.body, "metrics": {"latencyMs": 0}}) if event.name == "metadata" else event


def test_a_balance_is_one_tool_call_and_a_readable_answer() -> None:
    conversation = Conversation()
    assert conversation.say("What is the balance of account 12345?") == (
        "[offline rule model, not an LLM] get_account_balance: balance 48,392.50 USD"
    )
    assert conversation.steps == [[("get_account_balance", {"account_id": "12345"})]]


def test_that_in_another_currency_is_taken_from_the_turn_before() -> None:
    conversation = Conversation()
    conversation.say("What is the balance of account 12345?")
    answer = conversation.say("And what is that in EUR?")
    assert conversation.steps == [
        [("convert_currency", {"amount": 48392.5, "from_currency": "USD", "to_currency": "EUR"})]
    ]
    assert answer.endswith("amount 48,392.50 USD, converted amount 43,993.18 EUR, rate 0.909091")


def test_that_is_found_in_an_answer_when_the_history_has_no_tool_blocks() -> None:
    conversation = Conversation()
    conversation.messages = [
        {"role": "user", "content": [{"text": "What is the balance of account 12345?"}]},
        {"role": "assistant", "content": [{"text": f"{LABEL} Your account 12345 holds 48,392.50 USD."}]},
    ]
    conversation.say("And what is that in EUR?")
    assert conversation.steps == [
        [("convert_currency", {"amount": 48392.5, "from_currency": "USD", "to_currency": "EUR"})]
    ]
    conversation.say("List its transactions")
    assert conversation.steps == [[("list_transactions", {"account_id": "12345"})]]


def test_independent_clauses_become_parallel_calls_of_one_step() -> None:
    conversation = Conversation()
    answer = conversation.say("Show the last 3 transactions of account 12345 and its balance")
    assert conversation.steps == [
        [("list_transactions", {"account_id": "12345", "limit": 3}), ("get_account_balance", {"account_id": "12345"})]
    ]
    assert answer.splitlines() == [
        LABEL,
        "- list_transactions: currency USD, transactions 3:",
        *["    2025-11-14 · Salary · 6,250.00"] * 3,
        "- get_account_balance: balance 48,392.50 USD",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "What is the balance of account 12345 and what is that in EUR?",
        "What is the balance of account 12345? Then convert it to EUR.",
        "Get the balance of account 12345, then convert the balance to EUR",
    ],
)
def test_a_clause_that_needs_a_result_waits_for_the_next_step(text: str) -> None:
    conversation = Conversation()
    conversation.say(text)
    assert conversation.steps == [
        [("get_account_balance", {"account_id": "12345"})],
        [("convert_currency", {"amount": 48392.5, "from_currency": "USD", "to_currency": "EUR"})],
    ]


def test_that_means_the_result_of_this_turn_before_an_older_one() -> None:
    conversation = Conversation()
    conversation.say("What is the balance of account 67890?")
    conversation.say("What is the balance of account 12345 and what is that in GBP?")
    assert conversation.steps == [
        [("get_account_balance", {"account_id": "12345"})],
        [("convert_currency", {"amount": 48392.5, "from_currency": "USD", "to_currency": "GBP"})],
    ]


def test_that_means_the_converted_amount_of_the_step_before() -> None:
    conversation = Conversation()
    conversation.say("Convert 100 USD to EUR and that to GBP")
    assert conversation.steps == [
        [("convert_currency", {"amount": 100, "from_currency": "USD", "to_currency": "EUR"})],
        [("convert_currency", {"amount": 43993.18, "from_currency": "EUR", "to_currency": "GBP"})],
    ]


def test_that_never_means_one_of_a_list() -> None:
    conversation = Conversation()
    conversation.say("What is the balance of account 12345?")
    conversation.say("Show its transactions")
    conversation.say("Convert that to EUR")
    assert conversation.steps == [
        [("convert_currency", {"amount": 48392.5, "from_currency": "USD", "to_currency": "EUR"})]
    ]


def test_the_currency_of_an_older_amount_is_not_taken_for_a_new_one() -> None:
    conversation = Conversation()
    conversation.say("What is the balance of account 12345?")
    assert conversation.say("And convert 100 to EUR") == (
        f"{LABEL} To call convert_currency I need: from currency. What is it?"
    )


def test_then_puts_independent_calls_into_steps_of_their_own() -> None:
    conversation = Conversation()
    conversation.say("Show the transactions of account 12345, then the balance of account 67890")
    assert conversation.steps == [
        [("list_transactions", {"account_id": "12345"})],
        [("get_account_balance", {"account_id": "67890"})],
    ]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            "What are the balances of accounts 12345 and 67890?",
            [("get_account_balance", {"account_id": "12345"}), ("get_account_balance", {"account_id": "67890"})],
        ),
        (
            "Convert 1,250.50 USD to EUR and GBP",
            [
                ("convert_currency", {"amount": 1250.5, "from_currency": "USD", "to_currency": "EUR"}),
                ("convert_currency", {"amount": 1250.5, "from_currency": "USD", "to_currency": "GBP"}),
            ],
        ),
        (
            "Convert for account 12345 the amount 250 from USD to EUR",
            [("convert_currency", {"amount": 250, "from_currency": "USD", "to_currency": "EUR"})],
        ),
        (
            "For the last 3 days convert 250 from USD to EUR",
            [("convert_currency", {"amount": 250, "from_currency": "USD", "to_currency": "EUR"})],
        ),
        (
            "How much is $250 in euros?",
            [("convert_currency", {"amount": 250, "from_currency": "USD", "to_currency": "EUR"})],
        ),
        ("account_id=abc balance please", [("get_account_balance", {"account_id": "abc"})]),
    ],
)
def test_arguments_are_read_from_the_text(text: str, calls: Calls) -> None:
    conversation = Conversation()
    conversation.say(text)
    assert conversation.steps == [calls]


def test_a_follow_up_repeats_the_newest_call_with_another_value() -> None:
    conversation = Conversation()
    conversation.say("Show the last 2 transactions of account 12345")
    conversation.say("What about 67890?")
    assert conversation.steps == [[("list_transactions", {"account_id": "67890", "limit": 2})]]


def test_a_missing_argument_is_asked_for_and_the_answer_completes_the_call() -> None:
    conversation = Conversation()
    assert conversation.say("What's my balance?") == (
        f"{LABEL} To call get_account_balance I need: account id (The account's number). What is it?"
    )
    assert conversation.steps == []
    conversation.say("It's 12345")
    assert conversation.steps == [[("get_account_balance", {"account_id": "12345"})]]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("thanks!", "You are welcome."),
        ("Thanks for the balance of account 12345", "You are welcome."),
        ("Hello", "Hello. I can call these tools: get_account_balance, list_transactions, convert_currency."),
        (
            "I paid 100 USD for lunch",
            (
                "No tool matches this. "
                "I can call these tools: get_account_balance, list_transactions, convert_currency. "
                "For real answers start with MODEL=openai:URL#MODEL or MODEL=bedrock."
            ),
        ),
    ],
)
def test_small_talk_calls_no_tool(text: str, answer: str) -> None:
    conversation = Conversation()
    assert conversation.say(text) == f"{LABEL} {answer}"
    assert conversation.steps == []


def test_a_failed_call_is_explained_and_ends_the_sequence() -> None:
    conversation = Conversation()
    assert conversation.say("Check the balance of account 999 and then convert it to EUR").splitlines() == [
        f"{LABEL} get_account_balance failed: There is no such account.",
        "Not done, since a call before it failed: convert_currency.",
    ]
    assert conversation.steps == [[("get_account_balance", {"account_id": "999"})]]


def test_after_a_failed_call_independent_steps_are_not_done_either() -> None:
    conversation = Conversation()
    answer = conversation.say("Show the transactions of account 999, then the balance of account 67890")
    assert conversation.steps == [[("list_transactions", {"account_id": "999"})]]
    assert answer.endswith("Not done, since a call before it failed: get_account_balance.")


def test_a_result_with_status_error_has_failed() -> None:
    conversation = Conversation()
    conversation.messages = [
        {"role": "user", "content": [{"text": "The balance of account 12345, please"}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "get_account_balance", "input": {}}}]},
        {
            "role": "user",
            "content": [{"toolResult": {"toolUseId": "t", "status": "error", "content": [{"text": "Timed out"}]}}],
        },
    ]
    assert conversation.ask()["content"] == [{"text": f"{LABEL} get_account_balance failed: Timed out"}]


def test_text_beside_the_results_ends_the_turn() -> None:
    conversation = Conversation()
    conversation.messages = [
        {"role": "user", "content": [{"text": "The balance of account 12345, then convert it to EUR"}]}
    ]
    message = conversation.ask()
    conversation.messages.append(message)
    conversation.answer_tools([message["content"][1]["toolUse"]], [{"json": {"balance": 10, "currency": "USD"}}])
    conversation.messages[-1]["content"].append({"text": "Answer now."})
    assert conversation.ask()["content"][0]["text"].splitlines() == [
        f"{LABEL} get_account_balance: balance 10.00 USD",
        "Not done, since I was told to conclude: convert_currency.",
    ]


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('Search the products for "red shoes and socks"', ("search_products", {"query": "red shoes and socks"})),
        ("What is the weather in New York in celsius?", ("get_weather", {"city": "New York", "unit": "celsius"})),
        ("Cancel order 4711 and notify the customer", ("cancel_order", {"order_id": 4711, "notify": True})),
        ("Send a mail to ann@example.org", ("send_mail", {"email": "ann@example.org"})),
        ("calculate (2 + 3) * 4", ("calculate", {"expression": "(2 + 3) * 4"})),
        ("Book the room R12 on 2025-12-24.", ("book_room", {"date": "2025-12-24", "code": "R12"})),
    ],
)
def test_other_tools_are_chosen_and_filled_in_by_their_schemas(text: str, call: tuple[str, dict[str, Any]]) -> None:
    conversation = Conversation(OTHER_TOOLS, lambda name, arguments: {"done": True})
    conversation.say(text)
    assert conversation.steps == [[call]]


def test_tool_choice_forces_a_tool() -> None:
    conversation = Conversation()
    conversation.messages = [{"role": "user", "content": [{"text": "Something about account 12345"}]}]
    forced = conversation.ask(toolChoice={"tool": {"name": "list_transactions"}})
    assert forced["content"][1]["toolUse"]["input"] == {"account_id": "12345"}
    assert conversation.ask(toolChoice={"any": {}})["content"][1]["toolUse"]["name"] == "get_account_balance"


def test_equal_conversations_get_equal_answers_and_tool_use_ids() -> None:
    first, second = Conversation(), Conversation()
    for conversation in (first, second):
        conversation.say("Show the last 3 transactions of account 12345 and its balance")
    assert first.messages == second.messages
    ids = [block["toolUse"]["toolUseId"] for block in first.messages[1]["content"] if "toolUse" in block]
    assert len(set(ids)) == 2


def test_equal_calls_of_different_turns_have_different_tool_use_ids() -> None:
    conversation = Conversation()
    for _ in range(2):
        conversation.say("What is the balance of account 12345?")
    blocks = [block for message in conversation.messages for block in message["content"]]
    assert len({block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block}) == 2


def test_tokens_are_estimated_from_the_characters() -> None:
    conversation = Conversation(tools=[])
    conversation.messages = [{"role": "user", "content": [{"text": "/say " + "x" * 4000}]}]
    usage = conversation.answer()["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]
    assert 1000 <= usage["outputTokens"] <= 1020


def test_without_tools_it_repeats_what_it_was_told() -> None:
    conversation = Conversation(tools=[])
    assert conversation.say("What is the balance?").startswith(
        f"{LABEL} I have no tools here, and can only repeat what I was told: What is the balance?"
    )


def test_call_lines_are_parallel_calls_exactly_as_written() -> None:
    conversation = Conversation()
    conversation.say(
        '/call get_account_balance {"account_id": "12345"}\n/call unknown_tool {"deep": {"x": [1]}}\n/call bare'
    )
    assert conversation.steps == [
        [("get_account_balance", {"account_id": "12345"}), ("unknown_tool", {"deep": {"x": [1]}}), ("bare", {})]
    ]


def test_say_answers_exactly_the_text() -> None:
    assert Conversation().say("/say The balance of account 12345") == f"{LABEL} The balance of account 12345"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("/jump", "There is no command /jump. There are /call, /fail, /say, /slow, /throttle, /unavailable."),
        ("/call", "/call needs the name of a tool: /call TOOL {JSON}"),
        ("/call x [1]", "/call x: the arguments must be a JSON object."),
        ("/slow soon", "/slow needs seconds, 900 at most: /slow 2.5"),
        ("/say", "/say needs a text: /say TEXT"),
    ],
)
def test_a_command_that_makes_no_sense_is_explained(text: str, answer: str) -> None:
    assert Conversation().say(text) == f"{LABEL} {answer}"


def test_a_path_is_no_command() -> None:
    assert "No tool matches this" in Conversation().say("/etc/passwd is a file")


@pytest.mark.parametrize(
    ("command", "status", "error_type"),
    [("/throttle", 429, "ThrottlingException"), ("/unavailable", 503, "ServiceUnavailableException")],
)
def test_a_turn_fails_as_often_as_told_and_again_when_it_is_repeated(
    command: str, status: int, error_type: str
) -> None:
    conversation = Conversation()
    for _ in range(2):
        conversation.messages = [
            {"role": "user", "content": [{"text": f"{command} 2\nWhat is the balance of account 12345?"}]}
        ]
        for _ in range(2):
            with pytest.raises(ModelError) as failure:
                conversation.ask()
            assert (failure.value.status, failure.value.error_type) == (status, error_type)
        message = conversation.ask()
        conversation.messages.append(message)
        conversation.answer_tools([message["content"][1]["toolUse"]], [{"json": {"balance": 10, "currency": "USD"}}])
        assert conversation.ask()["content"] == [{"text": f"{LABEL} get_account_balance: balance 10.00 USD"}]


def test_throttle_without_a_count_throttles_every_call() -> None:
    conversation = Conversation()
    conversation.messages = [{"role": "user", "content": [{"text": "/throttle What is the balance of account 12345?"}]}]
    for _ in range(5):
        with pytest.raises(ModelError, match="Too many requests"):
            conversation.ask()


@pytest.mark.parametrize(
    ("text", "fails"),
    [(f"/fail {MODEL_ID} hello", True), ("/fail other.model-v1:0 hello", False), ("/fail hello", True)],
)
def test_fail_refuses_one_model_or_every_model(text: str, fails: bool) -> None:
    conversation = Conversation()
    if fails:
        with pytest.raises(ModelError) as failure:
            conversation.say(text)
        assert (failure.value.status, failure.value.error_type) == (403, "AccessDeniedException")
    else:
        assert conversation.say(text).startswith(f"{LABEL} Hello.")


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    "balance",
                    "account",
                    "12345",
                    "and",
                    "then",
                    ",",
                    "EUR",
                    "that",
                    "100",
                    "USD",
                    "convert",
                    "?",
                    "it",
                    "\n",
                    "É",
                ]
            )
            | st.text(max_size=6).filter(lambda text: "/" not in text),
            min_size=1,
            max_size=12,
        ).map(lambda parts: "x " + " ".join(parts)),
        min_size=1,
        max_size=3,
    )
)
def test_any_conversation_is_answered_with_the_label(texts: list[str]) -> None:
    conversation = Conversation()
    for text in texts:
        assert conversation.say(text).startswith(LABEL)
        assert len(conversation.steps) <= text.count(" ") + 1


def test_slow_makes_every_model_call_take_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("local.bedrock.rule.rule_model.time.sleep", waited.append)
    Conversation().say("/slow 2.5 What is the balance of account 12345?")
    assert waited == [2.5, 2.5]


@pytest.mark.parametrize(
    ("pattern", "words", "found"),
    [
        ("^R[0-9]+$", ("Book", "R12", "R13"), "R12"),
        (r"^(?<a>\p{Lu})\d$", ("r1", "R\u0665", "R1"), "R1"),
        ("^R$", ("r", "Q"), None),
        (r"(?P<a>R)", ("R",), None),
        ("^([a-z]+[._-]?)+@x$", ("a" * 40,), None),
    ],
)
def test_a_word_with_a_pattern_is_looked_for_from_any_thread_and_not_without_end(
    pattern: str, words: tuple[str, ...], found: str | None
) -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(first_match, pattern, words).result() == found
