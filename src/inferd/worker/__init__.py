"""The process that hosts one model, and the gateway's side of the wire to it."""
