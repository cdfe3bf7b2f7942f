"""An action group for tests in function-details form: an ordinary Powertools BedrockAgentFunctionResolver."""

from typing import Any

from aws_lambda_powertools.event_handler import BedrockAgentFunctionResolver

app = BedrockAgentFunctionResolver()


class SlowDownException(Exception):
    """No name that anything knows."""


class TooManyRequestsException(Exception):
    """A usual name: its code is THROTTLING."""


@app.tool(name="look_up", description="Looks something up")
def look_up(word: str) -> Any:
    match word:
        case "throttled":
            raise TooManyRequestsException("come back later")
        case "broken":
            raise SlowDownException("no idea")
        case "honest":
            return "Error: 404 is what the page says"
        case "list":
            return [1, 2, {"three": 3}]
    return {"word": word}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    answer: dict[str, Any] = app.resolve(event, context)
    return answer
