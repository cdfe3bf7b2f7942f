"""The `application/vnd.amazon.eventstream` encoding, as far as a server needs it.

A message is a prelude (total length, header length, CRC-32 of both), headers, payload, and a CRC-32 of all that.
Every header written here is a UTF-8 string (type 7). Source: the "Amazon event stream" section of the Smithy
specification; the tests read each frame back with botocore's own parser.
"""

import json
import struct
from binascii import crc32
from collections.abc import Mapping
from typing import Any

CONTENT_TYPE = "application/vnd.amazon.eventstream"


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One encoded message. Header names are at most 255 bytes, values at most 32 KiB."""
    encoded = b"".join(_string_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack("!I", crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", crc32(message))


def event(name: str, body: Mapping[str, Any]) -> bytes:
    """A modelled event, for example `chunk`, with `body` as its JSON payload."""
    return _json_frame({":message-type": "event", ":event-type": name}, body)


def exception(name: str, body: Mapping[str, Any]) -> bytes:
    """A modelled exception, for example `throttlingException`. It is the last message of a stream."""
    return _json_frame({":message-type": "exception", ":exception-type": name}, body)


def _json_frame(headers: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    payload = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return frame({**headers, ":content-type": "application/json"}, payload)


def _string_header(name: str, value: str) -> bytes:
    encoded_name, encoded_value = name.encode(), value.encode()
    return (
        struct.pack("!B", len(encoded_name)) + encoded_name + struct.pack("!BH", 7, len(encoded_value)) + encoded_value
    )
