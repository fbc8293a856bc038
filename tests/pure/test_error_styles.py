"""Errors in the words, the status and the shape of the dialect whose path was asked for."""

from __future__ import annotations

import pytest

from inferd.errors import InvalidRequestError, OverloadedError
from inferd.gateway.errors import to_reply

TOO_MANY = InvalidRequestError("max_tokens must be at least 1", param="max_tokens")


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/v1/chat/completions", 400, "max_tokens"),
        ("/v1/responses", 400, "max_output_tokens"),
        ("/v1/messages", 400, "max_tokens"),
        ("/api/chat", 400, "num_predict"),
        ("/generate", 422, "max_new_tokens"),
        ("/", 422, "max_new_tokens"),
        ("/completion", 400, "n_predict"),
        ("/v2/models/m/generate", 400, "max_tokens"),
    ],
)
def test_a_field_has_the_name_it_was_sent_by(path: str, status: int, name: str) -> None:
    reply = to_reply(TOO_MANY, path)
    error = reply.body["error"]
    assert (reply.status, error if isinstance(error, str) else error["message"]) == (
        status,
        f"{name} must be at least 1",
    )


def test_a_call_may_have_names_of_its_own() -> None:
    error = InvalidRequestError("structured_outputs: no such type", param="structured_outputs")
    own = to_reply(error, "/completion", {"structured_outputs": "json_schema"}).body["error"]["message"]
    assert own == "json_schema: no such type"
    assert to_reply(error, "/completion").body["error"]["message"] == "grammar: no such type"


def test_only_whole_words_are_renamed() -> None:
    error = InvalidRequestError("stop: see stop_token_ids, or stop", param="stop")
    assert (
        to_reply(error, "/v1/messages").body["error"]["message"]
        == "stop_sequences: see stop_token_ids, or stop_sequences"
    )


@pytest.mark.parametrize(("path", "status"), [("/v1/completions", 503), ("/v1/messages", 529), ("/generate", 429)])
def test_a_full_server_has_the_status_that_its_clients_wait_for(path: str, status: int) -> None:
    reply = to_reply(OverloadedError("Too many.", retry_after=1.2), path)
    assert (reply.status, reply.headers["retry-after"], reply.headers["x-should-retry"]) == (status, "2", "true")
