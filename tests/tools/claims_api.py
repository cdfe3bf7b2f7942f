"""An action group for tests in OpenAPI form: an ordinary Powertools BedrockAgentResolver."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import BedrockAgentResolver
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import BaseModel, Field

app = BedrockAgentResolver()


class Order(BaseModel):
    item: Annotated[str, Field(pattern="^([a-z]+[._-]?)+$")]
    count: int


@app.get("/claims/<claim_id>", description="A claim by its number", operation_id="get_claim")
def get_claim(claim_id: Annotated[int, Path()], verbose: Annotated[bool, Query()] = False) -> dict[str, Any]:
    if claim_id == 404:
        raise NotFoundError("no claim 404")
    if claim_id == 500:
        raise RuntimeError("boom")
    return {"id": claim_id, "verbose": verbose}


@app.post("/orders", description="Places an order", operation_id="create_order")  # type: ignore[untyped-decorator]
def create_order(order: Order) -> dict[str, Any]:
    return order.model_dump()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    answer: dict[str, Any] = app.resolve(event, context)
    return answer
