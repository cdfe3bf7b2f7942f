"""AgentCore Memory's API on the runtime's own table: events, sessions, records, and the memory stores themselves.

The wire is that of `bedrock-agentcore` and `bedrock-agentcore-control` as botocore's service models describe it.
"""
