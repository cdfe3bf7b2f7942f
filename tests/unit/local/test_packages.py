"""Which packages requirements bring, by what is installed for these tests."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from local.lambda_workers.packages import ON_LAMBDA, closure, files_of, modules_of, read


def names(*requirements: str, on_lambda: bool = False) -> set[str]:
    found = closure(map(Requirement, requirements), ON_LAMBDA if on_lambda else None)
    return {package.metadata["Name"] for package in found}


def test_a_package_brings_what_it_needs_and_what_that_needs() -> None:
    assert names("boto3") == {"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"}


def test_an_extra_brings_more() -> None:
    assert names("moto[server]") > {*names("moto"), "Flask"}
    assert names("moto", "moto[server]") == names("moto[server]", "moto")


@pytest.mark.parametrize("marker", ["extra == 'crt'", "python_version < '3'", "sys_platform == 'win32'"])
def test_a_requirement_that_is_for_something_else_brings_nothing(marker: str) -> None:
    assert names(f"jmespath; {marker}") == set()


def test_markers_are_lambdas_where_lambda_is_asked_about() -> None:
    marker = "platform_machine == 'aarch64' and python_full_version == '3.13.0'"
    assert names(f"jmespath; {marker}", on_lambda=True) == {"jmespath"}
    assert names(f"jmespath; python_version == '{sys.version_info.major}.{sys.version_info.minor}'") == {"jmespath"}


def test_modules_are_named_as_they_are_imported() -> None:
    modules = modules_of(closure([Requirement("python-dateutil"), Requirement("PyYAML"), Requirement("rpds-py")]))
    assert modules >= {"dateutil", "six", "yaml", "rpds"}
    assert not [name for name in modules if "dist-info" in name or "-" in name]


def test_a_folder_that_packages_share_is_not_one_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("first", "one"), ("second", "two")):
        (tmp_path / "shared" / module).mkdir(parents=True)
        (tmp_path / "shared" / module / "__init__.py").write_text("")
        metadata = tmp_path / f"{name}_half-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-half\nVersion: 1\n")
        (metadata / "RECORD").write_text(
            f"shared/{module}/__init__.py,,\n{metadata.name}/METADATA,,\n../bin/{name},,\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    first = closure([Requirement("first-half")])
    assert modules_of(first) == {"shared.one"}
    assert dict(files_of(first)) == {
        "shared/one": tmp_path / "shared" / "one",
        "first_half-1.dist-info": tmp_path / "first_half-1.dist-info",
    }


def test_a_file_is_read_as_pip_reads_it_and_a_line_that_is_not_understood_is_named(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        "# a comment\n\n"
        "boto3==1.44.5  # pinned\n"
        "PyYAML>=6 \\\n    --hash=sha256:00\n"
        "jmespath==1 ; python_version > '3' --hash=sha256:00\n"
        "-e .\n"
        "no-such-package\n"
    )
    found, unusable = read(file)
    assert [requirement.name for requirement in found] == ["boto3", "PyYAML", "jmespath"]
    assert [(problem.file, problem.line) for problem in unusable] == [(file, 7), (file, 8)]
