"""SmolLM2-135M-Instruct out of its GGUF file, as a folder that `from_pretrained` reads.

The file holds most matrices in 4 bits; the folder has the numbers that these stand for, in bfloat16. The network is
Llama's, the embedding is the head.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

QUESTION = "What is the capital of France?"


def convert(source: Path, folder: Path) -> None:
    """Write model and tokenizer.

    Args:
        source: The GGUF file.
        folder: To write into; it is there.
    """
    options = {"gguf_file": source.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options)
    config = read.config
    del config.quantization_config  # it is none any more
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, **options).save_pretrained(folder)


@torch.no_grad()
def check(source: Path, folder: Path) -> dict[str, object]:
    """The folder against the file: every tensor by gguf's own reader, and an answer that can be known.

    Returns:
        `largest_difference` over all tensors, in units of bfloat16's rounding at that number (at most 0.5 is exact),
        `tensors`, and `answer` to `QUESTION`.
    """
    from gguf import GGUFReader, dequantize

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    state, largest, tensors = model.state_dict(), 0.0, GGUFReader(source).tensors
    for tensor in tensors:
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        expected = expected.reshape(list(tensor.shape)[::-1])
        kind = tensor.name.split(".")[-2]
        if kind in heads:  # llama.cpp pairs the numbers that are rotated together, transformers has them in halves
            expected = expected.reshape(heads[kind], -1, 2, expected.shape[-1]).transpose(1, 2).reshape(expected.shape)
        found = state[_name(tensor.name)]
        step = torch.finfo(torch.bfloat16).eps * torch.exp2(torch.floor(torch.log2(expected.abs().clamp(min=1e-30))))
        largest = max(largest, float(((found - expected).abs() / step).max()))
    chat = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return {
        "largest_difference": round(largest, 3),
        "tensors": len(tensors),
        "answer": tokenizer.decode(answer, skip_special_tokens=True),
    }


def _name(name: str) -> str:
    """transformers' name of a tensor of the GGUF file."""
    if not name.startswith("blk."):
        return {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight",
        }[name]
    _, layer, part, ending = name.split(".")
    parts = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    return f"model.layers.{layer}.{parts[part]}.{ending}"
