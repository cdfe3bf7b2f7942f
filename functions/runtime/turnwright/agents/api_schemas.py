"""The API schemas that agent files keep in the stack's bucket."""

from typing import Any

from botocore.exceptions import ClientError

from turnwright.agents.agent_files import LARGEST_DEFINITION, ObjectUnreadable, ReadObject


def reader(client: Any, bucket: str) -> ReadObject:
    """Reads objects of `bucket`. An object that is longer than a definition may be is not read."""

    def read_object(name: str) -> bytes:
        try:
            response = client.get_object(Bucket=bucket, Key=name)
        except ClientError as error:
            # S3 answers AccessDenied for what is not there to those who may not list the bucket.
            raise ObjectUnreadable(f"{error}; is it there?") from error
        length: int = response["ContentLength"]
        if length > LARGEST_DEFINITION:
            raise ObjectUnreadable(f"it has {length} bytes, at most {LARGEST_DEFINITION} are allowed")
        content: bytes = response["Body"].read()
        return content

    return read_object
