"""AWS's services on 127.0.0.1: moto's server with what it lacks, events, logs, and faults on purpose."""
