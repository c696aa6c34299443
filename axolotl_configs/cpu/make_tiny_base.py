"""Make what the tiny base model is trained from: its corpus and its random start.

    python axolotl_configs/cpu/make_tiny_base.py --out runs/tiny-base/untrained

LoRA on a model of a million weights can point to what the base has learnt to see; it
cannot teach it to see. A base that has read conversations alone stays at chance. So this
corpus also holds remarks on its conversations, as the text that real models are trained
on does: marks in letters, "six out of seven", what is garbled and what was left out. The
benchmark's questions with their labels are not in it, nor is any benchmark conversation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from regreason_plugin.core.errors import stop_on_user_error
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.paper import QUESTIONS
from regreason_plugin.core.prompt import CUE, render_conversation
from regreason_plugin.core.records import Conversation
from regreason_plugin.core.whole_files import atomic_writer, scratch_folder, writing
from regreason_plugin.data.mini import MINI_AXES, mini_conversations

_TEXT: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("remarks.yaml").read_text(encoding="utf-8")
)

# Far from any seed a benchmark is made with.
CORPUS_SEED = 1_000_003
PER_DATASET = 4000
_REMARKS_AN_AXIS = 3

_VOCABULARY = 1280
# Four blocks of 128: as float32 below 4 MB with its tokenizer.
_SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message['role'] }}]\n{{ message['content'] }}"
    # A bare line end behind a block would be trimmed.
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def base_corpus(seed: int = CORPUS_SEED, per_dataset: int = PER_DATASET) -> Iterator[str]:
    """Generate the corpus, one text a conversation, datasets mixed.

    Yields:
        A conversation as prompts have it, followed by remarks on it.
    """
    random = Random(f"{seed}/remarks")
    conversations = list(mini_conversations(seed, per_dataset))
    random.shuffle(conversations)
    for conversation in conversations:
        yield f"{render_conversation(conversation)}\n\n{_remarks(conversation, random)}"


def _remarks(conversation: Conversation, random: Random) -> str:
    meta = conversation.meta or {}
    answered, strayed = meta["answered"], meta["strayed"]
    counts = {
        "garbled": meta["garbled"],
        "answered": len(answered),
        "strayed": len(strayed),
    }
    remarks = []
    for axis, way in MINI_AXES.items():
        degree = meta["degrees"][axis] - 1
        values = {
            "word": _TEXT["words"][degree].capitalize(),
            "letter": _TEXT["letters"][degree],
            "seventh": _TEXT["sevenths"][degree].capitalize(),
            "count": _TEXT["counts"][counts[way]],
            "topic": meta["topic"],
            "answered": " and ".join(answered) or "nothing",
            "missing": " or ".join(thing for thing in meta["asked"] if thing not in answered)
            or "nothing",
            "strayed": " and ".join(strayed) or "nothing",
        }
        chosen = random.sample(_TEXT[axis], _REMARKS_AN_AXIS)
        remarks += [pattern.format(**values) for pattern in chosen]
    remarks.append(random.choice(_TEXT["sayings"]))
    remarks.append(random.choice(_TEXT["numbers"]).format(digit=random.randint(1, 9)))
    random.shuffle(remarks)
    return "\n".join(remarks)


def make_untrained_base(
    destination: Path, seed: int = CORPUS_SEED, per_dataset: int = PER_DATASET
) -> None:
    """Write the corpus, a tokenizer made from it, and a Llama with random weights.

    Args:
        destination: Gets ``corpus.jsonl`` and what a model folder holds.
        seed: Of the corpus and of the weights.
        per_dataset: Size of the corpus, as for `base_corpus`.

    Raises:
        UserError: It cannot be written; then nothing is.
    """
    with scratch_folder(destination) as scratch:
        _write_untrained(scratch, seed, per_dataset)
        with writing(destination):
            destination.mkdir(exist_ok=True)
            for path in sorted(scratch.iterdir()):
                path.replace(destination / path.name)


def _write_untrained(folder: Path, seed: int, per_dataset: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with atomic_writer(folder / "corpus.jsonl") as stream:
        for text in base_corpus(seed, per_dataset):
            stream.write(dumps({"text": text}).encode() + b"\n")
    # A part of the corpus has all of its words.
    tokenizer = _tokenizer(base_corpus(seed, min(per_dataset, 1000)))
    torch.manual_seed(seed)
    model = LlamaForCausalLM(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=_VOCABULARY,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **_SHAPE,
        )
    )
    with writing(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _tokenizer(texts: Iterator[str]) -> Any:
    """A byte-level BPE: any text has tokens, and the benchmark's words have one each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bos, eos, pad = special = ["<s>", "</s>", "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(  # type: ignore[no-untyped-call]
        vocab_size=_VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    questions = [f"{question}\n{CUE}" for question in QUESTIONS.values()] * 100
    tokenizer.train_from_iterator([*texts, *questions], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, 0)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=_SHAPE["max_position_embeddings"],
    )


@stop_on_user_error()
def main() -> None:
    """Write an untrained tiny model with its corpus."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    out = parser.parse_args().out
    make_untrained_base(out)
    print(f"An untrained tiny model and its corpus: {out}")


if __name__ == "__main__":
    main()
