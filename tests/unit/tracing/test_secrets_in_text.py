"""Which words of a text are a secret, and which are not: with the fields that the template takes out."""

import json
from pathlib import Path

import pytest

from local.deployment.sam_yaml import load_template
from turnwright.tracing.redaction import MASK, Redaction, split_list

TEMPLATE = Path(__file__).parents[3] / "template.yaml"
REDACTION = Redaction.of(split_list(load_template(TEMPLATE)["Parameters"]["TraceRedactFields"]["Default"]), [])

X = "s3cr3t, w0rd"
"""A secret of two words with a comma, which looks like two things."""

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEs3cr3t\nw0rd\n-----END RSA PRIVATE KEY-----"

HIDDEN = [
    # HTTP
    ("Authorization: Bearer s3cr3t", f"Authorization: {MASK}"),
    ("Authorization: Basic dXNlcjpzM2NyM3Q=\nAccept: */*", f"Authorization: {MASK}\nAccept: */*"),
    ('Authorization: Digest username="u", response="s3cr3t"', f"Authorization: {MASK}"),
    (
        "> authorization: AWS4-HMAC-SHA256 Credential=s3cr3t, Signature=w0rd\r\n> x: 1",
        f"> authorization: {MASK}\r\n> x: 1",
    ),
    ("Proxy-Authorization: Basic dXNlcjpzM2NyM3Q=", f"Proxy-Authorization: {MASK}"),
    ("Cookie: a=s3cr3t; c=w0rd", f"Cookie: {MASK}"),
    ("Set-Cookie: sid=s3cr3t; HttpOnly; Path=/", f"Set-Cookie: {MASK}"),
    ("X-Api-Key: s3cr3t", f"X-Api-Key: {MASK}"),
    ('["Authorization","Bearer s3cr3t"]', f'["Authorization","{MASK}"]'),
    (
        '{"headers":[["X-Api-Key","s3cr3t"],["Accept","*/*"]]}',
        f'{{"headers":[["X-Api-Key","{MASK}"],["Accept","*/*"]]}}',
    ),
    ("[('X-Api-Key', 's3cr3t'), ('Accept', '*/*')]", f"[('X-Api-Key', '{MASK}'), ('Accept', '*/*')]"),
    ("b'Bearer s3cr3t'", f"b'Bearer {MASK}'"),
    ("b'Bearer x'", f"b'Bearer {MASK}'"),
    ("sent bearer s3cr3t.w0rd to it", f"sent bearer {MASK} to it"),
    ("sent Basic dXNlcjpzM2NyM3Q= to it", f"sent Basic {MASK} to it"),
    ("GET /a?access_token=s3cr3t&y=1 HTTP/1.1", f"GET /a?access_token={MASK}&y=1 HTTP/1.1"),
    ("user[password]=s3cr3t&user[name]=ann", f"user[password]={MASK}&user[name]=ann"),
    ("https://user:s3cr3t@host/path", f"https://user:{MASK}@host/path"),
    ("postgres://user:s3@cr3t@host:5432/db", f"postgres://user:{MASK}@host:5432/db"),
    ("curl -u ann:s3cr3t https://host", f"curl -u ann:{MASK} https://host"),
    # Where a bare value ends
    ("passphrase: correct horse s3cr3t", f"passphrase: {MASK}"),
    (f"password: {X}", f"password: {MASK}"),
    (f"PASSWORD={X}\nUSER=ann", f"PASSWORD={MASK}\nUSER=ann"),
    (f"export DB_PASSWORD={X}\r\nexport USER=ann", f"export DB_PASSWORD={MASK}\r\nexport USER=ann"),
    ("PASSWORD='s3cr3t'\\''w0rd' next", f"PASSWORD={MASK}"),
    ("PASSWORD=s3cr3t \\\n  w0rd\nUSER=ann", f"PASSWORD={MASK}\nUSER=ann"),
    ("password: s3cr3t}w0rd)", f"password: {MASK}"),
    ("password: [s3cr3t] w0rd", f"password: {MASK}"),
    ("password: {s3cr3t w0rd\nmore", f"password: {MASK}"),
    (f"password: {MASK} s3cr3t", f"password: {MASK}"),
    ("Server=db;Password=s3cr3t;w0rd", f"Server=db;Password={MASK}"),
    ("**password**: s3cr3t", f"**password**: {MASK}"),
    ("`password`: `s3cr3t`", f"`password`: {MASK}"),
    ("password => s3cr3t", f"password => {MASK}"),
    ("'password' => 's3cr3t', 'user' => 'ann'", f"'password' => '{MASK}', 'user' => 'ann'"),
    (f"password := {X}", f"password := {MASK}"),
    ("password -> s3cr3t", f"password -> {MASK}"),
    ('password: str = "s3cr3t"', f"password: {MASK}"),
    ("the password is hunter2", f"the password is {MASK}"),
    ("My Password is: s3cr3t w0rd", f"My Password is: {MASK}"),
    ("my pin is 4711.", f"my pin is {MASK}"),
    ('the password was "s3cr3t w0rd", he said', f'the password was "{MASK}", he said'),
    # Quotes
    (f'password="{X}" user="ann"', f'password="{MASK}" user="ann"'),
    (f"User(name='ann', password='{X}', age=3)", f"User(name='ann', password='{MASK}', age=3)"),
    ("{'password': 's3cr3t', 'user': 'ann'}", f"{{'password': '{MASK}', 'user': 'ann'}}"),
    ("{'password': b's3cr3t', 'user': 'ann'}", f"{{'password': b'{MASK}', 'user': 'ann'}}"),
    ("{'password': ['s3cr3t'], 'user': 'ann'}", f"{{'password': {MASK}, 'user': 'ann'}}"),
    ("{'pin': 4711, 'user': 'ann'}", f"{{'pin': {MASK}, 'user': 'ann'}}"),
    ("{'password': SecretStr('s3cr3t'), 'user': 'ann'}", f"{{'password': {MASK}, 'user': 'ann'}}"),
    ("SecretStr('s3cr3t')", f"SecretStr('{MASK}')"),
    ('Password("s3cr3t")', f'Password("{MASK}")'),
    # JSON, whole, escaped and cut
    ('{"key":"password","value":"s3cr3t"}', f'{{"key":"password","value":"{MASK}"}}'),
    ('{"Tags":[{"Value":"s3cr3t","Key":"db-passwd"}]}', f'{{"Tags":[{{"Value":"{MASK}","Key":"db-passwd"}}]}}'),
    ('[cut] {"Key": "db-passwd", "Value": "s3cr3t"}', f'[cut] {{"Key": "db-passwd", "Value": "{MASK}"}}'),
    ("{'Key': 'password', 'Value': 's3cr3t'}", f"{{'Key': 'password', 'Value': '{MASK}'}}"),
    ('{"args":["--user","ann","--password","s3cr3t"]}', f'{{"args":["--user","ann","--password","{MASK}"]}}'),
    ('say {"password": "s3cr3t", "n": 1}', f'say {{"password": "{MASK}", "n": 1}}'),
    ('say {\\"password\\": \\"s3\\\\\\"cr3t\\", \\"n\\": 1}', f'say {{\\"password\\": \\"{MASK}\\", \\"n\\": 1}}'),
    (
        'say {"note": "password: s3cr3t w0rd\\nuser: ann", "n": 1}',
        f'say {{"note": "password: {MASK}\\nuser: ann", "n": 1}}',
    ),
    ('say {"note": "Authorization: Bearer s3cr3t", "n": 1}', f'say {{"note": "Authorization: {MASK}", "n": 1}}'),
    ('say {"password":\n  "s3cr3t",\n "n": 1}', f'say {{"password":\n  "{MASK}",\n "n": 1}}'),
    ('say {"p\\u0061ssword": "s3cr3t", "n": 1}', f'say {{"p\\u0061ssword": "{MASK}", "n": 1}}'),
    # YAML, XML, SQL, a shell
    ("- user: ann\n- password: s3cr3t", f"- user: ann\n- password: {MASK}"),
    ("a:\n  password: >\n    s3cr3t\n    w0rd\n\n    more\n  user: ann", f"a:\n  password: {MASK}\n  user: ann"),
    ("- password: |-\n    s3cr3t\n  user: ann", f"- password: {MASK}\n  user: ann"),
    ("password:\n  s3cr3t\nuser: ann", f"password:{MASK}\nuser: ann"),
    ("<password>s3cr3t\nw0rd</password><user>ann</user>", f"<password>{MASK}</password><user>ann</user>"),
    ('<db:password enc="no">s3cr3t</db:password>', f'<db:password enc="no">{MASK}</db:password>'),
    ("<password><![CDATA[s3cr3t</w0rd>]]></password>", f"<password>{MASK}</password>"),
    ('<add key="ApiKey" value="s3cr3t" />', f'<add key="ApiKey" value="{MASK}" />'),
    ('<property name="password">s3cr3t</property>', f'<property name="password">{MASK}</property>'),
    ("CREATE USER ann IDENTIFIED BY 's3cr3t w0rd' REQUIRE SSL", f"CREATE USER ann IDENTIFIED BY '{MASK}' REQUIRE SSL"),
    ("ALTER USER ann WITH PASSWORD 's3cr3t'", f"ALTER USER ann WITH PASSWORD '{MASK}'"),
    ("mysql --password s3cr3t --host db", f"mysql --password {MASK} --host db"),
    ("mysql --password=s3cr3t", f"mysql --password={MASK}"),
    ("tool --client-secret 's3cr3t w0rd' --host db", f"tool --client-secret '{MASK}' --host db"),
    # Names
    ("clientSecret: s3cr3t", f"clientSecret: {MASK}"),
    ("client_secret_value: s3cr3t", f"client_secret_value: {MASK}"),
    ("db-passwd: s3cr3t", f"db-passwd: {MASK}"),
    ("card number: 4111 1111", f"card number: {MASK}"),
    ("MYSQL_ROOT_PASSWORD2: s3cr3t", f"MYSQL_ROOT_PASSWORD2: {MASK}"),
    ("userPin: 4711", f"userPin: {MASK}"),
    ("secrets: s3cr3t", f"secrets: {MASK}"),
    ("PA\u017f\u017fWORD: s3cr3t", f"PA\u017f\u017fWORD: {MASK}"),
    ("密码 password：s3cr3t", f"密码 password：{MASK}"),
    ("aws_secret_access_key = s3cr3t", f"aws_secret_access_key = {MASK}"),
    # By their form
    (f"with {JWT} it went", f"with {MASK} it went"),
    (f"key:\n{PEM}\nend", f"key:\n{MASK}\nend"),
    (f"cut {PEM[:50]}", f"cut {MASK}"),
    ("id AKIAIOSFODNN7EXAMPLE it is", f"id {MASK} it is"),
    (f"AKIAIOSFODNN7EXAMPLE,{'wJalrXUtnFEMI/K7MDENG' + 'bPxRfiCYEXAMPLEKEYY'},x", f"{MASK},x"),
]

READABLE = [
    "tokens: 512",
    "inputTokens=512 outputTokens=12 maxTokens: 4096",
    '{"inputTokens":512,"maxTokens":4096,"tokenCount":3,"stopReason":"max_tokens"}',
    "usage: {'inputTokens': 5, 'cacheReadInputTokens': 0}",
    "the password field is required",
    "password: field required",
    "password is required, and must be 8 characters long",
    "the token is invalid or expired",
    "the password is what you know; my_password_hint=cat",
    "token_type=code passwordless=true secretary: Ann",
    "errorCode=TIMEOUT errorMessage=the tool did not answer",
    "shipping: 5 EUR, topping=cheese, spinning: no, mapping => x",
    "Basic information about Basic authentication, bearer of bad news, Bearer token is missing",
    "https://host:8080/a@b?x=1 http://[::1]:80/",
    "tokenize(text) and get_password() > 3",
    '{"required":["password","email"]}',
    '{"properties":{"user":{"type":"string"}},"required":["password","pin"]}',
    '{"key":"account","value":"12345"}',
    "<user>ann</user> <name>password</name>",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "eyJust a word. AKIA is a prefix",
    "git log --author x -u origin main",
    "not authorized: secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-Ab1",
    """Unexpected token '<', "<!DOCTYPE" is not valid JSON; unexpected token: }""",
    "The security token included in the request is invalid",
]


@pytest.mark.parametrize(("text", "redacted"), HIDDEN, ids=[text for text, _ in HIDDEN])
def test_a_secret_is_taken_out_to_its_end_and_what_is_around_it_stays(text: str, redacted: str) -> None:
    assert REDACTION.text(text) == redacted
    assert REDACTION.text(redacted) == redacted


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        *[
            (name, True)
            for name in ("pin", "PIN", "userPin", "user_pin2", "pinValue", "x-token", "APIKey", "x_api__key")
        ],
        *[(name, True) for name in ("user[password]", "clientSecret", "client_secret_value", "DB_PASSWORD", "cookies")],
        *[
            (name, False)
            for name in ("spin", "inputTokens", "tokens", "tokenCount", "passwordHint", "secretary", "", "7")
        ],
    ],
)
def test_a_field_of_json_is_known_by_the_end_of_its_name(name: str, hidden: bool) -> None:
    assert REDACTION.names(name) == hidden
    assert (MASK in REDACTION.text(json.dumps({name: "x"}))) == hidden


@pytest.mark.parametrize("text", READABLE)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert REDACTION.text(text) == text


@pytest.mark.parametrize(("text", "redacted"), HIDDEN, ids=[text for text, _ in HIDDEN])
@pytest.mark.parametrize("around", ['{{"said": {}}}', '{{"said": {}, cut', "[{}] was the answer", "he said {}"])
def test_a_secret_is_found_in_json_that_holds_the_text(text: str, redacted: str, around: str) -> None:
    """Also where more than the secret is taken out."""
    said = REDACTION.text(around.format(json.dumps(text)))
    assert MASK in said
    for secret in ("s3cr3t", "w0rd", "4711", "dXNlcjpz", "hunter2", "MIIE", "IOSFODNN7", "wJalr", "c2lnbmF0"):
        assert secret not in said
