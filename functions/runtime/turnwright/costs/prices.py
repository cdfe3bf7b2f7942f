"""What things cost: the list prices of `prices.json`, which say their date, Region and source.

They are list prices of one Region: a discount, a free tier or another Region's price is not in them. What has no price
there costs None, which is told as unknown and never as nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TOKEN_KINDS = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
"""The kinds of tokens that are billed, by Converse's names; `inputTokens` leaves out those of a cache."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars. `models` has a model's price for a million tokens, by the id that Converse is given."""

    date: str
    region: str
    per_gb_second: float
    per_request: float
    per_transition: float
    per_read_unit: float
    per_write_unit: float
    models: Mapping[str, Mapping[str, float]]

    @property
    def name(self) -> str:
        """Which prices they are, for a receipt."""
        return f"{self.region} {self.date}"

    def of_model(self, model: str, usage: Mapping[str, int]) -> float | None:
        """The dollars of a model's tokens; None if the model, or a kind of tokens that were used, has no price."""
        price = self.models.get(model)
        if price is None:
            return None
        total = 0.0
        for kind in TOKEN_KINDS:
            if tokens := usage.get(kind, 0):
                if kind not in price:
                    return None
                total += tokens * price[kind] / 1_000_000
        return rounded(total)


def rounded(dollars: float) -> float:
    """To a billionth of a dollar: the sum of binary fractions has no truth beyond that."""
    return round(dollars, 9)


@cache
def current() -> Prices:
    """The prices of this release."""
    document = json.loads((Path(__file__).parent / "prices.json").read_text())
    return Prices(
        date=document["date"],
        region=document["region"],
        per_gb_second=document["lambda"]["perGbSecond"],
        per_request=document["lambda"]["perRequest"],
        per_transition=document["stepFunctions"]["perTransition"],
        per_read_unit=document["dynamodb"]["perReadUnit"],
        per_write_unit=document["dynamodb"]["perWriteUnit"],
        models=document["models"]["perMillionTokens"],
    )
