"""A conversation in a chat template, rendered as `transformers` renders it."""

from __future__ import annotations

from inkling.tokenizer import Tokenizer

CHAT = [{"role": "user", "content": "Hello! <b>2 + 2</b>?"}]


def render(template: str, tokenizer: Tokenizer) -> str:
    """The text of `CHAT` up to where the answer begins."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    end = next((text for text, number in tokenizer.special_tokens.items() if number == tokenizer.eot_id), "")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    text: str = environment.from_string(template).render(
        messages=CHAT, add_generation_prompt=True, bos_token=end, eos_token=end
    )
    return text
