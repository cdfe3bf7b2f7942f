"""Checks that a function finds on Lambda what it imports: in its folder, its layers, its requirements, or Lambda.

What is imported is read from the source, beginning with the handler; no module is run. An import that code can do
without, under `try` with ImportError caught or for type checkers alone, counts for nothing.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from local.deployment.intrinsics import CannotResolve
from local.deployment.parameters import resolver_for
from local.deployment.sam_yaml import LOCAL_BUCKET, Template
from local.lambda_workers import packages

_REMOVED_FROM_PYTHON = frozenset(
    {
        *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp"),
        *("lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau"),
        *("telnetlib", "uu", "xdrlib"),
    }
)
"""What Python 3.11 has and 3.13, which Lambda runs, has not. Source: "What's New In Python 3.12" and "3.13"."""
_STANDARD = sys.stdlib_module_names - _REMOVED_FROM_PYTHON
_IN_A_LAYER = ("python", "python/lib/python3.13/site-packages")
_CAUGHT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def check_imports(template: Template, document: Mapping[str, Any]) -> Iterator[str]:
    """What functions of a template would not find, a line each. `document` is the template as SAM transforms it."""
    resolver = resolver_for(template, document)
    layers = _layers(template, document)
    built = {layer: folder for layer, folder in layers.items() if "BuildMethod" in _metadata(template, layer)}
    sources = _Sources()
    told: set[str] = set()
    for name, resource in document["Resources"].items():
        if resource["Type"] != "AWS::Lambda::Function":
            continue
        try:
            properties = resolver.resolve(resource["Properties"])
        except CannotResolve as error:
            yield str(template.error(f"{name}: {error}", "Resources", name))
            continue
        own = [layer.get("Ref") if isinstance(layer, Mapping) else None for layer in properties.get("Layers") or ()]
        code = _folder(template, properties["Code"])
        is_known = str(properties.get("Runtime")).startswith("python") and all(layer in layers for layer in own)
        if code is None or not is_known:
            continue  # an archive, another language, or a layer of somebody else
        folders = (code, *(layers[layer] / place for layer in own if layer not in built for place in _IN_A_LAYER))
        files = packages.requirements_of(code, [built[layer] for layer in own if layer in built], built.values())
        for problem in _of_a_function(sources, template, name, str(properties["Handler"]), folders, files, built):
            if problem not in told:
                told.add(problem)
                yield problem


def _of_a_function(
    sources: "_Sources",
    template: Template,
    name: str,
    handler: str,
    folders: tuple[Path, ...],
    files: tuple[Path, ...],
    built: Mapping[str, Path],
) -> Iterator[str]:
    module = handler.rpartition(".")[0].replace("/", ".")
    if _file(folders, module) is None:
        yield str(template.error(f"{name}: the handler {handler} is not in {folders[0]}", "Resources", name))
        return
    requirements = list(packages.OF_LAMBDA)
    not_installed: list[str] = []
    for file in files:
        found, unusable = packages.read(file)
        requirements += found
        not_installed += [problem.missing for problem in unusable if problem.missing]
        yield from (f"{problem.file}:{problem.line}: {problem.rule}" for problem in unusable)
    brought = packages.modules_of(packages.closure(requirements, packages.ON_LAMBDA))
    missing_layer = next((layer for layer, folder in built.items() if folder == folders[0]), None)
    if missing_layer is not None and not files:
        layer = template.declared(missing_layer)
        rule = f"is not there for {name}, which has no layer {layer}: add it to the function's Layers"
    else:
        file = files[0] if files else folders[0] / packages.REQUIREMENTS
        rule = f"is neither in Python 3.13 and boto3, as Lambda has them, nor required: add its package to {file}"
        if not_installed:
            rule = (
                f"is in nothing that is installed here; {', '.join(not_installed)} may bring it, and is not installed"
            )
    try:
        for file, line, missing in _missing(sources, folders, module, brought):
            yield f"{file}:{line}: the module {missing} {rule}"
    except SyntaxError as error:
        yield f"{error.filename}:{error.lineno}: is not Python: {error.msg}"


def _missing(
    sources: "_Sources", folders: tuple[Path, ...], module: str, brought: set[str]
) -> Iterator[tuple[Path, int, str]]:
    """Where a module that nothing brings is imported, once for each file and module."""
    pending, seen = [module], set()
    while pending:
        file = _file(folders, pending.pop())
        if file is None or file in seen:
            continue
        seen.add(file)
        told = set()
        for line, imported in sources.imports(file, folders):
            top = imported.partition(".")[0]
            if any((folder / top).is_dir() or (folder / f"{top}.py").is_file() for folder in folders):
                parts = imported.split(".")
                pending += [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
            elif top not in _STANDARD and top not in told and not _brings(brought, imported):
                told.add(top)
                yield file, line, imported


def _brings(brought: set[str], imported: str) -> bool:
    return any(f"{name}.".startswith(f"{imported}.") or f"{imported}.".startswith(f"{name}.") for name in brought)


class _Sources:
    """What the files of functions import, each of them read once."""

    def __init__(self) -> None:
        self._imports: dict[tuple[Path, tuple[Path, ...]], list[tuple[int, str]]] = {}

    def imports(self, file: Path, folders: tuple[Path, ...]) -> list[tuple[int, str]]:
        """The lines and absolute names of what a file imports. What `from` takes out of a package of the function's own
        may be a module too. Raises SyntaxError.
        """
        if (file, folders) not in self._imports:
            self._imports[file, folders] = list(_imports(file, folders))
        return self._imports[file, folders]


def _imports(file: Path, folders: tuple[Path, ...]) -> Iterator[tuple[int, str]]:
    package = next(file.parent.relative_to(folder).parts for folder in folders if file.is_relative_to(folder))
    for node in _needed(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            taken = (f"{base}.{alias.name}".removeprefix(".") for alias in node.names)
            yield from ((node.lineno, name) for name in (base, *filter(partial(_file, folders), taken)) if name)


def _needed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below that are run whatever is installed."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children: list[ast.AST] = [*node.orelse]
    elif isinstance(node, ast.Try) and any(_catches(handler) for handler in node.handlers):
        children = [*node.orelse, *node.finalbody]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield child
        yield from _needed(child)


def _catches(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or any(getattr(name, "id", "") in _CAUGHT for name in ast.walk(handler.type))


def _file(folders: tuple[Path, ...], module: str) -> Path | None:
    for folder in folders:
        path = folder.joinpath(*module.split("."))
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _layers(template: Template, document: Mapping[str, Any]) -> dict[Any, Path]:
    found = {}
    for name, resource in document["Resources"].items():
        if resource["Type"] == "AWS::Lambda::LayerVersion":
            folder = _folder(template, resource["Properties"]["Content"])
            if folder is not None:
                found[name] = folder
    return found


def _metadata(template: Template, logical_id: str) -> Mapping[str, Any]:
    return template["Resources"][template.declared(logical_id)].get("Metadata") or {}


def _folder(template: Template, location: Mapping[str, Any]) -> Path | None:
    if location.get("S3Bucket", location.get("Bucket")) != LOCAL_BUCKET:
        return None
    return template.file.parent / str(location.get("S3Key", location.get("Key")))
