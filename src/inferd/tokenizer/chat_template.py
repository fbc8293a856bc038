"""Chat templates: the model's Jinja text, rendered in a sandbox with caps on time, size, loops and recursion.

What users wrote cannot become a control token: before rendering, every control string inside user text, and every
beginning of one at its end, is broken by a guard character; encoding takes the guard away and leaves the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from inferd.errors import InvalidRequestError, TemplateError
from inferd.tokenizer.control import ControlTexts
from inferd.tokenizer.sandbox import Sandbox, TemplateRefusalError, limited

MAX_TEMPLATE_LEN = 256 * 1024
MAX_GROWTH = 1 << 20  # characters a rendering may add to what the request holds
_GUARDS = tuple(map(chr, range(0xFDD0, 0xFDF0)))  # noncharacters: no text needs them
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """Text for Tokenizer.encode_guarded: control strings count unless `guard` is inside them."""

    text: str
    guard: str


class ChatTemplate:
    """One template, compiled once; rendering is safe from any thread. Raises TemplateError when it does not compile.

    special_texts: its variables bos_token and eos_token, "" where there is none.
    """

    def __init__(
        self, source: str, *, control: ControlTexts, bos_token: str = "", eos_token: str = ""
    ) -> None:
        if len(source) > MAX_TEMPLATE_LEN:
            raise TemplateError(f"the chat template is longer than {MAX_TEMPLATE_LEN} characters")
        self.source = source
        self._control = control
        self.special_texts = {"bos_token": bos_token, "eos_token": eos_token}
        self._takes_parts = _handles_content_parts(source)
        self._sandbox = Sandbox()
        try:
            with limited(self._sandbox, len(source) + MAX_GROWTH):
                self._template = self._sandbox.from_string(source)
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TemplateError(f"the chat template does not compile: {str(error)[:200]}") from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Raises InvalidRequestError when the template refuses the messages, TemplateError when it fails or grows."""
        if continue_final_message and add_generation_prompt:
            raise InvalidRequestError(
                "continue_final_message and add_generation_prompt cannot both be true", param="continue_final_message"
            )
        plain = [_plain(message, self._takes_parts) for message in messages]
        guard = _pick_guard(plain, tools, kwargs)
        variables: dict[str, Any] = {
            **self.special_texts,
            **self._protect(dict(kwargs or {}), guard),
            "messages": self._protect(plain, guard),
            "tools": self._protect(list(tools), guard) if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        text = self._run(variables)
        if continue_final_message:
            text = _cut_after_final(text, variables["messages"])
        return RenderedPrompt(text, guard)

    def _run(self, variables: dict[str, Any]) -> str:
        budget = _num_characters(variables) + MAX_GROWTH
        pieces, size = [], 0
        try:
            with limited(self._sandbox, budget, _num_items(variables)):
                for piece in self._template.generate(variables):
                    size += len(piece)
                    if size > budget:
                        raise TemplateError("the chat template produced too much text")
                    pieces.append(piece)
        except TemplateRefusalError as error:
            raise InvalidRequestError(str(error)[:500], param="messages", code="template_refused") from None
        except RecursionError:
            raise TemplateError("the chat template recurses too deeply") from None
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise TemplateError(f"the chat template failed: {str(error)[:200]}") from None
        except (ArithmeticError, MemoryError):
            raise TemplateError("the chat template failed in arithmetic") from None
        return "".join(pieces)

    def _protect(self, value: Any, guard: str) -> Any:
        if isinstance(value, str):
            return self._control.broken(value, guard)
        if isinstance(value, Mapping):
            return {self._protect(key, guard): self._protect(item, guard) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self._protect(item, guard) for item in value]
        return value


def default_template(control: ControlTexts) -> str | None:
    """ChatML for a vocabulary that has its tokens; a base model has no template at all."""
    return _CHATML if control.id_of("<|im_start|>") is not None else None


def _handles_content_parts(source: str) -> bool:
    """Templates that loop over message content are given the list of parts; others the joined text."""
    return re.search(r"for\s+\w+\s+in\s+message(\.content|\[['\"]content['\"]\])", source) is not None


def _plain(message: Message, takes_parts: bool) -> dict[str, Any]:
    """A message as templates expect it: role developer is system, content is text (or parts where understood)."""
    result = {key: value for key, value in message.items() if value is not None or key == "content"}
    if result.get("role") == "developer":
        result["role"] = "system"
    content = result.get("content")
    if content is None:
        result["content"] = ""
    elif not isinstance(content, str) and not takes_parts:
        result["content"] = "".join(str(part.get("text", "")) for part in content)
    return result


def _strings(value: Any) -> list[str]:
    """Every string inside a JSON-like value; iterative, for deep ones."""
    found, stack = [], [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Mapping):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, Sequence):
            stack.extend(item)
    return found


def _num_items(value: Any) -> int:
    """Values inside a JSON-like value; iterative, for deep ones."""
    count, stack = 0, [value]
    while stack:
        item = stack.pop()
        count += 1
        if isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, Sequence) and not isinstance(item, str):
            stack.extend(item)
    return count


def _num_characters(value: Any) -> int:
    return sum(map(len, _strings(value)))


def _pick_guard(*values: Any) -> str:
    texts = _strings(values)
    for guard in _GUARDS:
        if not any(guard in text for text in texts):
            return guard
    raise InvalidRequestError("messages use every noncharacter from U+FDD0 to U+FDEF", param="messages")


def _cut_after_final(text: str, messages: Sequence[Message]) -> str:
    """Leaves the last message open, so that the model goes on with it."""
    content = messages[-1].get("content") if messages else None
    final = content if isinstance(content, str) else _strings(content)[-1] if content else ""
    at = text.rfind(final.strip()) if final.strip() else -1
    if at < 0:
        raise InvalidRequestError("the final message does not appear in the rendered chat", param="messages")
    # templates may trim: keep the message's own end only where the template kept it
    end = at + len(final.strip())
    tail = final[len(final.rstrip()) :]
    return text[:end] + (tail if text[end:].startswith(tail) else "")
