from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(scope="session")
def linted_once() -> Iterator[None]:
    """What cfn-lint found in a text is found in the same text again: it takes most of a second for a definition, and
    many tests check the same ones of this project.
    """
    import cfnlint.api  # takes seconds, which other tests need not wait for

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cfnlint.api, "lint", cache(cfnlint.api.lint))
        yield
