"""The states of a turn that call a function, a module each, and Record Failure, which follows a failed execution."""
