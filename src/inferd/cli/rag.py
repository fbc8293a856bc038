"""`inferd rag index | ask | list | rm`: documents and questions to a running server."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from inferd.cli.options import json_option
from inferd.cli.output import format_count, print_json, print_table
from inferd.cli.remote import call

SUFFIXES = (".txt", ".md", ".rst", ".html", ".csv", ".json", ".py", ".log")
BATCH_BYTES = 2**20  # of texts in one request

_url = click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the server is.")
_collection = click.option("--collection", "-c", default="default", show_default=True, help="The set of documents.")


@click.group()
def rag() -> None:
    """Answers from your documents, with sources. The key is read from INFERD_API_KEY.

    \b
    inferd serve smollm2 minilm
    inferd rag index docs/
    inferd rag ask "How long may a request wait?"
    """


@rag.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@_collection
@click.option("--embed-model", metavar="NAME", help="The model that makes the vectors; default: the server's first.")
@_url
@json_option
def index(paths: tuple[Path, ...], collection: str, embed_model: str | None, url: str, as_json: bool) -> None:
    """Read text files, and those below folders, into a collection; unchanged ones are left as they are."""
    total = {"indexed": 0, "unchanged": 0, "chunks": 0}
    route = f"/v1/rag/collections/{urllib.parse.quote(collection, safe='')}/documents"
    for batch in _batches(paths):
        body = {"documents": batch} | ({"embed_model": embed_model} if embed_model else {})
        reply = call(url, route, body)
        for name in total:
            total[name] += reply[name]
    if as_json:
        print_json({"collection": collection, **total})
    else:
        click.echo(
            f"{collection}: {total['indexed']} indexed in {total['chunks']} chunks, {total['unchanged']} unchanged"
        )


@rag.command()
@click.argument("question")
@_collection
@click.option("--model", metavar="NAME", help="The model that answers; default: the server's first.")
@click.option("--rerank-model", metavar="NAME", help="A cross-encoder that chooses among more candidates.")
@click.option("--top-k", type=click.IntRange(1, 100), default=4, show_default=True, help="Sources in the prompt.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest answer.")
@_url
@json_option
def ask(question: str, collection: str, url: str, as_json: bool, **options: Any) -> None:
    """Ask a question; prints the answer, its sources and the time of each stage."""
    body = {"query": question, "collection": collection, "temperature": 0}
    reply = call(url, "/v1/rag/answer", body | {name: value for name, value in options.items() if value is not None})
    if as_json:
        print_json(reply)
        return
    click.echo(reply["choices"][0]["message"]["content"])
    cited = {one["source"] for one in reply["citations"]}
    click.echo()
    for source in reply["sources"]:
        mark = "*" if source["source"] in cited else " "
        place = f"{source['document']}, characters {source['begin']} to {source['end']}"
        click.echo(f"{mark} [{source['source']}] {place} ({source['score']:.3f})")
    click.echo(", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in reply["stages"].items()))


@rag.command("list")
@_url
@json_option
def list_collections(url: str, as_json: bool) -> None:
    """List the collections."""
    found = call(url, "/v1/rag/collections")["data"]
    if as_json:
        print_json(found)
        return
    rows = [(c["name"], c["model"], str(c["num_documents"]), format_count(c["num_chunks"])) for c in found]
    print_table(("COLLECTION", "MODEL", "DOCUMENTS", "CHUNKS"), rows)


@rag.command()
@click.argument("collection")
@click.argument("document", required=False)
@_url
def rm(collection: str, document: str | None, url: str) -> None:
    """Remove a collection, or one document of it."""
    route = f"/v1/rag/collections/{urllib.parse.quote(collection, safe='')}"
    if document is not None:
        route += f"/documents/{urllib.parse.quote(document, safe='/')}"
    call(url, route, method="DELETE")
    click.echo(f"removed {collection if document is None else document}")


def _batches(paths: tuple[Path, ...]) -> Iterator[list[dict[str, str]]]:
    batch: list[dict[str, str]] = []
    size = 0
    for path in _files(paths):
        text = path.read_text("utf-8", errors="replace")
        if not text.strip():
            click.echo(f"{path} has no text and is left out", err=True)
            continue
        if batch and (size + len(text) > BATCH_BYTES or len(batch) == 256):
            yield batch
            batch, size = [], 0
        batch.append({"name": str(path), "text": text})
        size += len(text)
    if batch:
        yield batch


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        else:
            yield from sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
