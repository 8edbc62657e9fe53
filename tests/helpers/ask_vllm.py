"""Asks models in vLLM; runs in the environment of `make vllm`, which has no pytest.

python ask_vllm.py REQUEST ANSWERS      two JSON files

REQUEST: {"models": {NAME: FOLDER}, "asked": [{"image": FILE, "text": QUESTION}, ...], "max_tokens": N,
          "options": {...}, "lora": FOLDER or null}; the options are of vLLM's `LLM`
ANSWERS: {NAME: [{"ids": PROMPT IDS, "text": ANSWER, "logprobs": {TOKEN: of the first, ...}}, ...] or {"error": TEXT}}
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any


def chat_message(image: str, text: str) -> dict[str, Any]:
    """As the OpenAI API has it, the picture in it."""
    url = f"data:image/png;base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


def ask(folder: str, request: dict[str, Any]) -> Any:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    try:
        llm = LLM(
            folder,
            enforce_eager=True,
            dtype="float32",
            max_model_len=512,
            max_num_seqs=8,
            limit_mm_per_prompt={"image": 1},
            enable_lora=request["lora"] is not None,
            **request["options"],
        )
    except Exception as error:
        return {"error": str(error)}
    talks = [[chat_message(**one)] for one in request["asked"]]
    sampling = SamplingParams(temperature=0, max_tokens=request["max_tokens"], logprobs=5)
    lora = LoRARequest("adapter", 1, request["lora"]) if request["lora"] else None
    return [
        {
            "ids": list(output.prompt_token_ids),
            "text": output.outputs[0].text,
            "logprobs": {str(token): one.logprob for token, one in output.outputs[0].logprobs[0].items()},
        }
        for output in llm.chat(talks, sampling, use_tqdm=False, lora_request=lora)
    ]


if __name__ == "__main__":
    request = json.loads(Path(sys.argv[1]).read_text())
    answers = {name: ask(folder, request) for name, folder in request["models"].items()}
    Path(sys.argv[2]).write_text(json.dumps(answers))
