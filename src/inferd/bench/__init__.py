"""Load generators and their reports. Imports nothing of the engine, so that any server can be measured with it."""
