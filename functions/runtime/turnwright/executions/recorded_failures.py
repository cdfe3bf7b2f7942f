"""Which failures of executions are recorded, so that each is once, whoever learns of it and however often.

An execution has an item of its own for that, with its first failure. A failure is known by the moment at which the
execution stopped: one that was redriven and failed again is recorded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.table import SCHEMA_VERSION, ConditionFailed, Item, Table, Update
from turnwright.tracing.execution_failures import ExecutionFailure, read_failure
from turnwright.tracing.log import logger

REMEMBERED_DAYS = 90
"""As long as Step Functions lists an execution that has ended."""

_MOST_READ = 100


@dataclass(frozen=True, slots=True)
class Stopped:
    """An execution that ended badly, with the `status`, at the moment `at` (milliseconds)."""

    execution_arn: str
    status: str
    at: int


class RecordedFailures:
    """The failures that a table remembers as recorded, or as handed to who records them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def unrecorded(self, client: Any, execution_arn: str) -> ExecutionFailure | None:
        """The failure of an execution as it stands now (`read_failure`); None, which is logged, if there is nothing to
        record: it runs again or has succeeded since, or its failure is recorded.

        Who has recorded it calls `recorded` then. Whoever dies in between, or does it at the same time as another, has
        it recorded twice.
        """
        failure = read_failure(client, execution_arn, find_state=True)
        if failure is None:
            logger().info("execution is not in failure any more", executionArn=execution_arn)
        elif self._noted(self._table.get(keys.execution_failure(execution_arn)), "recorded") >= failure.stopped_at:
            logger().info("failure is recorded already", executionArn=execution_arn)
        else:
            return failure
        return None

    def recorded(self, failure: ExecutionFailure) -> None:
        self._note("recorded", Stopped(failure.execution_arn, failure.status, failure.stopped_at))

    def handed_over(self, stopped: Stopped) -> None:
        """Whoever took the failure will record it, or keeps it where somebody sees it."""
        self._note("handedOver", stopped)

    def untold(self, stopped: Sequence[Stopped]) -> list[Stopped]:
        """Those of the failures that are neither recorded nor handed over."""
        found: list[Stopped] = []
        for start in range(0, len(stopped), _MOST_READ):
            some = stopped[start : start + _MOST_READ]
            known = [keys.execution_failure(each.execution_arn) for each in some]
            items = self._table.get_many(known, consistent=False)
            found += [
                each
                for each, item in zip(some, items, strict=True)
                if max(self._noted(item, "recorded"), self._noted(item, "handedOver")) < each.at
            ]
        return found

    @staticmethod
    def _noted(item: Item | None, what: str) -> int:
        return int(item.get(what, -1)) if item else -1

    def _note(self, what: str, stopped: Stopped) -> None:
        """Unless a later failure is noted already: then this comes late."""
        update = Update(
            keys.execution_failure(stopped.execution_arn),
            f"SET {what} = :at, expiresAt = :expires, schemaVersion = :schema",
            condition=f"attribute_not_exists({what}) OR {what} < :at",
            values={":at": stopped.at, ":expires": expiry(now_ms(), REMEMBERED_DAYS), ":schema": SCHEMA_VERSION},
        )
        try:
            self._table.update(update)
        except ConditionFailed:
            return
