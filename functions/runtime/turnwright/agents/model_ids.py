"""The ids of Bedrock's models: a foundation model's own, an inference profile's, or an ARN."""

import re

_ARN = re.compile(r"arn:[^:]+:bedrock:[^:]*:[^:]*:(?:foundation-model|inference-profile)/")
"""Only ARNs of these two kinds end with an id that says which model it is."""

_GEOGRAPHY = re.compile(r"(?:us|us-gov|eu|apac|jp|au|ca|in|global)\.")
"""What an inference profile has before the model's own id. Source: "Supported Regions and models for inference
profiles" in the Bedrock user guide.
"""


def bare(model_id: str) -> str:
    """The model's own id, without what an ARN or an inference profile puts before it; any other ARN as it is."""
    identifier = model_id[found.end() :] if (found := _ARN.match(model_id)) else model_id
    return identifier[found.end() :] if (found := _GEOGRAPHY.match(identifier)) else identifier
