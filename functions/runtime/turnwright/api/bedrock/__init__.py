"""Bedrock's agent runtime on the wire: InvokeAgent, turns without a stream, and the memory of an agent."""
