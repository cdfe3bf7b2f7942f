"""Texts and nested values of any length: small ones travel inline, long ones go to the bucket and a reference travels.

A stowed document is `{"inline": value}` or `{"object": name, "bytes": n}`; both are JSON and fit in a state, an item,
an execution's input. An object's name holds the digest of its content, so that writing it twice is harmless and two
writers that differ (a repeated model call) cannot overwrite each other.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from turnwright.errors import NotAllDeleted, StorageUnavailable
from turnwright.storage import availability, clients
from turnwright.storage.settings import settings

Stowed = Mapping[str, Any]

ITEM_BYTES = 64 * 1024
"""The bound inside an item. A longer text costs more as write units than as an object."""

STATE_BYTES = 8 * 1024
"""The bound in an execution's input and in a turn's header, which is read often while the turn runs."""


def json_text(value: Any) -> str:
    """JSON as it is stored: compact, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Documents:
    """Documents in the bucket `name`."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._bucket = name

    def stow(self, value: Any, object_name: Callable[[str], str], bound: int) -> dict[str, Any]:
        """Keeps `value` inline if its JSON has at most `bound` bytes; `object_name` makes a name of its digest, before
        the object is written.
        """
        encoded = json_text(value).encode()
        if len(encoded) <= bound:
            return {"inline": value}
        name = object_name(hashlib.sha256(encoded).hexdigest())
        self._client.put_object(Bucket=self._bucket, Key=name, Body=encoded, ContentType="application/json")
        return {"object": name, "bytes": len(encoded)}

    def names(self, prefix: str) -> Iterator[list[str]]:
        """The names of the objects that begin with `prefix`, page by page; a page may be deleted before the next."""
        arguments = {"Bucket": self._bucket, "Prefix": prefix}
        while True:
            page = self._client.list_objects_v2(**arguments)
            yield [entry["Key"] for entry in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, names: Sequence[str]) -> None:
        """Removes at most 1,000 objects. Raises NotAllDeleted, or StorageUnavailable where that passes, if S3 leaves
        some.
        """
        if not names:
            return
        response = self._client.delete_objects(
            Bucket=self._bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True}
        )
        codes = {entry.get("Code", "") for entry in response.get("Errors", ())}
        if codes:
            message = f"S3 left some of {len(names)} objects: {', '.join(sorted(codes))}"
            raise StorageUnavailable(message) if codes <= availability.PASSING else NotAllDeleted(message)

    def discard(self, stowed: Stowed) -> None:
        """Removes the object of a document that nothing refers to; an inline one has none."""
        if "object" in stowed:
            self._client.delete_object(Bucket=self._bucket, Key=stowed["object"])

    def fetch(self, stowed: Stowed) -> Any:
        """The value that was stowed."""
        if "inline" in stowed:
            return stowed["inline"]
        response = self._client.get_object(Bucket=self._bucket, Key=stowed["object"])
        with availability.reading("S3 GetObject"):
            encoded = response["Body"].read()
        return json.loads(encoded)

    def fetch_text(self, attribute: str) -> Any:
        """The value of a stowed document that an item's attribute holds as JSON text."""
        return self.fetch(json.loads(attribute))


def documents() -> Documents:
    """The documents in the bucket that the environment names."""
    return Documents(clients.s3(), settings().bucket_name)
