"""The operations of `bedrock-agentcore-control` on memory: their routes and the shapes of their requests.

Source: botocore's service model, with which a test compares all of it.
"""

from turnwright.api.agentcore.operations import Operation
from turnwright.api.agentcore.shapes import Dictionary, Listing, Shape, Structure, Text, Whole, union

MEMORY_ID = Text(12, None, r"[a-zA-Z][a-zA-Z0-9-_]{0,99}-[a-zA-Z0-9]{10}")
NAME = Text(pattern=r"[a-zA-Z][a-zA-Z0-9_]{0,47}")
NAMESPACE = Text(1, 512, r"[a-zA-Z0-9\-_\/]*(\{[a-zA-Z][a-zA-Z0-9]*\}[a-zA-Z0-9\-_\/]*)*")

_DESCRIPTION = Text(1, 4096)
_ARN = Text(pattern=r"arn:[a-z0-9-\.]{1,63}:[a-z0-9-\.]{0,63}:[a-z0-9-\.]{0,63}:[a-z0-9-\.]{0,63}:[^/].{0,1023}")
_TOKEN = Text(0, 500)
_DAYS = Whole(3, 3650)
_NAMESPACES = Listing(NAMESPACE, 1, 1)
_CHARACTERS = r"[a-zA-Z0-9\s._:/=+@-]*"
_METADATA_KEY = Text(1, 128, _CHARACTERS)
_EXPIRY = union(recordExpiryDurationDays=Whole(31), action=Text(choices=("REMOVE",)))
_INDEXED_KEYS = Listing(
    Structure(
        {"key": _METADATA_KEY, "type": Text(choices=("STRING", "STRINGLIST", "NUMBER"))},
        ("key", "type"),
    ),
    1,
    10,
)
_PROMPT = Structure({"appendToPrompt": Text(1, 30_000), "modelId": Text()}, ("appendToPrompt", "modelId"))

_NO_SCHEMA = {"memoryRecordSchema": "is not supported: records get no metadata but what a caller gives them"}
_NO_EPISODES = "is not supported: the strategies are semantic, summary, userPreference and overrides of these"
_NO_SELF_MANAGED = (
    "is not supported: a strategy's pipeline is this runtime's own; BatchCreateMemoryRecords writes records"
)
_NO_STREAM = "is not supported: records are not delivered to a stream"
_NO_NAMESPACE_KEYS = "are not supported: namespaces have no variables but {actorId}, {sessionId} and {memoryStrategyId}"
_NO_KEY = "is not supported: the table and the bucket are encrypted as the stack's template says"

_BUILT_IN: dict[str, Shape] = {
    "name": NAME,
    "description": _DESCRIPTION,
    "namespaces": _NAMESPACES,
    "namespaceTemplates": _NAMESPACES,
    "recordExpirySpecification": _EXPIRY,
}
_BUILT_IN_STRATEGY = Structure(_BUILT_IN, ("name",), unsupported=_NO_SCHEMA)
_STEPS = Structure({"extraction": _PROMPT, "consolidation": _PROMPT})
STRATEGY = Structure(
    {
        "semanticMemoryStrategy": _BUILT_IN_STRATEGY,
        "summaryMemoryStrategy": _BUILT_IN_STRATEGY,
        "userPreferenceMemoryStrategy": _BUILT_IN_STRATEGY,
        "customMemoryStrategy": Structure(
            {
                **_BUILT_IN,
                "configuration": Structure(
                    {
                        "semanticOverride": _STEPS,
                        "summaryOverride": Structure({"consolidation": _PROMPT}),
                        "userPreferenceOverride": _STEPS,
                    },
                    union=True,
                    unsupported={
                        "episodicOverride": _NO_EPISODES,
                        "selfManagedConfiguration": _NO_SELF_MANAGED,
                    },
                ),
            },
            ("name",),
            unsupported=_NO_SCHEMA,
        ),
    },
    union=True,
    unsupported={"episodicMemoryStrategy": _NO_EPISODES},
)
_MODIFIED_STRATEGY = Structure(
    {
        "memoryStrategyId": Text(),
        "description": _DESCRIPTION,
        "namespaces": _NAMESPACES,
        "namespaceTemplates": _NAMESPACES,
        "configuration": Structure(
            {
                "extraction": union(
                    customExtractionConfiguration=Structure(
                        {"semanticExtractionOverride": _PROMPT, "userPreferenceExtractionOverride": _PROMPT},
                        union=True,
                        unsupported={"episodicExtractionOverride": _NO_EPISODES},
                    )
                ),
                "consolidation": union(
                    customConsolidationConfiguration=Structure(
                        {
                            "semanticConsolidationOverride": _PROMPT,
                            "summaryConsolidationOverride": _PROMPT,
                            "userPreferenceConsolidationOverride": _PROMPT,
                        },
                        union=True,
                        unsupported={"episodicConsolidationOverride": _NO_EPISODES},
                    )
                ),
            },
            unsupported={"reflection": _NO_EPISODES, "selfManagedConfiguration": _NO_SELF_MANAGED},
        ),
        "recordExpirySpecification": _EXPIRY,
    },
    ("memoryStrategyId",),
    unsupported=_NO_SCHEMA,
)

CREATE_MEMORY = Operation(
    "CreateMemory",
    "POST",
    "/memories/create",
    Structure(
        {
            "clientToken": _TOKEN,
            "name": NAME,
            "description": _DESCRIPTION,
            "memoryExecutionRoleArn": _ARN,
            "eventExpiryDuration": _DAYS,
            "memoryStrategies": Listing(STRATEGY),
            "indexedKeys": _INDEXED_KEYS,
            "tags": Dictionary(Text(1, 128, _CHARACTERS), Text(0, 256, _CHARACTERS), 0, 50),
        },
        ("name", "eventExpiryDuration"),
        unsupported={
            "encryptionKeyArn": _NO_KEY,
            "namespaceKeys": _NO_NAMESPACE_KEYS,
            "streamDeliveryResources": _NO_STREAM,
        },
    ),
    status=202,
)
GET_MEMORY = Operation(
    "GetMemory",
    "GET",
    "/memories/{memoryId}/details",
    Structure({"memoryId": MEMORY_ID, "view": Text(choices=("full", "without_decryption"))}, ("memoryId",)),
    query=("view",),
)
LIST_MEMORIES = Operation(
    "ListMemories",
    "POST",
    "/memories",
    Structure({"maxResults": Whole(1, 100), "nextToken": Text()}),
)
UPDATE_MEMORY = Operation(
    "UpdateMemory",
    "PUT",
    "/memories/{memoryId}/update",
    Structure(
        {
            "clientToken": _TOKEN,
            "memoryId": MEMORY_ID,
            "description": _DESCRIPTION,
            "eventExpiryDuration": _DAYS,
            "memoryExecutionRoleArn": _ARN,
            "memoryStrategies": Structure(
                {
                    "addMemoryStrategies": Listing(STRATEGY),
                    "modifyMemoryStrategies": Listing(_MODIFIED_STRATEGY),
                    "deleteMemoryStrategies": Listing(Structure({"memoryStrategyId": Text()}, ("memoryStrategyId",))),
                }
            ),
            "addIndexedKeys": _INDEXED_KEYS,
        },
        ("memoryId",),
        unsupported={"namespaceKeys": _NO_NAMESPACE_KEYS, "streamDeliveryResources": _NO_STREAM},
    ),
    status=202,
)
DELETE_MEMORY = Operation(
    "DeleteMemory",
    "DELETE",
    "/memories/{memoryId}/delete",
    Structure({"memoryId": MEMORY_ID, "clientToken": _TOKEN}, ("memoryId",)),
    query=("clientToken",),
    status=202,
)

OPERATIONS = (CREATE_MEMORY, GET_MEMORY, LIST_MEMORIES, UPDATE_MEMORY, DELETE_MEMORY)
