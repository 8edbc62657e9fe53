"""The miniature world for LAVIS: captions, questions, and a small BERT and OPT in the formats that LAVIS reads.

OUT/train, OUT/heldout   rendered scenes with captions and questions (world/dataset.py)
OUT/answer_list.json     the answers to the training questions, for `inference_method: rank`
OUT/bert                 stands for `bert-base-uncased`: tokenizer, config, random weights
OUT/opt                  stands for `facebook/opt-2.7b`: tokenizer, config, weights taught the captions' language
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from ...config import UserError
from ...storage import atomic_dir, save_json
from ...world.dataset import write_dataset
from .data import read_captions
from .vqa_data import read_questions

logger = logging.getLogger(__name__)

_BERT: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
_OPT: dict[str, Any] = {
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 192,
}
_LONGEST = 128
_BATCH = 64
_HINTS = 8  # as many as projects/lavis has query tokens


def write_miniature(out: Path, scenes: int = 2000, heldout: int = 64, opt_steps: int = 300, seed: int = 0) -> None:
    """Write all that `projects/lavis` needs.

    Args:
        out: Folder; data sets in it are replaced, as are `bert` and `opt`.
        scenes: Training pictures.
        heldout: Held-out pictures.
        opt_steps: Steps of next-word training for OPT on the captions; 0 leaves it random.
        seed: Of the data and the weights.

    Raises:
        UserError: A data set's folder holds something else.
    """
    try:
        write_dataset(out / "train", "train", scenes, seed=seed)
        write_dataset(out / "heldout", "heldout", heldout, seed=seed)
    except (ValueError, FileExistsError) as error:
        raise UserError(str(error)) from error
    answers = {row["answer"] for row in read_questions(out / "train" / "finetune.json")}
    save_json(out / "answer_list.json", sorted(answers))
    captions = [row["caption"] for row in read_captions(out / "train" / "pretrain.json")]
    with atomic_dir(out / "bert") as folder:
        write_bert(folder, captions, seed)
    with atomic_dir(out / "opt") as folder:
        write_opt(folder, captions, opt_steps, seed)
    logger.info("written to %s", out)


def write_bert(folder: Path, captions: list[str], seed: int = 0) -> None:
    """A BERT with random weights whose vocabulary is the captions' words."""
    words = sorted({word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption.lower())})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=_LONGEST, **_BERT)
    BertForMaskedLM(config).save_pretrained(folder)


def write_opt(folder: Path, captions: list[str], steps: int, seed: int = 0) -> None:
    """An OPT with its byte-level tokenizer, taught to say captions (not what is on a picture)."""
    tokenizer = _opt_tokenizer(captions)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=_LONGEST,
        dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_OPT,
    )
    model = OPTForCausalLM(config)
    _teach(model, tokenizer, captions, steps)
    model.eval().save_pretrained(folder)


def _opt_tokenizer(captions: list[str]):
    """OPT's: byte-level BPE, `</s>` begins and ends, `<pad>` pads; a text gets `</s>` before it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(captions, trainer)
    inner.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>"
    )


def _teach(model: torch.nn.Module, tokenizer, captions: list[str], steps: int) -> None:
    """Next-word training behind a few words of the caption in any order: what stands there will be query tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(steps, 1))
    draw = torch.Generator().manual_seed(0)
    loss = None
    for _ in range(steps):
        chosen = torch.randint(len(captions), (_BATCH,), generator=draw).tolist()
        batch = tokenizer([captions[index] + "\n" for index in chosen], return_tensors="pt", padding=True)
        lengths_B1 = batch.attention_mask.sum(1, keepdim=True)
        hints = batch.input_ids.gather(1, (torch.rand(_BATCH, _HINTS, generator=draw) * lengths_B1).long())
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        loss = model(
            input_ids=torch.cat([hints, batch.input_ids], dim=1),
            attention_mask=torch.cat([torch.ones_like(hints), batch.attention_mask], dim=1),
            labels=torch.cat([torch.full_like(hints, -100), labels], dim=1),
        ).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    if loss is not None:
        logger.info("OPT: loss %.3f after %d steps", loss.item(), steps)
