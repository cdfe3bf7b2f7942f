"""The states of a turn, a module each: the listing is `statemachines/agent_turn.asl.json`."""
