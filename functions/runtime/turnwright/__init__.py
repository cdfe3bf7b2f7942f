"""Turnwright's runtime package: the rules of a turn, and the adapters that keep it in AWS services.

docs/architecture.md shows the rooms. The modules of rules, which know no AWS, are listed in tests/unit/test_imports.py.
`storage/settings` reads the environment (beside the runtime loop that streams), `storage/clients` alone makes boto3
clients, `storage/keys` alone builds table keys.
"""
