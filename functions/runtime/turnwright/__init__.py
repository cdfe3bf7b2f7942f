"""Turnwright's runtime package: the rules of a turn, and the adapters that keep it in AWS services.

Modules that import neither boto3 nor os hold rules (what a turn, a session, a retry policy *is*); `settings` alone
reads the environment, `clients` alone makes boto3 clients, `keys` alone builds table keys.
"""
