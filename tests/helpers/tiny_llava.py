"""A tiny LLaVA made by LLaVA's own classes and written by LLaVA's own functions. For the tests of hosts/llava."""

from pathlib import Path
from types import SimpleNamespace

import torch

from helpers import llava_reference, tiny_towers
from tove_lvlm.hosts import llava as plugin

IMAGE = -200  # LLaVA's IMAGE_TOKEN_INDEX


def load() -> SimpleNamespace:
    """LLaVA's modules with the plugin in place; skips the test where LLaVA is not installed."""
    modules = llava_reference.load()
    plugin.register("llava")
    from llava.model import builder, llava_arch
    from llava.model.language_model import llava_llama

    return SimpleNamespace(**vars(modules), builder=builder, arch=llava_arch, llama=llava_llama)


def arguments(vision_tower: str, **changes) -> SimpleNamespace:
    """LLaVA's ModelArguments as its v1.5 scripts set them."""
    return SimpleNamespace(
        **{
            "vision_tower": vision_tower,
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch",
            "pretrain_mm_mlp_adapter": None,
            "mm_projector_type": "mlp2x_gelu",
            "mm_patch_merge_type": "flat",
            "tune_mm_mlp_adapter": False,
        }
        | changes
    )


def build(llava: SimpleNamespace, llm: Path, vision_tower: str, lora: bool = False, awake: bool = True, **changes):
    """A model in the order of LLaVA's train(): language model, LoRA, then vision."""
    torch.manual_seed(0)
    model = llava.llama.LlavaLlamaForCausalLM.from_pretrained(llm, dtype=torch.float32)
    if lora:
        import peft

        targets = llava.train.find_all_linear_names(model)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    torch.manual_seed(1)
    settings = arguments(vision_tower, **changes)
    model.get_model().initialize_vision_modules(model_args=settings)
    if settings.tune_mm_mlp_adapter:
        model.requires_grad_(False)
        for parameter in model.get_model().mm_projector.parameters():
            parameter.requires_grad = True
    model.config.mm_use_im_start_end = model.config.mm_use_im_patch_token = False
    projector = model.get_model().mm_projector
    if awake and hasattr(projector, "tove_fusion"):
        tiny_towers.wake(projector)
    return model


def save(llava: SimpleNamespace, model, folder: Path, layout: str) -> Path:
    """Write a model as LLaVA does at the end of training; `layout` is `projector`, `lora` or `merged`."""
    folder.mkdir(parents=True)
    if layout == "projector":
        args = SimpleNamespace(tune_mm_mlp_adapter=True, use_im_start_end=False, local_rank=-1)
        trainer = SimpleNamespace(args=args, model=model)
        llava.train.safe_save_model_for_hf_trainer(trainer=trainer, output_dir=str(folder))
    elif layout == "lora":
        state = llava.train.get_peft_state_maybe_zero_3(model.named_parameters(), "none")
        others = llava.train.get_peft_state_non_lora_maybe_zero_3(model.named_parameters())
        model.config.save_pretrained(folder)
        model.save_pretrained(folder, state_dict=state)
        torch.save(others, folder / "non_lora_trainables.bin")
    else:
        from transformers import AutoTokenizer

        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model.config.name_or_path).save_pretrained(folder)  # as its Trainer does
    return folder


def reload(llava: SimpleNamespace, folder: Path, base: Path | None):
    """What LLaVA's own loader makes of a folder, on the CPU: (model, image processor)."""
    name = llava.mm_utils.get_model_name_from_path(str(folder))
    _, model, image_processor, _ = llava.builder.load_pretrained_model(
        str(folder), None if base is None else str(base), name, device_map="cpu", device="cpu"
    )
    return model.eval(), image_processor


def halve(model):
    """float16 as the loader gives it: all but the rotary table; a LoRA is merged after the rounding."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.half()
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.get_vision_tower().half()  # buffers too
    return model.eval()


def batch(dtype: torch.dtype = torch.float32) -> dict:
    """Two questions with an image each."""
    ids = torch.tensor([[1, IMAGE, 15, 16, 17], [1, 19, IMAGE, 15, 16]])
    return {"input_ids": ids, "images": tiny_towers.pixels().to(dtype)}


def logits(model, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(2, T, V)."""
    with torch.no_grad():
        return model(**batch(dtype)).logits


def generate(model, dtype: torch.dtype = torch.float32) -> list[list[int]]:
    """Eight greedy tokens for each of the two questions, one at a time."""
    inputs = batch(dtype)
    rows = []
    for index in range(2):
        ids, images = inputs["input_ids"][index : index + 1], inputs["images"][index : index + 1]
        rows += model.generate(ids, images=images, do_sample=False, max_new_tokens=8, eos_token_id=None).tolist()
    return rows
