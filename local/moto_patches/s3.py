"""S3's promises about requests at the same time."""

import threading
from typing import Any

from moto.s3.responses import S3Response

from local.moto_patches.replacing import replace

_lock = threading.RLock()


def serve_one_request_at_a_time() -> None:
    """Stock moto keeps an object in one open file: of two reads at once each moves the other's place in it, and a write
    closes the file that the write or read beside it is still using.
    """

    def make(original: Any) -> Any:
        def respond(response: Any, *arguments: Any) -> Any:
            with _lock:
                return original(response, *arguments)

        return respond

    replace(S3Response, "key_response", make)
    replace(S3Response, "bucket_response", make)


def apply() -> None:
    serve_one_request_at_a_time()
