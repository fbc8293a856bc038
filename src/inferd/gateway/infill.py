"""Fill-in-the-middle: the prompt that has a model write what belongs between a prefix and a suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.errors import InvalidRequestError
from inferd.gateway.tokens import TokenReader
from inferd.worker.protocol import TextPrompt, TokenPrompt


@dataclass(frozen=True, slots=True)
class Snippet:
    """Another file of the same project, as context."""

    filename: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillFormat:
    """The markers of a family of models, each one token of its vocabulary; "" where it has none."""

    prefix: str
    suffix: str
    middle: str = ""  # "": what is missing follows the prefix, and the suffix comes first
    repo: str = ""
    file: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.prefix, self.suffix, self.middle, self.repo, self.file)))


# the first one whose markers a vocabulary has is the model's
FORMATS = (
    InfillFormat(  # Qwen 2.5 Coder and later
        prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>",
        repo="<|repo_name|>", file="<|file_sep|>",
    ),
    InfillFormat(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>"),  # CodeGemma
    InfillFormat(  # StarCoder 2
        prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>", repo="<repo_name>", file="<file_sep>"
    ),
    InfillFormat(prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>"),  # StarCoder, Granite Code
    InfillFormat(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>"),  # DeepSeek Coder
    InfillFormat(prefix="[PREFIX]", suffix="[SUFFIX]"),  # Codestral
)  # fmt: skip


async def infill_prompt(
    tokens: TokenReader, prefix: str, suffix: str, *, extra: Sequence[Snippet] = (), begun: str = "", param: str
) -> TokenPrompt:
    """begun: how the middle starts. The texts are only text: a marker in one of them marks nothing.

    Raises InvalidRequestError naming `param` when the model's vocabulary has no markers.
    """
    found = await _format_of(tokens)
    if found is None:
        raise InvalidRequestError(f"{param}: this model cannot fill in the middle of a text", param=param)
    form, ids_of = found
    ids = list(await tokens.begin_ids())
    ids += await _context(tokens, form, ids_of, extra)
    before = [*ids_of[form.prefix], *await _plain(tokens, prefix)]
    after = [*ids_of[form.suffix], *await _plain(tokens, suffix)]
    ids += [*before, *after, *ids_of[form.middle]] if form.middle else [*after, *before]
    return TokenPrompt(token_ids=(*ids, *await _plain(tokens, begun)))


async def can_infill(tokens: TokenReader) -> bool:
    return await _format_of(tokens) is not None


async def _format_of(tokens: TokenReader) -> tuple[InfillFormat, dict[str, tuple[int, ...]]] | None:
    for form in FORMATS:
        prompt = TextPrompt(text="".join(form.markers), add_special_tokens=False)
        found = await tokens.read(prompt, want_pieces=True)
        if found.pieces == tuple(marker.encode() for marker in form.markers):
            return form, dict(zip(form.markers, ((token_id,) for token_id in found.token_ids), strict=True))
    return None


async def _context(
    tokens: TokenReader, form: InfillFormat, ids_of: dict[str, tuple[int, ...]], extra: Sequence[Snippet]
) -> list[int]:
    """The other files, behind the markers of a repository where the model knows them."""
    if not extra:
        return []
    if not form.file:
        return list(await _plain(tokens, "".join(f"{one.text}\n" for one in extra)))
    ids = [*ids_of[form.repo], *await _plain(tokens, "project\n")]
    for one in extra:
        ids += [*ids_of[form.file], *await _plain(tokens, f"{one.filename}\n{one.text}\n")]
    return [*ids, *ids_of[form.file], *await _plain(tokens, "file\n")]


async def _plain(tokens: TokenReader, text: str) -> tuple[int, ...]:
    return await tokens.ids(text, parse_special=False) if text else ()
