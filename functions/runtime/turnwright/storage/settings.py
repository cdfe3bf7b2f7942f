"""The environment, read in one place, when it is first needed."""

import os
from dataclasses import dataclass
from functools import cache


class MissingSetting(Exception):
    """An environment variable that the function needs is not set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Names and addresses that the template gives to a function. Each property says which variable it reads."""

    environment: dict[str, str]

    @property
    def table_name(self) -> str:
        return self._required("TABLE_NAME")

    @property
    def bucket_name(self) -> str:
        return self._required("BUCKET_NAME")

    @property
    def state_machine_arn(self) -> str:
        return self._required("STATE_MACHINE_ARN")

    @property
    def erase_memory_state_machine_arn(self) -> str:
        return self._required("ERASE_MEMORY_STATE_MACHINE_ARN")

    @property
    def consolidation_state_machine_arn(self) -> str:
        return self._required("CONSOLIDATE_STATE_MACHINE_ARN")

    @property
    def failure_recorders(self) -> dict[str, str]:
        """The functions that record the failures of executions, by the ARN of their state machine."""
        return {
            self.state_machine_arn: self._required("RECORD_FAILURE_FUNCTION"),
            self.consolidation_state_machine_arn: self._required("RECORD_CONSOLIDATION_FAILURE_FUNCTION"),
            self.erase_memory_state_machine_arn: self._required("RECORD_ERASURE_FAILURE_FUNCTION"),
        }

    @property
    def dead_letter_queue_url(self) -> str:
        return self._required("DEAD_LETTER_QUEUE_URL")

    @property
    def tool_dead_letter_queue_url(self) -> str:
        return self._required("TOOL_DEAD_LETTER_QUEUE_URL")

    @property
    def agent_files_directory(self) -> str:
        return self._required("AGENT_FILES_DIRECTORY")

    @property
    def memory_models(self) -> tuple[str, ...]:
        """The models that extract for the stores that CreateMemory makes, in order."""
        return tuple(filter(None, self._required("MEMORY_MODEL_IDS").split(",")))

    @property
    def memory_embedding_model(self) -> str | None:
        """The embedding model of the stores that CreateMemory makes; without one search is lexical."""
        return self.environment.get("MEMORY_EMBEDDING_MODEL_ID") or None

    @property
    def streams_responses(self) -> bool:
        """Whether the function's own runtime loop streams its answers (`streaming_runtime.py`)."""
        return "AWS_LAMBDA_EXEC_WRAPPER" in self.environment

    @property
    def trace_header(self) -> str | None:
        """The X-Ray trace header of the running invocation; the Lambda runtime puts it there anew for each."""
        return os.environ.get("_X_AMZN_TRACE_ID") or None

    @property
    def trace_id(self) -> str:
        """The X-Ray trace id of the invocation, such as `1-67891233-abcdef012345678912345678`; "" without one."""
        parts = (part.partition("=") for part in (self.trace_header or "").split(";"))
        return next((value for name, _, value in parts if name == "Root"), "")

    @property
    def service(self) -> str:
        """Whose metrics these are: the stack's name."""
        return self.environment.get("POWERTOOLS_SERVICE_NAME") or "turnwright"

    @property
    def memory_mb(self) -> int:
        """How much memory Lambda gives the function; 0 outside of Lambda."""
        return int(self.environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or 0)

    @property
    def trace_payloads(self) -> str:
        """How much of what was said is written where operators read it (`tracing/payloads.py`); "" for all of it."""
        return self.environment.get("TRACE_PAYLOADS", "")

    @property
    def trace_redact_fields(self) -> str:
        return self.environment.get("TRACE_REDACT_FIELDS", "")

    @property
    def trace_redact_patterns(self) -> str:
        return self.environment.get("TRACE_REDACT_PATTERNS", "")

    def _required(self, name: str) -> str:
        value = self.environment.get(name)
        if not value:
            raise MissingSetting(f"the environment variable {name} is not set; template.yaml sets it")
        return value


@cache
def settings() -> Settings:
    return Settings(dict(os.environ))
