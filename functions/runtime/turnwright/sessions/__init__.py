"""Sessions and the turns in them: leases, headers, the journal of a running turn, and the history behind it."""
