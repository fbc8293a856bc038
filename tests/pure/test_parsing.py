"""The parser's result does not depend on where the text was cut, and is what the golden outputs say."""

from __future__ import annotations

import functools
import json
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.parsing.deltas import Content, Reasoning, ToolCallArguments, ToolCallBegin
from inferd.parsing.formats import REASONING_FORMATS, TOOL_FORMATS
from inferd.parsing.parser import OutputParser
from support.outputs import OUTPUTS, TOOLS, Output

MARKERS = sorted(
    {syntax.begin for form in TOOL_FORMATS.values() for syntax in form.calls if syntax.begin}
    | {end for form in TOOL_FORMATS.values() for syntax in form.calls for end in syntax.ends}
    | {text for form in REASONING_FORMATS.values() for text in (form.begin, form.end)}
)


def parser_of(output: Output) -> OutputParser:
    return OutputParser(
        TOOL_FORMATS[output.tools] if output.tools else None,
        REASONING_FORMATS[output.reasoning] if output.reasoning else None,
        tools=TOOLS if output.tools else None,
        opens_reasoning=output.opens_reasoning,
        hidden=frozenset(output.hidden),
    )


def together(deltas):
    """(content, reasoning, calls as (name, arguments)), with what must hold of any deltas checked on the way."""
    content = reasoning = ""
    calls, ids = [], []
    for delta in deltas:
        match delta:
            case Content(text):
                content += text
            case Reasoning(text):
                reasoning += text
            case ToolCallBegin(index, call_id, name):
                assert index == len(calls)
                calls.append([name, ""])
                ids.append(call_id)
            case ToolCallArguments(index, text):
                assert index == len(calls) - 1
                assert text
                calls[index][1] += text
    assert len(ids) == len(set(ids))
    return content, reasoning, [tuple(call) for call in calls]


def parsed(output: Output, pieces):
    parser = parser_of(output)
    deltas = [delta for piece in pieces for delta in parser.push(piece)] + parser.finish()
    assert parser.push("") + parser.finish() == []
    result = together(deltas)
    assert parser.num_tool_calls == len(result[2])
    return result


def cut(text: str, places) -> list[str]:
    return [text[begin:end] for begin, end in pairwise([0, *sorted(places), len(text)])]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.id)
def test_golden(output):
    expected = (output.content, output.thought, output.calls)
    assert parsed(output, [output.text]) == expected


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.id)
def test_streamed_is_whole_for_every_cut(output):
    whole = parsed(output, [output.text])
    assert parsed(output, list(output.text)) == whole
    for place in range(len(output.text) + 1):
        assert parsed(output, cut(output.text, [place])) == whole, place
    chance = random.Random(output.id)
    for _ in range(100):
        places = chance.choices(range(len(output.text) + 1), k=chance.randrange(1, 12))
        assert parsed(output, cut(output.text, places)) == whole, places


PIECES = st.one_of(
    st.sampled_from([*MARKERS, '{"name": "', "get_weather", '", "arguments": ', '{"city": "', '"}', "}", "[", "]", ","]),
    st.sampled_from(["\n", " ", "\\", '"', "{", "é", "```", "<", "<|channel|>", "<|message|>", "<parameter=a>"]),
    st.text(max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_text_is_read_alike_however_cut(data):
    output = Output(
        id="any",
        text="".join(data.draw(st.lists(PIECES, max_size=14))),
        tools=data.draw(st.sampled_from([None, *TOOL_FORMATS])),
        reasoning=data.draw(st.sampled_from([None, *REASONING_FORMATS])),
        opens_reasoning=False,
    )
    places = data.draw(st.lists(st.integers(0, len(output.text)), max_size=6))
    whole = parsed(output, [output.text])
    assert parsed(output, cut(output.text, places)) == whole
    assert parsed(output, list(output.text)) == whole
    if whole[1:] == ("", []) and output.tools != "harmony":  # all is content: nothing but white space may be lost
        ignored = TOOL_FORMATS[output.tools].ignored if output.tools else ()
        kept = functools.reduce(lambda text, marker: text.replace(marker, ""), ignored, output.text)
        if output.reasoning is None:
            assert "".join(whole[0].split()) == "".join(kept.split())


def test_calls_stream_as_they_are_written():
    """The name as soon as the arguments begin, and the arguments piece by piece."""
    parser = OutputParser(TOOL_FORMATS["hermes"], tools=TOOLS)
    assert parser.push('Hi <tool_call>\n{"name": "get_weather"') == [Content("Hi")]
    begin, piece = parser.push(', "arguments": {"ci')
    assert (begin.name, piece) == ("get_weather", ToolCallArguments(0, '{"ci'))
    assert parser.push('ty": "Par') == [ToolCallArguments(0, 'ty": "Par')]
    assert parser.push('is"}') == [ToolCallArguments(0, 'is"}')]
    assert parser.push("}\n</tool_call>") + parser.finish() == []


def test_text_is_held_back_no_longer_than_it_may_be_a_marker():
    parser = OutputParser(TOOL_FORMATS["hermes"], REASONING_FORMATS["think"], tools=TOOLS)
    assert parser.push("Hello") == [Content("Hello")]
    assert parser.push(" <tool") == []
    assert parser.push(" shed>") == [Content(" <tool shed>")]


def test_ids_have_the_form_the_templates_want():
    ids = set()
    for _ in range(50):
        begin = OutputParser(TOOL_FORMATS["mistral"], tools=TOOLS).push('[TOOL_CALLS]now[ARGS]{"')[0]
        assert len(begin.id) == 9
        assert begin.id.isalnum()
        ids.add(begin.id)
    assert len(ids) == 50


def test_calls_beyond_the_limit_are_dropped():
    output = next(output for output in OUTPUTS if output.id == "two")
    parser = OutputParser(TOOL_FORMATS["hermes"], tools=TOOLS, max_calls=1)
    assert together(parser.push(output.text) + parser.finish()) == ("", "", output.calls[:1])


def test_long_arguments_take_linear_time():
    """100,000 characters in pieces of 4: 25,000 pushes."""
    parser = OutputParser(TOOL_FORMATS["hermes"], tools=TOOLS)
    arguments = json.dumps({"text": 'x"\\\n{' * 20_000})
    text = f'<tool_call>{{"name": "write_file", "arguments": {arguments}}}</tool_call>'
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
    assert together([delta for piece in pieces for delta in parser.push(piece)])[2] == [("write_file", arguments)]


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_no_marker_hides_another(name):
    form = TOOL_FORMATS[name]
    markers = [*(syntax.begin for syntax in form.calls if syntax.begin), *form.ignored]
    assert not [(a, b) for a in markers for b in markers if a != b and a in b]
