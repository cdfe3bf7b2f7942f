"""What one invocation of a function costs, measured while it runs."""

import time

from turnwright.costs.spending import Cost
from turnwright.storage.settings import settings
from turnwright.storage.table import Table


class Meter:
    """Begins to measure when it is made, at the beginning of a handler.

    Lambda bills a little more than a handler's milliseconds: the start of a process, and what its runtime adds.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._started = time.monotonic()

    @property
    def milliseconds(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def cost(self) -> Cost:
        """What the invocation has cost up to now."""
        consumed = self._table.consumed
        return Cost(
            ms=self.milliseconds,
            memory_mb=settings().memory_mb,
            read_units=consumed.read_units,
            write_units=consumed.write_units,
            item_writes=consumed.item_writes,
        )
