"""LLaVA's v1 conversation as a chat template of transformers, for anyone who uses the processor.

LLaVA tokenises the texts before and after an image apart, each as the beginning of a text; transformers tokenises one
string. Some Llama tokenizers start only the whole string with their word mark and leave it out after `<image>`. For
those the template writes a blank there, which is the same token.

See docs/hosts.md, "transformers".
"""

import logging
from typing import Any

from ..data.conversations import IMAGE_TOKEN, build_prompt, encode_prompt, expand_image_tokens, get_template

logger = logging.getLogger(__name__)

# System, then "USER: q ASSISTANT: a</s>" rounds; images stand before their question, each on a line of its own.
_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% set rounds = messages[1:] %}"
    "{% else %}"
    "{% set system = SYSTEM %}{% set rounds = messages %}"
    "{% endif %}"
    "{% if system is not string %}{% set system = system[0]['text'] %}{% endif %}"
    "{{ system + ' ' }}"
    "{% for message in rounds %}"
    "{% set said = namespace(images=0, text='') %}"
    "{% if message['content'] is string %}"
    "{% set said.text = message['content'] %}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set said.images = said.images + 1 %}"
    "{% elif part['type'] == 'text' %}{% set said.text = said.text + part['text'] %}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{% set said.images = said.images + said.text.count(IMAGE) %}"
    "{% if said.images %}{% set said.text = LINE * said.images + said.text.replace(IMAGE, '').strip() %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + said.text + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + said.text + '</s>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def v1_chat_template(tokenizer: Any) -> str:
    r"""A chat template with which stock tools ask as LLaVA trains.

    Args:
        tokenizer: With the token `<image>`.

    Returns:
        Jinja text. What it renders, tokenised whole, has the ids of `encode_prompt`. The image may be a part of the
        message (`{"type": "image"}`) or `<image>` anywhere in its text.
    """
    names = {
        "SYSTEM": get_template("v1").system.strip(),
        "IMAGE": IMAGE_TOKEN,
        "LINE": IMAGE_TOKEN + _gap(tokenizer) + "\n",
    }
    quoted = {name: '"' + text.replace("\n", "\\n") + '"' for name, text in names.items()}
    return "".join("{% set " + name + " = " + text + " %}" for name, text in quoted.items()) + _TEMPLATE


def _gap(tokenizer: Any) -> str:
    """What stands between `<image>` and the end of its line."""
    talk = [{"from": "human", "value": f"{IMAGE_TOKEN}\nx"}]
    ids = encode_prompt(tokenizer, talk)
    expected = expand_image_tokens(ids, ids, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), 1)
    for gap in ("", " "):
        text = build_prompt(talk).replace(IMAGE_TOKEN, IMAGE_TOKEN + gap)
        if list(tokenizer(text).input_ids) == expected:
            return gap
    logger.warning(
        "%s tokenises the text after %s as no chat template can tell it to: tools that use the chat template ask "
        "with slightly other tokens than this model was trained on",
        type(tokenizer).__name__,
        IMAGE_TOKEN,
    )
    return ""
