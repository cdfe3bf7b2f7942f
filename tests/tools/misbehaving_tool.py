"""An action group for tests: a plain handler, without Powertools, that misbehaves as it is told.

Every call is noted in the folder CALLS_DIRECTORY: a line in the file named for the call's idempotency key.
"""

import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any


class ThrottlingException(Exception):
    """What a tool raises whose own back end is throttled."""


class OutOfOrder(Exception):
    """An exception of no usual name."""


def handler(event: dict[str, Any], context: object) -> Any:
    arguments = {entry["name"]: entry["value"] for entry in event["parameters"]}
    attempt = _note(event)
    match event["function"]:
        case "echo":
            return _answer(event, arguments["text"])
        case "remember":
            attributes = event["sessionAttributes"] | {arguments["name"]: arguments["value"]}
            return _answer(event, json.dumps(event["sessionAttributes"])) | {"sessionAttributes": attributes}
        case "misbehave" | "strict" | "slow_to_recover" | "guarded":
            return _misbehave(event, arguments["how"], attempt, int(arguments.get("times", "1000")))
    raise OutOfOrder(f"there is no function {event['function']}")


def _misbehave(event: dict[str, Any], how: str, attempt: int, times: int) -> Any:
    if attempt > times:
        return _answer(event, f"went well in attempt {attempt}")
    match how:
        case "throttle":
            raise ThrottlingException("slow down")
        case "raise":
            raise OutOfOrder("something broke")
        case "hang":
            time.sleep(60)
        case "exit":
            os._exit(1)
        case "garbage":
            return {"unexpected": True}
        case "recursive":
            return _nested(2_000)
        case "bytes":
            return _answer(event, "\ud800 half of a pair")
        case "five_megabytes":
            return _answer(event, json.dumps(["x" * 1_000] * 5_000))
        case "seven_megabytes":
            return _answer(event, "x" * 7_000_000)
        case "long":
            return _answer(event, "x" * 300_000)
        case "fail":
            return _answer(event, "no such customer", responseState="FAILURE")
    return _answer(event, how)


def _nested(depth: int) -> Any:
    nested: Any = "deep"
    for _ in range(depth):
        nested = [nested]
    return nested


def _answer(event: dict[str, Any], text: str, **state: str) -> dict[str, Any]:
    return {
        "messageVersion": "1.0",
        "response": {
            "actionGroup": event["actionGroup"],
            "function": event["function"],
            "functionResponse": {**state, "responseBody": {"TEXT": {"body": text}}},
        },
    }


def _note(event: dict[str, Any]) -> int:
    """Notes the call and returns which attempt of this idempotency key it is, from 1."""
    name = sha256(event["idempotencyKey"].encode()).hexdigest()
    path = Path(os.environ["CALLS_DIRECTORY"]) / name
    with path.open("a") as file:
        file.write(event["idempotencyKey"] + "\n")
    return len(path.read_text().splitlines())
