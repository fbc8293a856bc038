"""The mock engine behind a template that knows tools (Hermes' format) and thinking: it says again what the last message
says, so that a test can put any output into its mouth."""

from __future__ import annotations

from inferd.config import EngineConfig
from support.mock_engine import Loaded, loaded

TEMPLATE = """<bos>{% for m in messages | reverse %}
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}
{%- for call in m.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}
{%- endfor %}{% for tool in tools or [] %}({{ tool.function.name }}){% endfor %}
{%- if enable_thinking is defined and not enable_thinking %}(quick){% endif %}"""


def build(model: str, config: EngineConfig) -> Loaded:
    return loaded(TEMPLATE, config)
