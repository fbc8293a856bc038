"""Chat templates rendered by transformers: the models' own, and one of constructs that templates in the wild use.

    PYTHONPATH=tests python tests/oracle/make_templates.py MODEL_FOLDER      (transformers 5.24; seconds)

Writes tests/golden/templates.json: for each template the text of every conversation, or the refusal it raised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jinja2
from gguf import GGUFReader
from make_greedy import GOLDEN, MODELS
from transformers.utils.chat_template_utils import render_jinja_template

from model.conversations import CONVERSATIONS, WILD_TEMPLATE


def render(template: str, case: dict[str, Any]) -> dict[str, str]:
    options = {"add_generation_prompt": True} | case.get("options", {})
    try:
        rendered, _ = render_jinja_template(
            conversations=[case["messages"]], tools=case.get("tools"), chat_template=template,
            bos_token="<s>", eos_token="</s>", **options,
        )  # fmt: skip
    except jinja2.TemplateError as error:
        return {"refused": str(error)}
    return {"text": rendered[0]}


def templates(folder: Path) -> dict[str, str]:
    """Gemma's base model has none."""
    found = {"wild": WILD_TEMPLATE}
    for name, file_name in MODELS.items():
        field = GGUFReader(folder / file_name).fields.get("tokenizer.chat_template")
        if field is not None:
            found[name] = field.contents()
    return found


def goldens(folder: Path) -> dict[str, Any]:
    return {
        name: {title: render(template, case) for title, case in CONVERSATIONS.items()}
        for name, template in templates(folder).items()
    }


def main(folder: str) -> None:
    text = json.dumps(goldens(Path(folder)), indent=1, ensure_ascii=False, sort_keys=True)
    (GOLDEN / "templates.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
