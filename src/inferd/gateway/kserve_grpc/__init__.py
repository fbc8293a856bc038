"""The inference protocol over gRPC: every call becomes the same one over HTTP, in this process, so that keys, limits,
figures and errors are the gateway's."""
