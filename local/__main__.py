"""The offline stack on the command line: `python -m local up`, and what looks into a running one.

A mistake of the person who calls it is one line on stderr and exit status 1.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from local.terminal.colours import Paint, paint_for

AWS_URL = "http://127.0.0.1:3001"

_FOLLOW_SECONDS = 0.5
_HEED_SECONDS = 0.5
_LONGEST_FUNCTION_SECONDS = 910
_CREDENTIALS = {"aws_access_key_id": "offline", "aws_secret_access_key": "offline"}


class UsageError(Exception):
    """Something that the caller can put right. The message is one line."""


# The Bedrock endpoint writes event streams with the runtime's own module. `make` sets PYTHONPATH; not all use make.
_RUNTIME = str(Path(__file__).resolve().parent.parent / "functions" / "runtime")
if _RUNTIME not in sys.path:
    sys.path.append(_RUNTIME)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except KeyboardInterrupt:
        return 0
    except UsageError as error:
        print(f"turnwright: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description="The offline stack.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="serve template.yaml on 127.0.0.1 until Ctrl-C")
    up.add_argument("--port", type=_port, default=3000, help="of the API; 0 takes a free one (default %(default)s)")
    up.add_argument("--aws-port", type=_port, default=3001, help="of AWS itself (default %(default)s)")
    _add_model(up)
    up.add_argument("--template", type=Path, help="another template than template.yaml")
    up.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a template parameter; repeatable"
    )
    _add_faults(up)
    shown = up.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="do not show the functions' logs")
    shown.add_argument("--verbose", action="store_true", help="show all that the runtime logs, not one line a turn")
    up.set_defaults(command=_up)

    logs = commands.add_parser("logs", help="show what the functions of a running stack logged")
    logs.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("--since", type=float, default=None, metavar="MINUTES", help="only the last minutes")
    _add_aws_url(logs)
    logs.set_defaults(command=_logs)

    describe = commands.add_parser("describe", help="show an execution: input, output, states")
    describe.add_argument("execution", help="its name (a turn's id), ARN, a unique beginning, or `last`")
    _add_aws_url(describe)
    describe.set_defaults(command=_describe)

    history = commands.add_parser("history", help="list executions, or show the states of one")
    history.add_argument("execution", nargs="?", help="as for describe")
    history.add_argument("--limit", type=int, default=20, help="list at most so many (default %(default)s)")
    _add_aws_url(history)
    history.set_defaults(command=_history)

    dead_letters = commands.add_parser(
        "dead-letters", help="show failed turns, consolidations and erasures and given up tool calls, or send one again"
    )
    dead_letters.add_argument("--queue", choices=["turns", "tools"], help="only this queue (default both)")
    dead_letters.add_argument(
        "--send-again",
        metavar="TURN_OR_KEY",
        help="a tool call (its idempotency key) with the same event, the request of a turn (its id) as a new turn, "
        "a consolidation or an erasure (its id); a unique beginning is enough",
    )
    dead_letters.add_argument("--json", action="store_true", help="show everything that the letters hold")
    _add_aws_url(dead_letters)
    dead_letters.set_defaults(command=_dead_letters)

    memory = commands.add_parser("memory", help="show what is remembered of an actor, export it, or erase it")
    memory.add_argument("actor", help="the memoryId of its turns, the actorId of AgentCore Memory")
    memory.add_argument("--store", help="the memory store; needed only if several know the actor")
    memory_does = memory.add_mutually_exclusive_group()
    memory_does.add_argument("--json", action="store_true", help="show it as JSON, with all fields")
    memory_does.add_argument("--export", action="store_true", help="write every item and object as JSON lines")
    memory_does.add_argument("--erase", action="store_true", help="erase all of it, and wait until nothing is left")
    _add_aws_url(memory)
    memory.set_defaults(command=_memory)

    receipts = commands.add_parser("receipts", help="add up what turns cost: of an agent, an actor, a session")
    receipts.add_argument("--agent", required=True, help="the agent's id")
    receipts.add_argument("--store", help="the memory store, if it is not the agent's own")
    receipts.add_argument("--actor", help="the memoryId of the turns; without one, and with --session, turns without")
    receipts.add_argument("--session", help="the session's id")
    receipts.add_argument("--json", action="store_true", help="all receipts and their total")
    _add_aws_url(receipts)
    receipts.set_defaults(command=_receipts)

    trace = commands.add_parser(
        "trace", help="show what a turn, or all turns of a session, did: each model and tool call"
    )
    trace.add_argument(
        "named", metavar="TURN_OR_SESSION", help="a turn's id, a unique beginning, `last`, or a session's"
    )
    trace.add_argument("--json", action="store_true", help="the events with everything that they hold")
    _add_aws_url(trace)
    trace.set_defaults(command=_trace)

    demo = commands.add_parser("demo", help="hold a short conversation with the banking agent")
    _add_model(demo)
    _add_faults(demo)
    demo.set_defaults(command=_demo)

    bench = commands.add_parser("bench", help="count transitions, requests, units, bytes and milliseconds")
    bench.set_defaults(command=_bench)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="rule",
        help="rule (not an LLM), script:FILE, openai:URL#MODEL[#EMBEDDING_MODEL] or bedrock[:PROFILE] "
        "(default %(default)s)",
    )


def _add_faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--faults", type=Path, metavar="FILE", help="make functions fail as the file says (events/faults has some)"
    )


def _add_aws_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--aws-url", help="where the running stack's AWS is (default: of the only one that runs here)")


def _up(options: argparse.Namespace) -> int:
    from local.stack import TEMPLATE, LocalStack, LocalStackOptions, StackError

    stack_options = LocalStackOptions(
        port=options.port,
        aws_port=options.aws_port,
        model=options.model,
        template=options.template or TEMPLATE,
        parameters=_parameters(options.parameter),
        faults=options.faults,
        quiet=options.quiet,
        verbose=options.verbose,
    )
    _heed_signals()
    try:
        with LocalStack(stack_options) as stack, _noted(stack.aws_url):
            print(_about_model(options.model, stack.model.name))
            print(f"console {stack.console_url}")
            print(f"aws {stack.aws_url}")
            print(f"ready {stack.url}", flush=True)
            while True:  # a signal that another thread was given does not end this one's sleep
                time.sleep(_HEED_SECONDS)
    except StackError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _noted(aws_url: str) -> Iterator[None]:
    from local.running_stacks import noted

    with ExitStack() as entered:
        try:
            entered.enter_context(noted(aws_url))
        except OSError as error:
            print(f"turnwright: commands need --aws-url {aws_url} to find this stack ({error})", file=sys.stderr)
        yield


def _about_model(option: str, name: str) -> str:
    if option == "rule":
        return "model rule: matches words to tools, it is not an LLM (--model names the others)"
    return f"model {name}"


def _demo(options: argparse.Namespace) -> int:
    from local.demo import demo
    from local.stack import StackError

    _heed_signals()
    try:
        return demo.run(options.model, Path(__file__).resolve().parent.parent / "events", options.faults)
    except (StackError, demo.DemoFailed) as error:
        raise UsageError(str(error)) from error


def _bench(_: argparse.Namespace) -> int:
    from local.bench import bench

    _heed_signals()
    status: int = bench.run()
    return status


def _logs(options: argparse.Namespace) -> int:
    from local.aws.log_delivery import is_metrics, readable, render

    client = _client(options, "logs")
    paint = paint_for(sys.stdout)
    since = 0 if options.since is None else int((time.time() - options.since * 60) * 1000)
    seen: set[str] = set()
    while True:
        for event in sorted(_log_events(client, since), key=lambda event: event["timestamp"]):
            if event["eventId"] in seen:
                continue
            seen.add(event["eventId"])
            since = max(since, event["timestamp"])
            if is_metrics(event["message"]):
                continue
            name = _function_of(event["logStreamName"])
            print(render(readable(event["message"], name, event["timestamp"] / 1000), paint), flush=True)
        if not options.follow:
            return 0
        time.sleep(_FOLLOW_SECONDS)


def _log_events(client: Any, since_ms: int) -> Iterator[Mapping[str, Any]]:
    with _RunningStack():
        for groups in client.get_paginator("describe_log_groups").paginate():
            for group in groups["logGroups"]:
                pages = client.get_paginator("filter_log_events").paginate(
                    logGroupName=group["logGroupName"], startTime=since_ms
                )
                for page in pages:
                    yield from page["events"]


def _function_of(log_stream: str) -> str:
    from local.aws.log_delivery import short_name
    from local.stack import STACK_NAME

    return short_name(log_stream.rpartition("/")[2].partition("[")[0], STACK_NAME)


def _describe(options: argparse.Namespace) -> int:
    from local.commands.executions import render_execution

    paint = paint_for(sys.stdout)
    execution = _execution(options)
    print(render_execution(execution, paint))
    for label, document in (("input", execution.input), ("output", execution.output)):
        if document is not None:
            print(f"{paint(label, 'bold')} {json.dumps(document, indent=2, ensure_ascii=False)}")
    return 0


def _history(options: argparse.Namespace) -> int:
    from local.commands.executions import list_executions, render_execution, render_executions

    paint: Paint = paint_for(sys.stdout)
    if options.execution:
        print(render_execution(_execution(options), paint))
        return 0
    with _RunningStack():
        print(render_executions(list_executions(_client(options, "stepfunctions"), options.limit), paint))
    return 0


def _execution(options: argparse.Namespace) -> Any:
    from local.commands.executions import UnknownExecution, find_execution, list_executions, read_execution

    client = _client(options, "stepfunctions")
    with _RunningStack():
        try:
            named = options.execution
            if named == "last":
                newest = list_executions(client, 1)
                if not newest:
                    raise UsageError("there is no execution yet")
                named = newest[0]["executionArn"]
            return read_execution(client, find_execution(client, named))
        except UnknownExecution as error:
            raise UsageError(str(error)) from error


def _receipts(options: argparse.Namespace) -> int:
    from local.commands.receipts import ReceiptReader, render
    from turnwright.costs.receipts import added
    from turnwright.errors import NotFound
    from turnwright.storage.table import Table

    with _RunningStack():
        physical_id = _physical_ids(options)
        reader = ReceiptReader(Table(_client(options, "dynamodb"), physical_id("Table")))
        try:
            if options.actor or options.session:
                found = reader.owned(options.agent, options.store, options.actor, options.session)
            else:
                found = reader.logged(_client(options, "logs"), physical_id("RuntimeLogGroup"), options.agent)
        except NotFound as error:
            raise UsageError(str(error)) from error
    print(json.dumps({"receipts": found, "total": added(found)}, indent=2) if options.json else render(found))
    return 0


def _trace(options: argparse.Namespace) -> int:
    from local.commands.turn_traces import NoTrace, TraceReader
    from local.terminal import trace_rows
    from turnwright.storage.documents import Documents
    from turnwright.storage.table import Table

    with _RunningStack():
        physical_id = _physical_ids(options)
        reader = TraceReader(
            _client(options, "logs"),
            physical_id("RuntimeLogGroup"),
            Table(_client(options, "dynamodb"), physical_id("Table")),
            Documents(_client(options, "s3"), physical_id("Bucket")),
        )
        try:
            events = reader.read(options.named)
        except NoTrace as error:
            raise UsageError(str(error)) from error
    if options.json:
        print(json.dumps(events, indent=2, ensure_ascii=False))
    else:
        print(trace_rows.render(events, paint_for(sys.stdout)))
    return 0


def _dead_letters(options: argparse.Namespace) -> int:
    from local.commands import dead_letters
    from turnwright.storage.documents import Documents
    from turnwright.storage.table import Table

    physical_id, sqs = _physical_ids(options), _client(options, "sqs")
    queues = [options.queue] if options.queue else dead_letters.QUEUES
    with _RunningStack():
        urls = {queue: physical_id(dead_letters.LOGICAL_IDS[queue]) for queue in queues}
        with dead_letters.held(sqs, urls) as letters:
            if options.send_again is None:
                print(
                    dead_letters.as_json(letters)
                    if options.json
                    else dead_letters.render(letters, paint_for(sys.stdout))
                )
                return 0
            try:
                copies = dead_letters.choose(letters, options.send_again)
                sender = dead_letters.Sender(
                    sqs,
                    _client(options, "lambda", read_timeout=_LONGEST_FUNCTION_SECONDS),
                    _client(options, "stepfunctions"),
                    Table(_client(options, "dynamodb"), physical_id("Table")),
                    Documents(_client(options, "s3"), physical_id("Bucket")),
                )
                sent = sender.send_again(copies, urls[copies[0].queue])
            except dead_letters.NotSentAgain as error:
                raise UsageError(str(error)) from error
    if sent.answer is not None:
        print(sent.answer)
    print(sent.summary)
    return 0


def _memory(options: argparse.Namespace) -> int:
    from uuid import uuid4

    from local.commands import memory
    from turnwright.memory.erasure.erasures import Erasures
    from turnwright.storage.documents import Documents
    from turnwright.storage.table import Table

    with _RunningStack():
        physical_id = _physical_ids(options)
        table = Table(_client(options, "dynamodb"), physical_id("Table"))
        documents = Documents(_client(options, "s3"), physical_id("Bucket"))
        actor = options.actor
        try:
            store = memory.store_of(table, actor, options.store)
            if options.export:
                for line in memory.exported(table, documents, store, actor):
                    print(line)
            elif options.erase:
                machine = physical_id("EraseMemoryStateMachine")
                erasures = Erasures(_client(options, "stepfunctions"), machine, str(uuid4()))
                print(memory.erase(table, documents, erasures, store, actor))
            else:
                found = memory.read(table, documents, store, actor)
                print(memory.as_json(found) if options.json else memory.render(found, paint_for(sys.stdout)))
        except (memory.NoMemory, memory.NotErased) as error:
            raise UsageError(str(error)) from error
    return 0


def _physical_ids(options: argparse.Namespace) -> Callable[[str], str]:
    """What finds the physical id of a resource of the running stack by its logical one."""
    from local.stack import STACK_NAME

    cloudformation = _client(options, "cloudformation")

    def physical_id(logical_id: str) -> str:
        answer = cloudformation.describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=logical_id)
        return str(answer["StackResourceDetail"]["PhysicalResourceId"])

    return physical_id


def _aws_url(options: argparse.Namespace) -> str:
    from local.running_stacks import running

    if options.aws_url:
        return str(options.aws_url)
    found = running()
    if len(found) > 1:
        raise UsageError(f"{len(found)} offline stacks run here: name one with --aws-url, of {', '.join(found)}")
    return found[0] if found else AWS_URL


def _client(options: argparse.Namespace, service: str, read_timeout: int = 10) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=_aws_url(options),
        region_name="us-east-1",
        **_CREDENTIALS,
        config=Config(connect_timeout=2, read_timeout=read_timeout, retries={"total_max_attempts": 1}),
    )


class _RunningStack:
    """Turns what a client says when nobody answers, or something else does, into one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            raise UsageError(f"AWS answered: {error}") from error
        if isinstance(error, BotoCoreError | ValueError):
            raise UsageError(
                f"no offline stack answers; start one with make up, or name its --aws-url ({error})"
            ) from error


def _parameters(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, separator, _ in pairs:
        if not separator:
            raise UsageError(f"--parameter {name} has no value: write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _heed_signals() -> None:
    """SIGTERM ends it as Ctrl-C does; and Ctrl-C does so where a shell has started it with SIGINT ignored."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give a number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
