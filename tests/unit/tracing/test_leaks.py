"""Each syntax that gives a name a secret value, in each text that may be around it: the secret is nowhere in what is
left, and redacting again changes nothing. What is no secret stays byte for byte in the same texts.
"""

import html
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.deployment.sam_yaml import load_template
from turnwright.tracing.redaction import MASK, Redaction, split_list

TEMPLATE = Path(__file__).parents[3] / "template.yaml"
REDACTION = Redaction.of(split_list(load_template(TEMPLATE)["Parameters"]["TraceRedactFields"]["Default"]), [])

NAMES = ["password", "db-passwd", "PWD", "client_secret", "x-token", "api_key", "Authorization", "user_pin", "CVV"]
PARTS = ("s3cr3t", "w0rd", "m0re")
"""What secrets are made of; each syntax says in which pieces."""

SYNTAXES = [
    # A separator, and a value that says where it ends
    *(
        "NAME: s3cr3t w0rd",
        "NAME = s3cr3t, w0rd",
        "NAME=s3cr3t;w0rd",
        "NAME := s3cr3t",
        "NAME => s3cr3t",
        "NAME -> s3cr3t",
    ),
    *(
        "**NAME**: s3cr3t",
        "`NAME`: `s3cr3t`",
        "NAME != 's3cr3t'",
        "x[NAME]=s3cr3t",
        "NAME[0]=s3cr3t",
        "NAME['a'][1] = 's3cr3t'",
    ),
    *(
        "NAME='s3cr3t w0rd'",
        'NAME="s3cr3t" user="ann"',
        "NAME = 'it''s s3cr3t'",
        "NAME=$'s3cr3t'",
        'NAME="s3c\\"s3cr3t"',
    ),
    'NAME = """s3cr3t\n"w0rd""" + x',
    "NAME: '''s3cr3t\nw0rd'''",
    "'NAME': '''s3cr3t\n'w0rd''', 'x': 1",
    "NAME = 'abc' + 's3cr3t'",
    "NAME = 'abc' \\\n  's3cr3t'",
    'NAME = "abc" . "s3cr3t";',
    "NAME = 'abc' 's3cr3t'",
    *(
        "NAME = ('abc' || 's3cr3t')",
        "NAME = 'abc' + s3cr3t",
        "NAME=s3cr3t \\\n  w0rd",
        "{'NAME': 'a' + 's3cr3t', 'x': 1}",
    ),
    "NAME = (\n's3cr3t'\n'w0rd'\n)",
    "NAME = [\n  's3cr3t',\n  'w0rd'\n]",
    "NAME = {\n a: ')s3cr3t', b: '}w0rd' }",
    *(
        "NAME = SecretStr('s3cr3t')",
        "{'NAME': SecretStr('s3cr3t'), 'x': 1}",
        "NAME = Secret(\n  's3cr3t',\n  'w0rd'\n)",
    ),
    *(
        "User(NAME='s3cr3t', x=1)",
        "NAME('s3cr3t')",
        "SecretStr('s3cr3t')",
        "SecretStr(\n  's3cr3t')",
        "set_NAME = b's3cr3t'",
    ),
    # JSON and its like
    *(
        '{"NAME": "s3cr3t", "x": 1}',
        '{"NAME":\n  "s3cr3t"}',
        "{'NAME': 's3cr3t', 'x': 1}",
        '{"NAME": ["s3cr3t", {"a": "w0rd"}]}',
    ),
    *(
        "{NAME: 's3cr3t', x: 1}",
        '{"NAME": {"a}": "s3cr3t"}, "x": 1}',
        '["NAME", "s3cr3t"]',
        '[\n  "NAME",\n  "s3cr3t"\n]',
    ),
    *(
        "('NAME', 's3cr3t')",
        "[('NAME', b's3cr3t'), ('x', 1)]",
        "{&quot;NAME&quot;: &quot;s3cr3t&quot;, &quot;x&quot;: 1}",
    ),
    # A name beside its value
    *(
        '{"name": "NAME", "value": "s3cr3t"}',
        '{"value": "s3cr3t", "key": "NAME"}',
        '{"ParameterKey": "NAME", "ParameterValue": "s3cr3t"}',
    ),
    *(
        "{'Key': 'NAME', 'Value': 's3cr3t'}",
        "- name: NAME\n  value: s3cr3t\n- name: x",
        "- value: s3cr3t\n  name: NAME",
    ),
    *(
        "ParameterKey=NAME,ParameterValue=s3cr3t",
        "ParameterValue=s3cr3t,ParameterKey=NAME",
        "- name: NAME\n  value: |\n    s3cr3t\n    w0rd",
    ),
    "name=NAME&value=s3cr3t&x=1",
    '{name: NAME, type: x, value: "s3cr3t"}',
    '- key: "NAME"\n  value: "s3cr3t"',
    # YAML
    *(
        "NAME:\n  s3cr3t\nx: 1",
        "NAME: |\n  s3cr3t\n\n  w0rd\nx: 1",
        "NAME: >-\n  s3cr3t",
        "NAME: first\n  s3cr3t\n  w0rd\nx: 1",
    ),
    *(
        "NAME: !vault |\n  s3cr3t\n  w0rd\nx: 1",
        "NAME: # a comment\n  s3cr3t",
        "NAME: |  # a comment\n  s3cr3t",
        "NAME: &anchor\n  s3cr3t",
    ),
    "NAME:\n- s3cr3t\n- w0rd\nx: 1",
    "a:\n  NAME:\n  - s3cr3t\n  - w0rd\n  x: 1",
    "- NAME: |\n    s3cr3t\n  x: 1",
    '"NAME":\n- s3cr3t\n- w0rd',
    "NAME: !!binary s3cr3t",
    "NAME:\n\n  a: s3cr3t\n  b: w0rd\nx: 1",
    # XML
    "<NAME>s3cr3t\nw0rd</NAME><x>1</x>",
    '<n:NAME a="1">s3cr3t</n:NAME>',
    "<NAME><![CDATA[s3cr3t</w0rd>]]></NAME>",
    "<NAME><old>s3cr3t</old><new>w0rd</new></NAME>",
    '<add key="NAME" value="s3cr3t"/>',
    '<NAME value="s3cr3t"/>',
    '<property name="NAME">s3cr3t</property>',
    '<property name="NAME"><value>s3cr3t</value></property>',
    '<property name="NAME">\n  <value>s3cr3t\nw0rd</value>\n</property>',
    "<key>NAME</key>\n<string>s3cr3t</string>",
    "<name>NAME</name><value>s3cr3t</value>",
    "&lt;NAME&gt;s3cr3t&lt;/NAME&gt;",
    # A shell
    *(
        "x --NAME s3cr3t --host h",
        "x --NAME 's3cr3t w0rd'",
        "x --NAME=s3cr3t",
        "x --NAME \\\n  s3cr3t",
        "x -NAME s3cr3t",
    ),
    *(
        '["x", "--NAME", "s3cr3t"]',
        "['x', '--NAME', 's3cr3t']",
        "export NAME=s3cr3t\nexport X=1",
        "-e NAME=s3cr3t image",
    ),
    # Words
    "the NAME is s3cr3t",
    "NAME was 's3cr3t w0rd', he said",
    "My NAME is: s3cr3t w0rd",
]
BY_FORM = [
    *(
        'Bearer "s3cr3t"',
        "Bearer s3cr3t",
        "b'Bearer s3cr3t'",
        "https://s3cr3t@github.com/x",
        "redis://:s3cr3t@h",
        "amqp://u:s3cr3t@h",
    ),
    *(
        f"postgres://u:{'x' * 400}s3cr3t@h/",
        f"https://{'s3cr3t' * 5}:x-oauth-basic@github.com",
        "postgres://u:s3@cr@s3cr3t@h:1/d",
    ),
    *(
        "curl -u ann:s3cr3t h",
        "curl -uann:s3cr3t h",
        "curl --user=ann:s3cr3t h",
        "curl --proxy-user 'ann:s3cr3t w0rd' h",
    ),
    "curl -U ann:s3cr3t h",
    '["curl", "-u", "ann:s3cr3t"]',
    "['curl', '--proxy-user', 'ann:s3cr3t']",
    *(
        "ALTER USER ann IDENTIFIED BY 's3cr3t''w0rd'",
        "create user ann identified by s3cr3t;",
        "IDENTIFIED WITH plugin BY 's3cr3t'",
    ),
    "IDENTIFIED BY PASSWORD '*s3cr3t'",
    "-----BEGIN PRIVATE KEY-----\ns3cr3t\nw0rd\n-----END PRIVATE KEY-----",
]
READABLE = [
    *(
        "/pin: is missing; /amount: is missing",
        "the arguments of pay break its schema: /card/cvv: is missing",
        "/password: is required",
    ),
    "password: must be at least 8 characters long",
    "token: expired",
    "secret: not found",
    "credentials: not set",
    *(
        "an order is identified by customerId and date",
        "identified by name",
        "docker run -u 1000:1000 image",
        "date -u +%H:%M",
    ),
    *(
        "Secret: prod/db not found",
        "invalid token: expected",
        "SyntaxError: unexpected token: }",
        "Bearer token is missing",
    ),
    *(
        "hasPassword: true",
        "{'password': None, 'x': 1}",
        "User(password=None, x=1)",
        '{"password": null, "isSecret": false, "n": 1e2}',
    ),
    *(
        "ssh://git@github.com/x",
        "git clone git@github.com:x/y",
        "tokens: 5 inputTokens=5",
        "get_token(x) is defined",
        "- name: x\n  value: 1",
    ),
    *(
        "AT&T &amp; R&D &lt;b&gt;",
        "ParameterKey=Size,ParameterValue=5",
        "<name>password</name>",
        "- name: DB_PASSWORD\n  valueFrom:\n    x: y",
    ),
    "- name: token\n- name: x\n  value: 1",
    "card numbers, cookies and passwords are not kept",
    "my token is wrong",
]


def shouted(text: str) -> str:
    return (
        text.upper().replace("&QUOT;", "&quot;").replace("&LT;", "&lt;").replace("&GT;", "&gt;").replace("\\N", "\\n")
    )


AROUND: dict[str, Callable[[str], str]] = {
    "nothing": lambda text: text,
    "a JSON text": lambda text: json.dumps({"said": text, "n": 1}),
    "a cut JSON text": lambda text: json.dumps({"said": text, "n": 1})[:-1],
    "JSON in a cut JSON text": lambda text: json.dumps({"said": json.dumps([text])})[:-1],
    "a Python object": lambda text: f"Failed(said={text!r}, n=1)",
    "a line of a log": lambda text: f"2026-01-01T00:00:00Z ERROR [main] it failed: {text}",
    "lines of a log": lambda text: f"INFO it began\n{text}\nINFO it ended",
    "CRLF": lambda text: f"a: 1\n{text}\nb: 2\n".replace("\n", "\r\n"),
    "capitals": shouted,
    "HTML": lambda text: f"<pre>{html.escape(text)}</pre>",
    "a list": lambda text: str(["a", text]),
}


def assert_hidden(text: str, around: str) -> None:
    said = AROUND[around](text)
    redacted = REDACTION.text(said)
    assert MASK in redacted
    for part in PARTS:
        assert part not in redacted.lower(), (said, redacted)
    assert REDACTION.text(redacted) == redacted
    assert len(redacted) <= len(said) + len(MASK) * redacted.count(MASK)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_secret_is_in_no_syntax_and_in_no_text_around_it_left(syntax: str, around: str) -> None:
    for name in NAMES:
        assert_hidden(syntax.replace("NAME", name), around)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("text", BY_FORM)
def test_a_secret_that_has_a_form_is_in_no_text_around_it_left(text: str, around: str) -> None:
    assert_hidden(text, around)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("text", READABLE)
def test_what_is_no_secret_stays_in_each_text_around_it(text: str, around: str) -> None:
    if "identified by" in text and around == "capitals":
        return  # as SQL is written: IDENTIFIED BY PASSWORD
    said = AROUND[around](text)
    assert REDACTION.text(said) == said


WRITTEN: dict[str, Callable[[str, str], str]] = {
    "JSON": lambda name, value: f"it said {json.dumps({name: value, 'n': 1})} twice",
    "JSON's parameter": lambda name, value: f"it said {json.dumps({'name': name, 'value': value})} twice",
    "JSON's pair": lambda name, value: f"it said {json.dumps([name, value])} twice",
    "Python": lambda name, value: f"it said { ({name: value, 'n': 1})!r} twice",
    "an argument": lambda name, value: f"User({name}={value!r}, n=1)",
    "a header": lambda name, value: f"{name}: {value}\nx: 1",
    "YAML's block": lambda name, value: f"{name}: |\n  {value}\n  {value}\nx: 1",
    "YAML's string": lambda name, value: "{}: '{}'\nx: 1".format(name, value.replace("'", "''")),
    "a shell": lambda name, value: f"export {name}={shlex.quote(value)} X=1",
    "an option": lambda name, value: f"x --{name} {shlex.quote(value)} -x",
    "an element": lambda name, value: f"<{name}>{escape(value)}</{name}>",
    "an attribute": lambda name, value: f"<x key={quoteattr(name)} value={quoteattr(value)}/>",
    "SQL": lambda _, value: "IDENTIFIED BY '{}'".format(value.replace("'", "''")),
}
values = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="&"), max_size=8
)


@given(st.sampled_from(list(WRITTEN)), st.sampled_from(NAMES), values, st.sampled_from(list(AROUND)))
def test_a_value_of_any_signs_is_not_left_of_it(written: str, name: str, value: str, around: str) -> None:
    assert_hidden(WRITTEN[written](name, f"s3cr3t{value}w0rd"), around)


pieces = st.sampled_from(
    [
        *NAMES,
        *"\"'\\:=,.()[]{}<>|>-#&+* \n\t",
        "\\n",
        '\\"',
        '"""',
        "\r\n",
        "name",
        "value",
        "is",
        "--",
        "</",
        "&lt;",
        "://",
        "x",
    ]
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_no_text_grows_by_more_than_masks(text: str) -> None:
    redacted = REDACTION.text(text)
    assert len(redacted) <= len(text) + len(MASK) * redacted.count(MASK)
