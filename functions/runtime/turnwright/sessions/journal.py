"""The journal of a running turn: one item a model call, with what went in and what came out.

A repeated Invoke Model finds its step here and does not call (and pay) the model again. A second writer of the same
step loses and takes over what the first one wrote, so that the whole turn agrees on one answer a step.
"""

import json

from turnwright.sessions.values import JOURNAL_DAYS, PaidCall, Step
from turnwright.storage import keys
from turnwright.storage.availability import patiently
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import ITEM_BYTES, Documents, json_text
from turnwright.storage.table import ConditionFailed, Item, Put, Table


class Journal:
    """The journal of one turn."""

    def __init__(self, table: Table, documents: Documents, turn_id: str) -> None:
        self._table = table
        self._documents = documents
        self._turn_id = turn_id

    def steps(self) -> list[Step]:
        """All steps so far, in order."""
        items = self._table.query(keys.turn_partition(self._turn_id), keys.JOURNAL_PREFIX, keys.JOURNAL_PREFIX + "~")
        return [self._decode(item) for item in items]

    def calls(self) -> list[PaidCall]:
        """The model calls so far, for a receipt: without their messages."""
        items = self._table.query(keys.turn_partition(self._turn_id), keys.JOURNAL_PREFIX, keys.JOURNAL_PREFIX + "~")
        return [PaidCall(item["model"], json.loads(item["usage"]), _left_out(item)) for item in items]

    def step(self, number: int) -> Step | None:
        item = self._table.get(keys.journal_step(self._turn_id, number))
        return self._decode(item) if item else None

    def record(self, step: Step) -> Step:
        """Writes the step, and returns it; if another writer was first, returns what that one wrote.

        It is paid for: what AWS cannot take at once is tried again for a while.
        """
        return patiently(lambda: self._record(step))

    def _record(self, step: Step) -> Step:
        now = now_ms()
        message = self._documents.stow(step.message, lambda digest: keys.turn_object(self._turn_id, digest), ITEM_BYTES)
        item: Item = {
            "step": step.number,
            "toolResults": json_text(step.tool_results),
            "message": json_text(message),
            "stopReason": step.stop_reason,
            "model": step.model,
            "usage": json_text(step.usage),
            "latencyMs": step.latency_ms,
            "attempt": step.attempt,
            "redrive": step.redrive,
            "recordedAt": now,
            "expiresAt": expiry(now, JOURNAL_DAYS),
        }
        if step.left_out:
            item = {**item, "leftOut": json_text(step.left_out), "repeats": step.repeats}
        try:
            self._table.put(Put(keys.journal_step(self._turn_id, step.number), item, only_if_absent=True))
        except ConditionFailed as refused:
            if refused.item is None:
                raise
            return self._decode(refused.item)
        return step

    def _decode(self, item: Item) -> Step:
        return Step(
            number=item["step"],
            tool_results=json.loads(item["toolResults"]),
            message=self._documents.fetch_text(item["message"]),
            stop_reason=item["stopReason"],
            model=item["model"],
            usage=json.loads(item["usage"]),
            latency_ms=item["latencyMs"],
            attempt=item.get("attempt", 1),  # a turn may have begun before its items had these
            redrive=item.get("redrive", 0),
            left_out=_left_out(item),
            repeats=item.get("repeats", 0),
        )


def _left_out(item: Item) -> tuple[str, ...]:
    return tuple(json.loads(item.get("leftOut", "[]")))
