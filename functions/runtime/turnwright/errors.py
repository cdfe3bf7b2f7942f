"""The exceptions of the runtime.

Their class names are an interface: the state machine's Retry and Catch match them, the front door answers by them, and
dashboards count them. None may begin with `States.`.

TurnwrightError
├── TurnRefused               the turn never began; the caller is told, nothing is dead-lettered
│   ├── SessionBusy           another turn runs in the session
│   ├── ActorErased           the actor's memory is being erased, or was since this began
│   └── TurnAlreadyEnded      a late repeat of a turn that is committed or has failed
├── TurnFailed                fails the execution where it happened; redrive resumes there
│   ├── LeaseLost             the session went on without this turn, which therefore must not commit
│   ├── ModelsExhausted       every model failed
│   │   └── ModelsThrottled   ... and the last try was throttled
│   └── ToolFailedTurn        the tool's policy says that its failure fails the turn
├── ModelError                one model call failed
│   ├── ModelThrottled        retried with back-off, then the next model is used
│   ├── ModelUnavailable      retried, then the next model is used
│   └── ModelRejected         this model will not take this request: the next model is used at once
│       └── ModelAccessDenied ... nor any other, until somebody gives access to it: this is an alarm
├── ToolAttemptFailed         one attempt of a tool call failed; the message is JSON that Retry Tool? reads
├── GatewayFault              an AWS service that the gateway needs failed: the result is looked up, not made again
├── RecordsChanged            a consolidation's namespace was written to by others: its merge is made again
│   └── RecordsKeepChanging   ... too often: the execution fails, and a redrive goes on
├── StorageUnavailable        DynamoDB, S3, SQS or Step Functions throttles or cannot be reached: try again
├── CommitConflict            another transaction was at the same items: try again
├── NotAllDeleted             S3 left some of what it was told to delete: try again
├── StoreNotDeleting          an erasure was asked for of a store that nobody has deleted
├── InvalidRequest            the caller's input breaks a rule
├── NotFound                  the caller named something that is not there
│   ├── AgentNotFound
│   ├── AliasNotFound
│   └── TurnNotFound          ... or it is another caller's
├── TraceNotEnabled           the turn's trace was not asked for, so it was not kept
├── Refusal                   what AgentCore's API answers, in its own names: `api/agentcore/refusals.py`
└── UnknownSchemaVersion      a stored item is of a release that this one cannot read
"""


class TurnwrightError(Exception):
    pass


class TurnRefused(TurnwrightError):
    pass


class SessionBusy(TurnRefused):
    pass


class ActorErased(TurnRefused):
    pass


class TurnAlreadyEnded(TurnRefused):
    pass


class TurnFailed(TurnwrightError):
    pass


class LeaseLost(TurnFailed):
    pass


class ModelsExhausted(TurnFailed):
    pass


class ModelsThrottled(ModelsExhausted):
    pass


class ToolFailedTurn(TurnFailed):
    pass


class ModelError(TurnwrightError):
    pass


class ModelThrottled(ModelError):
    pass


class ModelUnavailable(ModelError):
    pass


class ModelRejected(ModelError):
    pass


class ModelAccessDenied(ModelRejected):
    pass


class ToolAttemptFailed(TurnwrightError):
    pass


class GatewayFault(TurnwrightError):
    pass


class RecordsChanged(TurnwrightError):
    pass


class RecordsKeepChanging(RecordsChanged):
    pass


class StorageUnavailable(TurnwrightError):
    """`throttled` says that the service was reached, and takes no more for now."""

    def __init__(self, message: str, *, throttled: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled


class CommitConflict(TurnwrightError):
    pass


class NotAllDeleted(TurnwrightError):
    pass


class StoreNotDeleting(TurnwrightError):
    pass


class InvalidRequest(TurnwrightError):
    """`field` names what is wrong, in the wire's own spelling."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field


class NotFound(TurnwrightError):
    pass


class AgentNotFound(NotFound):
    pass


class AliasNotFound(NotFound):
    pass


class TurnNotFound(NotFound):
    pass


class TraceNotEnabled(TurnwrightError):
    pass


class UnknownSchemaVersion(TurnwrightError):
    pass
