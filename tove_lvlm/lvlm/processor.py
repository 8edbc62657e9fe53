"""The chat template that a model is trained with and saved with, for anyone who uses the processor.

It is LLaVA's v1 conversation, or the language model's own template with images before it: whoever gives an image as a
part of a message gets `<image>` in its text, which is all that a template of texts knows.

LLaVA tokenises the texts before and after an image apart, each as the beginning of a text; transformers tokenises one
string. Some Llama tokenizers start only the whole string with their word mark and leave it out after `<image>` and
after a BOS that is part of the string. For those the template writes a blank there, which is the same token.

v1's template begins with the BOS, as templates of transformers do: servers (vLLM, SGLang) tokenise what it renders and
add nothing, and `apply_chat_template(tokenize=True)` sees it and adds none.

See docs/hosts.md, "transformers".
"""

import itertools
import logging
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..data.chat_template import ChatTemplate
from ..data.conversations import CHAT, V1, build_prompt, encode_prompt, expand_image_tokens, get_template, template_of
from ..data.turns import IMAGE_TOKEN

logger = logging.getLogger(__name__)

END = "</s>"
"""Ends an answer in LLaVA's v1 conversation."""
# System, then "USER: q ASSISTANT: a</s>" rounds.
_V1 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% else %}"
    "{% set system = SYSTEM %}"
    "{% endif %}"
    "{{ START + system + ' ' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + '</s>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Messages as texts: the place of a single image is LINE before the others, several stay where they are.
_AS_TEXTS = (
    "{% set flat = namespace(messages=[]) %}"
    "{% for message in messages %}"
    "{% set said = namespace(text='', alone='') %}"
    "{% if message['content'] is string %}"
    "{% set said.text = message['content'] %}{% set said.alone = said.text.replace('<image>', '') %}"
    "{% elif message['content'] %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set said.text = said.text + LINE %}"
    "{% elif part['type'] == 'text' %}"
    "{% set said.text = said.text + part['text'] %}"
    "{% set said.alone = said.alone + part['text'].replace('<image>', '') %}"
    "{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{% if said.text.count('<image>') == 1 %}{% set said.text = LINE + said.alone.strip() %}{% endif %}"
    "{% set flat.messages = flat.messages + [dict(message, content=said.text)] %}"
    "{% endfor %}"
    "{% set messages = flat.messages %}"
)
# The other way round: a text becomes parts.
_AS_PARTS = (
    "{% set flat = namespace(messages=[]) %}"
    "{% for message in messages %}"
    "{% set said = namespace(parts=[]) %}"
    "{% if message['content'] is not string %}"
    "{% set said.parts = message['content'] %}"
    "{% else %}"
    "{% for text in message['content'].split('<image>') %}"
    "{% if not loop.first %}{% set said.parts = said.parts + [{'type': 'image'}] %}{% endif %}"
    "{% if text.strip() %}{% set said.parts = said.parts + [{'type': 'text', 'text': text.strip()}] %}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{% set flat.messages = flat.messages + [dict(message, content=said.parts)] %}"
    "{% endfor %}"
    "{% set messages = flat.messages %}"
)
# Templates of models that think (Qwen3) ask whether they shall.
_NO_THINKING = "{% if enable_thinking is not defined %}{% set enable_thinking = false %}{% endif %}"


def set_chat_template(tokenizer: Any, choice: str | None, where: str) -> None:
    """Give a tokenizer the chat template that its model is trained with, and is asked with from then on.

    Args:
        tokenizer: The language model's, with the token `<image>`.
        choice: `v1`, a file of Jinja, or None: the tokenizer's own template where it has one, else v1.
        where: For messages.

    Raises:
        ConfigError: v1 for a tokenizer whose texts do not end with `</s>`, or a template that cannot be trained with.
    """
    if choice is not None and choice != V1:
        try:
            tokenizer.chat_template = Path(choice).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"`model.chat_template` is `{choice}`; expected `v1` or a Jinja file: {error}") from error
    if choice == V1 or template_of(tokenizer) == V1:
        _check_v1_end(tokenizer, where)
        tokenizer.chat_template = v1_chat_template(tokenizer)
    else:
        take_images(tokenizer)


def adopt_chat_template(processor: Any) -> None:
    """Make a processor's chat template, if it has one, that of its tokenizer, with which its model is asked.

    Args:
        processor: Of a whole LLaVA model.

    Raises:
        ConfigError: See `ChatTemplate`.
    """
    if processor.chat_template:
        processor.tokenizer.chat_template = processor.chat_template
    if template_of(processor.tokenizer) == CHAT:
        take_images(processor.tokenizer)


def conversation_of(processor: Any) -> str:
    """Name of the template that a model is asked with, see `template_of`."""
    return template_of(processor.tokenizer)


def take_images(tokenizer: Any) -> None:
    """Make a tokenizer's chat template one that takes `<image>` in texts and images as parts of messages alike.

    It does not think unless asked. A template that has been made so already stays.

    Args:
        tokenizer: With a chat template of texts, or of another LLaVA model's, which takes parts alone.

    Raises:
        ConfigError: See `ChatTemplate`.
    """
    own = tokenizer.get_chat_template()
    texts = _setting("LINE", f"{IMAGE_TOKEN}\n") + _AS_TEXTS
    ready = own.startswith((_NO_THINKING, texts, _AS_PARTS))
    first = _NO_THINKING if "enable_thinking" in own else ""
    failures = []
    for template in [own] if ready else [first + texts + own, first + _AS_PARTS + own]:
        tokenizer.chat_template = template
        try:
            ChatTemplate.of(tokenizer)
        except ConfigError as error:
            failures.append(error)
        else:
            return
    tokenizer.chat_template = own
    raise failures[0]


def _check_v1_end(tokenizer: Any, where: str) -> None:
    ends = tokenizer.encode(END, add_special_tokens=False)
    if ends != [tokenizer.eos_token_id]:
        raise ConfigError(
            f"{where} ends its answers with `{tokenizer.eos_token}`, and LLaVA's v1 conversation with `{END}`, which "
            f"its tokenizer reads as {len(ends)} tokens of text: it would never learn to stop; take the instruct "
            "model, whose tokenizer has a chat template, or name a Jinja file in `model.chat_template`"
        )


def v1_chat_template(tokenizer: Any) -> str:
    r"""A chat template with which stock tools ask as LLaVA trains.

    Args:
        tokenizer: With the token `<image>`.

    Returns:
        Jinja text. What it renders, tokenised whole without special tokens, has the ids of `encode_prompt`. The image
        may be a part of the message (`{"type": "image"}`) or `<image>` anywhere in its text.
    """
    start, gap = _start_and_gap(tokenizer)
    names = {"START": start, "SYSTEM": get_template(V1).system.strip(), "LINE": f"{IMAGE_TOKEN}{gap}\n"}
    return "".join(_setting(name, text) for name, text in names.items()) + _AS_TEXTS + _V1


def _setting(name: str, text: str) -> str:
    """Jinja that gives a text a name."""
    quoted = text.replace("\n", "\\n")
    return f'{{% set {name} = "{quoted}" %}}'


def _start_and_gap(tokenizer: Any) -> tuple[str, str]:
    """What stands before the system's text, and between `<image>` and the end of its line."""
    bos = tokenizer.bos_token or ""
    talk = [{"from": "human", "value": f"{IMAGE_TOKEN}\nx"}]
    ids = encode_prompt(tokenizer, talk)
    expected = expand_image_tokens(ids, ids, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), 1)
    for start, gap in itertools.product(("", bos, f"{bos} "), ("", " ")):
        text = start + build_prompt(talk).replace(IMAGE_TOKEN, IMAGE_TOKEN + gap)
        if list(tokenizer(text, add_special_tokens=False).input_ids) == expected:
            return start, gap
    logger.warning(
        "%s tokenises the text after %s as no chat template can tell it to: tools that use the chat template ask "
        "with slightly other tokens than this model was trained on",
        type(tokenizer).__name__,
        IMAGE_TOKEN,
    )
    return bos, ""
