"""What the states of a consolidation work with: what they read, whom they ask, and where each answer is recorded."""

from collections.abc import Mapping, Sequence

from turnwright.agents import memory_tool_schemas
from turnwright.agents.memory_configuration import SUMMARY, MemoryConfiguration, SummaryStyle
from turnwright.agents.versions import load
from turnwright.memory.consolidation import extraction, summarizing
from turnwright.memory.consolidation.consolidation_journal import ConsolidationJournal, Entry
from turnwright.memory.consolidation.session_events import SessionEvents
from turnwright.memory.records.records import Records
from turnwright.memory.records.store_configuration import configuration_of
from turnwright.memory.session_ends.consolidations import Consolidation, Kind
from turnwright.models.asking import BrokenAnswer, ask
from turnwright.storage.documents import Documents
from turnwright.storage.table import Table
from turnwright.tracing.traces import Traces

_PLAIN: Mapping[str, SummaryStyle] = {SUMMARY: SummaryStyle()}


class Consolidating:
    """The work of one consolidation, as each of its states sees it."""

    def __init__(self, table: Table, documents: Documents, consolidation: Consolidation) -> None:
        self.table = table
        self.consolidation = consolidation
        self.journal = ConsolidationJournal(table, documents, consolidation)
        self.events = SessionEvents(table, documents, consolidation.session)
        self.records = Records(table)
        self.traces = Traces(consolidation.source)

    def configuration(self) -> MemoryConfiguration:
        consolidation = self.consolidation
        return configuration_of(
            self.table, consolidation.memoryStore, consolidation.agentId, consolidation.agentVersion
        )

    def styles(self, configuration: MemoryConfiguration) -> Mapping[str, SummaryStyle]:
        """A digest has one style: it is for the agent itself."""
        return configuration.summary_styles if self.consolidation.kind is Kind.SESSION_END else _PLAIN

    def memory_tools(self) -> list[str]:
        """The names of the memory tools, but for those by which the agent calls tools of its own."""
        consolidation = self.consolidation
        if not consolidation.agentId:
            return list(memory_tool_schemas.NAMES)
        agent = load(self.table, consolidation.agentId, consolidation.agentVersion)
        own = {tool.name for tool in agent.tools if not tool.is_memory}
        return [name for name in memory_tool_schemas.NAMES if name not in own]

    def summarized(self, configuration: MemoryConfiguration, style: SummaryStyle, data: str, attempt: int) -> Entry:
        models = configuration.models_from(style.model)
        return asked_for_text(models, attempt, summarizing.summary_rules(style.prompt), data, "summary", self.traces)


def asked_for_text(models: Sequence[str], attempt: int, system: str, data: str, field: str, traces: Traces) -> Entry:
    form = summarizing.digest_form() if field == "digest" else summarizing.summary_form()
    try:
        answer = ask(models, attempt, system, data, form, traces)
    except BrokenAnswer as broken:
        return {"broken": str(broken)}
    return {"text": answer.value[field].strip(), "promptVersion": extraction.version_of(system, form)}
