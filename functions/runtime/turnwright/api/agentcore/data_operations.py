"""The operations of `bedrock-agentcore` on memory: their routes and the shapes of their requests.

Source: botocore's service model, with which a test compares all of it.
"""

from turnwright.api.agentcore.operations import Operation
from turnwright.api.agentcore.shapes import (
    Dictionary,
    Document,
    Flag,
    Listing,
    Moment,
    Real,
    Shape,
    Structure,
    Text,
    Whole,
    union,
)

TEXT_CHARACTERS = 100_000
"""The longest text of a conversational payload."""
RECORD_CHARACTERS = 16_000
"""The longest text of a record; its bytes are bound too, see `agents/memory_configuration.py`."""

MEMORY_ID = Text(
    12,
    None,
    r"(arn:(aws|aws-cn|aws-us-gov):bedrock-agentcore:[a-z0-9-]+:[0-9]{12}:memory/)?"
    r"[a-zA-Z][a-zA-Z0-9-_]{0,99}-[a-zA-Z0-9]{10}",
)
ACTOR_ID = Text(1, 255, r"[a-zA-Z0-9][a-zA-Z0-9-_/]*(?::[a-zA-Z0-9-_/]+)*[a-zA-Z0-9-_/]*")
SESSION_ID = Text(1, 100, r"[a-zA-Z0-9][a-zA-Z0-9-_]*")
EVENT_ID = Text(pattern=r"[0-9]+#[a-fA-F0-9]+")
BRANCH_NAME = Text(1, 100, r"[a-zA-Z0-9][a-zA-Z0-9-_]*")
RECORD_ID = Text(40, 50, r"mem-[a-zA-Z0-9-_]*")
STRATEGY_ID = Text(1, 100, r"[a-zA-Z0-9][a-zA-Z0-9-_]*")
NAMESPACE = Text(1, 1024, r"[a-zA-Z0-9/*][a-zA-Z0-9-_/*]*(?::[a-zA-Z0-9-_/*]+)*[a-zA-Z0-9-_/*]*")
MAX_RESULTS = Whole(1, 100)

_CHARACTERS = r"[a-zA-Z0-9\s._:/=+@-]*"
_METADATA_KEY = Text(1, 128, _CHARACTERS)
_EVENT_METADATA_VALUE = union(stringValue=Text(0, 256, _CHARACTERS))
_RECORD_METADATA_VALUE = union(
    stringValue=Text(1, 256, _CHARACTERS),
    stringListValue=Listing(Text(1, 64, _CHARACTERS), 1, 5),
    numberValue=Real(),
    dateTimeValue=Moment(),
)
_RECORD_METADATA = Dictionary(_METADATA_KEY, _RECORD_METADATA_VALUE, 1, 20)
_NAMESPACES = Listing(NAMESPACE, 0, 1)
_CONTENT = union(text=Text(1, RECORD_CHARACTERS))
_EXPIRY = union(recordExpiryDurationDays=Whole(31), action=Text(choices=("REMOVE",)))

_PAYLOAD = union(
    conversational=Structure(
        {
            "content": union(text=Text(1, TEXT_CHARACTERS)),
            "role": Text(choices=("ASSISTANT", "USER", "TOOL", "OTHER")),
        },
        ("content", "role"),
    ),
    blob=Document(),
    json=Structure({"content": Document()}, ("content",)),
)

_EVENT_FILTER = Structure(
    {
        "branch": Structure({"name": BRANCH_NAME, "includeParentBranches": Flag()}, ("name",)),
        "eventMetadata": Listing(
            Structure(
                {
                    "left": union(metadataKey=_METADATA_KEY),
                    "operator": Text(choices=("EQUALS_TO", "EXISTS", "NOT_EXISTS")),
                    "right": union(metadataValue=_EVENT_METADATA_VALUE),
                },
                ("left", "operator"),
            ),
            1,
            5,
        ),
    }
)

_RECORD_FILTERS = Listing(
    Structure(
        {
            "left": union(metadataKey=_METADATA_KEY),
            "operator": Text(
                choices=(
                    "EQUALS_TO",
                    "EXISTS",
                    "NOT_EXISTS",
                    "BEFORE",
                    "AFTER",
                    "CONTAINS",
                    "GREATER_THAN",
                    "GREATER_THAN_OR_EQUALS",
                    "LESS_THAN",
                    "LESS_THAN_OR_EQUALS",
                )
            ),
            "right": union(metadataValue=_RECORD_METADATA_VALUE),
        },
        ("left", "operator"),
    ),
    1,
    5,
)

_OF_SESSION: dict[str, Shape] = {"memoryId": MEMORY_ID, "actorId": ACTOR_ID, "sessionId": SESSION_ID}
_PAGE: dict[str, Shape] = {"maxResults": MAX_RESULTS, "nextToken": Text()}
_SESSION_PATH = "/memories/{memoryId}/actor/{actorId}/sessions/{sessionId}"

CREATE_EVENT = Operation(
    "CreateEvent",
    "POST",
    "/memories/{memoryId}/events",
    Structure(
        {
            **_OF_SESSION,
            "eventTimestamp": Moment(),
            "payload": Listing(_PAYLOAD, 0, 100),
            "branch": Structure({"rootEventId": EVENT_ID, "name": BRANCH_NAME}, ("name",)),
            "clientToken": Text(),
            "metadata": Dictionary(_METADATA_KEY, _EVENT_METADATA_VALUE, 0, 15),
            "extractionMode": Text(choices=("SKIP",)),
        },
        ("memoryId", "actorId", "eventTimestamp", "payload"),
        unsupported={
            "extractionConfig": "is not supported: namespaces have no variables but {actorId}, {sessionId} and "
            "{memoryStrategyId}"
        },
    ),
    status=201,
)
GET_EVENT = Operation(
    "GetEvent",
    "GET",
    _SESSION_PATH + "/events/{eventId}",
    Structure({**_OF_SESSION, "eventId": EVENT_ID}, ("memoryId", "sessionId", "actorId", "eventId")),
)
DELETE_EVENT = Operation(
    "DeleteEvent",
    "DELETE",
    _SESSION_PATH + "/events/{eventId}",
    Structure({**_OF_SESSION, "eventId": EVENT_ID}, ("memoryId", "sessionId", "eventId", "actorId")),
)
LIST_EVENTS = Operation(
    "ListEvents",
    "POST",
    _SESSION_PATH,
    Structure(
        {**_OF_SESSION, "includePayloads": Flag(), "filter": _EVENT_FILTER, **_PAGE},
        ("memoryId", "sessionId", "actorId"),
    ),
)
LIST_SESSIONS = Operation(
    "ListSessions",
    "POST",
    "/memories/{memoryId}/actor/{actorId}/sessions",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "actorId": ACTOR_ID,
            "filter": Structure({"eventFilter": Text(choices=("HAS_EVENTS",))}),
            **_PAGE,
        },
        ("memoryId", "actorId"),
    ),
)
LIST_ACTORS = Operation(
    "ListActors",
    "POST",
    "/memories/{memoryId}/actors",
    Structure({"memoryId": MEMORY_ID, **_PAGE}, ("memoryId",)),
)

RETRIEVE_RECORDS = Operation(
    "RetrieveMemoryRecords",
    "POST",
    "/memories/{memoryId}/retrieve",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "namespace": NAMESPACE,
            "namespacePath": NAMESPACE,
            "searchCriteria": Structure(
                {
                    "searchQuery": Text(1, 10_000),
                    "memoryStrategyId": STRATEGY_ID,
                    "topK": Whole(1, 100),
                    "metadataFilters": _RECORD_FILTERS,
                },
                ("searchQuery",),
            ),
            **_PAGE,
        },
        ("memoryId", "searchCriteria"),
    ),
)
LIST_RECORDS = Operation(
    "ListMemoryRecords",
    "POST",
    "/memories/{memoryId}/memoryRecords",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "namespace": NAMESPACE,
            "namespacePath": NAMESPACE,
            "memoryStrategyId": STRATEGY_ID,
            "metadataFilters": _RECORD_FILTERS,
            **_PAGE,
        },
        ("memoryId",),
    ),
)
_ONE_RECORD = Structure(
    {"memoryId": MEMORY_ID, "memoryRecordId": RECORD_ID, "namespace": NAMESPACE}, ("memoryId", "memoryRecordId")
)
GET_RECORD = Operation(
    "GetMemoryRecord",
    "GET",
    "/memories/{memoryId}/memoryRecord/{memoryRecordId}",
    _ONE_RECORD,
    query=("namespace",),
)
DELETE_RECORD = Operation(
    "DeleteMemoryRecord",
    "DELETE",
    "/memories/{memoryId}/memoryRecords/{memoryRecordId}",
    _ONE_RECORD,
    query=("namespace",),
)
BATCH_CREATE = Operation(
    "BatchCreateMemoryRecords",
    "POST",
    "/memories/{memoryId}/memoryRecords/batchCreate",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "records": Listing(
                Structure(
                    {
                        "requestIdentifier": Text(1, 80, r"[a-zA-Z0-9_-]+"),
                        "namespaces": _NAMESPACES,
                        "content": _CONTENT,
                        "timestamp": Moment(),
                        "memoryStrategyId": STRATEGY_ID,
                        "metadata": _RECORD_METADATA,
                    },
                    ("requestIdentifier", "namespaces", "content", "timestamp"),
                ),
                0,
                100,
            ),
            "clientToken": Text(),
            "recordExpirySpecification": _EXPIRY,
        },
        ("memoryId", "records"),
    ),
    status=201,
)
BATCH_UPDATE = Operation(
    "BatchUpdateMemoryRecords",
    "POST",
    "/memories/{memoryId}/memoryRecords/batchUpdate",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "records": Listing(
                Structure(
                    {
                        "memoryRecordId": RECORD_ID,
                        "timestamp": Moment(),
                        "content": _CONTENT,
                        "namespaces": _NAMESPACES,
                        "sourceNamespaces": _NAMESPACES,
                        "memoryStrategyId": STRATEGY_ID,
                        "metadata": _RECORD_METADATA,
                    },
                    ("memoryRecordId", "timestamp"),
                ),
                0,
                100,
            ),
            "recordExpirySpecification": _EXPIRY,
        },
        ("memoryId", "records"),
    ),
)
BATCH_DELETE = Operation(
    "BatchDeleteMemoryRecords",
    "POST",
    "/memories/{memoryId}/memoryRecords/batchDelete",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "records": Listing(
                Structure({"memoryRecordId": RECORD_ID, "namespace": NAMESPACE}, ("memoryRecordId",)), 0, 100
            ),
        },
        ("memoryId", "records"),
    ),
)
LIST_EXTRACTION_JOBS = Operation(
    "ListMemoryExtractionJobs",
    "POST",
    "/memories/{memoryId}/extractionJobs",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "maxResults": Whole(1, 50),
            "filter": Structure(
                {"strategyId": Text(), "sessionId": Text(), "actorId": Text(), "status": Text(choices=("FAILED",))}
            ),
            "nextToken": Text(),
        },
        ("memoryId",),
    ),
)
START_EXTRACTION_JOB = Operation(
    "StartMemoryExtractionJob",
    "POST",
    "/memories/{memoryId}/extractionJobs/start",
    Structure(
        {
            "memoryId": MEMORY_ID,
            "extractionJob": Structure({"jobId": Text()}, ("jobId",)),
            "clientToken": Text(),
        },
        ("memoryId", "extractionJob"),
    ),
)

OPERATIONS = (
    CREATE_EVENT,
    GET_EVENT,
    LIST_EVENTS,
    DELETE_EVENT,
    LIST_SESSIONS,
    LIST_ACTORS,
    RETRIEVE_RECORDS,
    LIST_RECORDS,
    GET_RECORD,
    DELETE_RECORD,
    BATCH_CREATE,
    BATCH_UPDATE,
    BATCH_DELETE,
    LIST_EXTRACTION_JOBS,
    START_EXTRACTION_JOB,
)
