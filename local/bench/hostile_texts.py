"""Texts that are made to be costly to redact: for `make bench`, which measures them, and for tests, which count."""

import base64
import json
import random
from collections.abc import Iterator

_REPEATED = (
    *(
        "=",
        ":",
        "-",
        "_",
        "p",
        "\\",
        '"',
        "'",
        '\\"',
        "\\'",
        "\\u005c",
        "{",
        "[",
        "[[],",
        "\n",
        " ",
        "\t-",
        "İ",
        "word ",
    ),
    *(
        "password",
        "password=",
        "password= ",
        "password=x\n",
        'password="',
        "password='\\'",
        "password={",
        "password=[1]\n",
    ),
    *(
        "password=[[\n",
        "password('",
        "password is ",
        "--password ",
        "password:\n",
        "password:\n\n  \n",
        "password: >\n  a\n",
    ),
    *(
        "password:\r",
        "password\\\\\\\\",
        "password,",
        "password=a&b",
        "password: required\n",
        'password=\\"x\\" ',
        "xpin=",
    ),
    *(
        "paſſword: x\n",
        "{'password': 'x', 'a': {'b': 1}}, ",
        "('password', 'x'), ",
        '"name":"password" ',
        '"password":    ',
    ),
    *(
        "<password ",
        "<password>",
        "<password></",
        "eyJ",
        "-eyJ",
        "eyJaaaaa.",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
    ),
    *("://", "://a:", "AKIA", "Bearer ", "Basic aaaa", "identified ", "identified by 'x' ", "-u a", "a=b&", "name="),
    *(
        'key="pin"',
        '\\\\\\\\\\\\\\" key="pin"',
        '<property name="pin"></x>',
        '<a key="pin"><![CDATA[',
        "SecretStr(",
        "aSecretStr(\\u0061",
        "-user.",
        ")-ukey",
    ),
    *("password: f(", "password: (\n'x'\n) ", "password='a' + ", "name=pin,value=", "&lt;pin&gt;", "password:\n- x\n"),
    "password" * 24 + "\\" * 8,
)


def hostile_texts(length: int) -> Iterator[tuple[str, str]]:
    """Texts of about so many characters, each with what it is."""
    for part in _REPEATED:
        yield f"{part[:40]!r} again and again", (part * (length // len(part) + 1))[:length]
    yield "base64", base64.b64encode(random.Random(1).randbytes(length))[:length].decode()
    yield "brackets that close", "[" * (length // 2) + "]" * (length // 2)
    yield "elements that end late", "<password>x" * (length // 11) + "</"
    for part in ("password=x\n", "password={\n", "password='", 'said: "x", y\n'):
        yield f"a JSON text of {part!r}", json.dumps({"text": part * (length // len(part))})
    nested = json.dumps("x" * (length // 16))
    for _ in range(14):
        nested = json.dumps([nested])
    yield "JSON in JSON in JSON", nested
    for entry in (
        '{"a":"b=c"}',
        '"text"',
        '"--password"',
        '"a":{"b":1}',
        '"[\\"x\\"]"',
        '"\\\\u0061 Bearer &lt;"',
        "1e2",
    ):
        for entries in (1_200, 2_400, 4_800, length // len(entry)):
            closing = "{}" if ":" in entry and entry[0] == '"' else "[]"
            unique = (entry.replace('"a"', f'"a{index}"') if closing == "{}" else entry for index in range(entries))
            yield f"{entries} of {entry}", f"{closing[0]}{','.join(unique)}{closing[1]}"
