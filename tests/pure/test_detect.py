"""Formats are recognised by what templates of the known families write and by what they do with a conversation."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
import pytest

from inferd.parsing.detect import detect
from inferd.parsing.formats import OutputFormat
from inferd.tokenizer.chat_template import ChatTemplate
from inferd.tokenizer.control import ControlTexts


def format_of(template: str, control: tuple[str, ...] = ()) -> OutputFormat:
    texts = ControlTexts({text: number for number, text in enumerate(control)})
    compiled = ChatTemplate(template, control=texts)

    def render(messages, **options):
        rendered = compiled.render(messages, **options)
        return rendered.text.replace(rendered.guard, "")

    return detect(template, render, control)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
EACH_CALL = "{%% for m in messages %%}{%% for call in m.tool_calls or [] %%}%s{%% endfor %%}{%% endfor %%}"
CALLS = EACH_CALL % "<tool_call>{{ call.function.arguments | tojson }}</tool_call>"
LLAMA = "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"


@pytest.mark.parametrize(("template", "expected"), [
    (CHATML + PROMPT, {}),
    (TOOLS + CHATML + CALLS + PROMPT, {"tools": "hermes", "knows_tools": True}),
    ("{# <tool_call> #}" + CHATML, {"tools": "json", "knows_tools": False}),  # it names the tags and shows no tool
    (TOOLS + "<tool_call><function=x><parameter=y>" + CHATML, {"tools": "qwen3_coder", "knows_tools": True}),
    (TOOLS + "<tool_call>x<arg_key>y</arg_key>" + CHATML, {"tools": "json", "knows_tools": False}),
    (TOOLS + "[TOOL_CALLS]" + CHATML, {"tools": "mistral", "knows_tools": True}),
    (TOOLS + "<|tool_call|>" + CHATML, {"tools": "bar", "knows_tools": True}),
    (TOOLS + "<｜tool▁call▁begin｜>" + CHATML, {"tools": "deepseek", "knows_tools": True}),
    (TOOLS + '{"name": f, "parameters": p}' + LLAMA, {"tools": "llama3", "knows_tools": True}),
    (LLAMA, {"tools": "json"}),
    (TOOLS + "<|channel|>final<|message|>{% if reasoning_effort %}{{ reasoning_effort }}{% endif %}" + CHATML,
     {"tools": "harmony", "knows_tools": True, "knows_effort": True}),
    ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML,
     {"knows_system": False}),
    (CHATML + "{% for d in documents or [] %}{{ d.text }}{% endfor %}", {"knows_documents": True}),
    ("The words documents and enable_thinking alone." + CHATML, {}),
    # reasoning: after its end the template cuts, or it opens it itself
    (CHATML + "{{ messages[0].content.split('</think>')[-1] }}" + PROMPT, {"reasoning": "think"}),
    (CHATML + "{% if false %}</think>{% endif %}" + PROMPT + "<think>\n",
     {"reasoning": "think", "opens": True, "opens_on": True, "opens_off": True}),
    (CHATML + PROMPT + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
     {"reasoning": "think", "reasoning_switch": "enable_thinking"}),
    (CHATML + PROMPT + "{% if thinking %}<think>{% else %}</think>{% endif %}",
     {"reasoning": "think", "reasoning_switch": "thinking", "opens_on": True}),
    (CHATML + "[THINK]{{ 'x' }}[/THINK]", {"reasoning": "bracket"}),
])  # fmt: skip
def test_templates(template, expected):
    assert asdict(format_of(template)) == {**asdict(OutputFormat()), **expected}


def test_arguments_as_text():
    """A template that joins the arguments to a text cannot take an object."""
    joined = TOOLS + CHATML + EACH_CALL % "{{ '<tool_call>' + call.function.arguments }}"
    assert format_of(joined).takes_argument_text
    assert not format_of(TOOLS + CHATML + CALLS).takes_argument_text


def test_markers_that_are_control_tokens_make_all_of_them_visible():
    template = TOOLS + CHATML + CALLS
    assert format_of(template, ("<|im_end|>", "<|im_start|>")).hidden == ()
    assert format_of(template, ("<|im_end|>", "<tool_call>")).hidden == ("<tool_call>", "<|im_end|>")


def test_details_are_plain():
    form = format_of(TOOLS + CHATML + CALLS, ("<tool_call>",))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(asdict(form)))
    assert OutputFormat(**{**again, "hidden": tuple(again["hidden"])}) == form
