"""Make the input of the tiny base model's training: a corpus, a tokenizer and random weights.

    python axolotl_configs/cpu/make_tiny_base.py --out runs/tiny-base/untrained

LoRA on a model of a million weights can only select from what the base model has already learnt
to recognise. With a base that has read conversations alone, it stays at chance. So this corpus
also holds remarks on its conversations, as the training text of real models does: marks in
letters, "six out of seven", garbled sentences and missing answers. The corpus holds neither the
benchmark's questions with their labels nor any conversation of the benchmark.
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

# Far from the seeds with which benchmarks are made.
CORPUS_SEED = 1_000_003
PER_DATASET = 4000
_REMARKS_AN_AXIS = 3

_VOCABULARY = 1280
# Four blocks of width 128; with the tokenizer, the model takes less than 4 MB in float32.
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
    # Jinja would trim a bare line break after a block.
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def base_corpus(seed: int = CORPUS_SEED, per_dataset: int = PER_DATASET) -> Iterator[str]:
    """Generate the corpus: one text per conversation, with the datasets mixed.

    Yields:
        A conversation in the form of a prompt, followed by remarks on it.
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
    """Write the corpus, a tokenizer that is made from it, and a Llama with random weights.

    Args:
        destination: Folder for ``corpus.jsonl`` and the files of the model.
        seed: Seed of the corpus and of the weights.
        per_dataset: Number of conversations per dataset in the corpus.

    Raises:
        UserError: The folder cannot be written to; then nothing is written.
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
    # A part of the corpus suffices for the tokenizer, because it has all words of the corpus.
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
    """A byte-level BPE: it tokenizes any text, and each word of the benchmark is one token."""
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
    """Write an untrained tiny model and its corpus into a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    out = parser.parse_args().out
    make_untrained_base(out)
    print(f"An untrained tiny model and its corpus: {out}")


if __name__ == "__main__":
    main()
